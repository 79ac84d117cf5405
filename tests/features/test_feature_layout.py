from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

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
