from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import OWNERS, DenseField, FeatureLayout, IdField, TableField

NAMES = st.text(min_size=1, max_size=6)
OWNER = st.sampled_from(OWNERS)
LAYOUTS = st.builds(
    FeatureLayout,
    fields=st.lists(
        st.builds(IdField, NAMES, OWNER, NAMES, st.sampled_from([None, "mean", "sum"])), max_size=5
    ).map(tuple),
    dense=st.lists(st.builds(DenseField, NAMES, OWNER, st.integers(1, 4)), max_size=5).map(tuple),
    tables=st.lists(
        st.builds(TableField, NAMES, st.integers(1, 10**9), st.none() | st.integers(1, 64)),
        max_size=5,
    ).map(tuple),
    scenarios=st.lists(NAMES, max_size=3).map(tuple),
    tasks=st.lists(NAMES, max_size=3).map(tuple),
)


@given(LAYOUTS)
def test_json_round_trip(layout: FeatureLayout) -> None:
    assert FeatureLayout.from_json(json.loads(json.dumps(layout.to_json()))) == layout


@given(LAYOUTS)
def test_dense_columns_partition_the_matrix(layout: FeatureLayout) -> None:
    columns = [c for owner in OWNERS for c in layout.dense_columns(owner)]
    assert sorted(columns) == list(range(layout.dense_width))


@given(LAYOUTS)
def test_every_field_is_single_or_a_bag(layout: FeatureLayout) -> None:
    assert len(layout.single) + len(layout.bags) == len(layout.fields)
    assert all(f.combiner is None for f in layout.single)


SMALL = FeatureLayout(
    fields=(
        IdField("user", "user", "user"),
        IdField("history", "user", "item", "mean"),
        IdField("city", "user", "city"),
        IdField("item", "item", "item"),
        IdField("city_price", "context", "city_price"),
    ),
    dense=(DenseField("age", "user"), DenseField("vector", "item", 3), DenseField("hour", "user")),
    tables=(
        TableField("user", 9),
        TableField("city", 4),
        TableField("item", 7),
        TableField("city_price", 3),
    ),
    scenarios=("a",),
    tasks=("click",),
)


def test_without_keeps_the_columns_and_tables_of_the_rest() -> None:
    layout = SMALL.without(["city*", "vec*"])
    assert layout.features == ["user", "history", "item", "age", "hour"]
    assert layout.id_columns == (0, 2)  # of user, city, item, city_price
    assert layout.number_columns == (0, 4)
    assert [t.name for t in layout.tables] == ["user", "item"]
    assert layout.dense_columns("user") == [0, 1] and layout.dense_width == 2
    again = layout.without(["user", "age"])
    assert (again.id_columns, again.number_columns) == ((2,), (4,))
    assert SMALL.without(["item"]).tables == SMALL.tables  # `history` reads its table
    assert SMALL.without([]) is SMALL


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="'citi' matches no feature. Did you mean 'city'"):
        SMALL.without(["user", "citi"])
