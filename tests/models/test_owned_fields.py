"""Fields and numbers by owner: joined as towers read them, and set by set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import OWNERS, DenseField, FeatureLayout, IdField, TableField
from lfm4ads_tf.models.owned_fields import OwnedFields
from lfm4ads_tf.models.two_towers import TwoTowers


@given(
    owned=st.lists(st.tuples(st.sampled_from(OWNERS), st.sampled_from([2, 3])), max_size=6),
    numbers=st.lists(st.tuples(st.sampled_from(OWNERS), st.integers(1, 3)), max_size=3),
    sets=st.integers(1, 3),
)
def test_views_hold_every_column_of_their_set_once(
    owned: list[tuple[Any, int]], numbers: list[tuple[Any, int]], sets: int
) -> None:
    owned = sorted(owned, key=lambda o: OWNERS.index(o[0]))
    numbers = sorted(numbers, key=lambda o: OWNERS.index(o[0]))
    fields = [(f"f{k}", owner, dim) for k, (owner, dim) in enumerate(owned)]
    layout = FeatureLayout(
        fields=tuple(IdField(name, owner, name) for name, owner, _ in fields),
        dense=tuple(DenseField(f"n{k}", o, w) for k, (o, w) in enumerate(numbers)),
        tables=tuple(TableField(name, 4, dim) for name, _, dim in fields),
        scenarios=(),
        tasks=(),
    )
    names = {
        dim: [n for n, _, d in fields if d == dim] for dim in dict.fromkeys(d for *_, d in fields)
    }
    rng = np.random.default_rng(len(fields))
    embedded = {
        d: rng.normal(size=(5, len(n), sets, d)).astype(np.float32) for d, n in names.items()
    }
    dense = rng.normal(size=(5, layout.dense_width)).astype(np.float32)
    plan = OwnedFields(layout, names, sets)
    inputs = plan.split(plan.groups({d: tf.constant(v) for d, v in embedded.items()}), dense)
    for owner in OWNERS:
        of_owner = inputs[owner]
        mine = [
            (d, names[d].index(n)) for d in names for n, o, w in fields if o == owner and w == d
        ]
        columns = layout.dense_columns(owner)
        assert bool(of_owner) == bool(mine or columns)
        if not of_owner:
            continue
        flat = [embedded[d][:, k].reshape(5, -1) for d, k in mine] + [dense[:, columns]]
        joined = np.concatenate(flat, axis=1)
        assert np.array_equal(of_owner.joined(), joined)
        assert [name for name, _ in plan.labels(owner)] == [
            n for d in names for n, o, w in fields if o == owner and w == d for _ in range(sets * d)
        ] + [f.name for f in layout.dense if f.owner == owner for _ in range(f.width)]
        views = of_owner.per_set().numpy()
        assert views.shape[:2] == (sets, 5)
        for k in range(sets):
            own = [embedded[d][:, j, k] for d, j in mine] + [dense[:, columns]]
            assert np.array_equal(views[k], np.concatenate(own, axis=1))
        if sets == 1:
            assert np.array_equal(views[0], joined)


@pytest.mark.parametrize("sets", [1, 3])
def test_a_towers_set_views(
    layout: FeatureLayout, make_batch: Callable[..., dict[str, Any]], sets: int
) -> None:
    towers = TwoTowers(layout, [], [], EmbeddingsConfig(dim=4, sets=sets, init_scale=0.5))
    batch = make_batch()
    outputs, views = towers.towers(batch), towers.set_views(batch)
    assert set(views) == set(OWNERS)
    joined = {"user": outputs.user, "item": outputs.item, "context": outputs.context}
    for owner, view in views.items():
        assert view.shape[:2] == (sets, 12)
        if sets == 1:
            assert np.array_equal(view[0], joined[owner])
        # the numbers are in every view, each embedding in one
        numbers = len(layout.dense_columns(owner))
        assert view.shape[2] - numbers == (joined[owner].shape[1] - numbers) // sets


def test_the_gradient_of_a_view_moves_its_set_alone(
    layout: FeatureLayout, make_batch: Callable[..., dict[str, Any]]
) -> None:
    towers = TwoTowers(layout, [], [], EmbeddingsConfig(dim=4, sets=3, init_scale=0.5))
    batch = make_batch()
    towers.towers(batch)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(towers.set_views(batch)["user"][1]))
    parts = towers.embeddings.all_parts()
    gradients = [g for g in tape.gradient(loss, parts) if g is not None]
    assert gradients
    for gradient in gradients:
        values = tf.convert_to_tensor(gradient).numpy()
        apart = values.reshape(len(values), 3, -1)
        assert not apart[:, [0, 2]].any() and apart[:, 1].any()
