from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.models.two_towers import TwoTowers
from tests.rounding import assert_close

pytestmark = pytest.mark.processor


def embedded(
    model: TwoTowers, layout: FeatureLayout, batch: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Every field's embedding from the tables, row by row."""
    out = {}
    for field in layout.fields:
        table = model.embeddings.read_table(field.table)[:, 0]  # (rows + 1, D)
        if field.combiner is None:
            ids = batch["ids"].numpy()[:, [f.name for f in layout.single].index(field.name)]
            out[field.name] = table[np.where(ids < 0, len(table) - 1, ids)]
            continue
        ids, weights = batch["bags"][field.name]
        weights = (
            ids.with_values(tf.ones_like(ids.values, tf.float32)) if weights is None else weights
        )
        rows = []
        for row, weight in zip(ids.to_list(), weights.to_list(), strict=True):
            total = sum(
                (w * table[i] for i, w in zip(row, weight, strict=True)), np.zeros(table.shape[1])
            )
            rows.append(total / (sum(weight) or 1) if field.combiner == "mean" else total)
        out[field.name] = np.array(rows)
    return out


def parts_of(
    model: TwoTowers, layout: FeatureLayout, batch: dict[str, Any], owner: str
) -> np.ndarray:
    """One side's inputs: width by width in the order of the first table, then its numbers."""
    values = embedded(model, layout, batch)
    dims = {t.name: t.dim or 4 for t in layout.tables}
    mine = [f for f in layout.fields if f.owner == owner]
    parts = [values[f.name] for d in model.embeddings.dims for f in mine if dims[f.table] == d]
    parts.append(batch["dense"].numpy()[:, layout.dense_columns(owner)])
    return np.concatenate(parts, axis=1)


def test_without_units_a_representation_is_the_sides_inputs(
    layout: FeatureLayout, embeddings: EmbeddingsConfig, make_batch: Callable[..., dict[str, Any]]
) -> None:
    model = TwoTowers(layout, [], [], embeddings, seed=1)
    batch = make_batch()
    found = model.towers(batch)
    for owner, value in (("user", found.user), ("item", found.item), ("context", found.context)):
        expected = parts_of(model, layout, batch, owner)
        assert_close(value, expected, terms=8, what=owner)
    assert [f.values.shape[1:].as_list() for f in found.fields] == [[4, 4], [2, 3], [1, 2]]


def test_towers_are_dense_layers_over_their_side(
    layout: FeatureLayout,
    embeddings: EmbeddingsConfig,
    make_batch: Callable[..., dict[str, Any]],
    randomize: Callable[..., None],
) -> None:
    model = TwoTowers(layout, [6, 4], [3], embeddings, seed=1)
    batch = make_batch()
    model.towers(batch)
    randomize(model)
    found = model.towers(batch)
    for tower, owner, value in (
        (model.user_tower, "user", found.user),
        (model.item_tower, "item", found.item),
    ):
        x = parts_of(model, layout, batch, owner)
        for k, layer in enumerate(tower.layers):
            kernel, bias = (w.numpy() for w in layer.weights)
            x = x @ kernel + bias
            x = np.maximum(x, 0) if k + 1 < len(tower.layers) else x  # the last is linear
        assert_close(value, x, terms=24)
        assert (value.numpy() < 0).any()


def test_each_tower_sees_its_own_side_only(
    layout: FeatureLayout, embeddings: EmbeddingsConfig, make_batch: Callable[..., dict[str, Any]]
) -> None:
    model = TwoTowers(layout, [6], [6], embeddings, seed=1)
    one, other = make_batch(seed=0), make_batch(seed=1)
    side = {f.name: f.owner for f in layout.fields}
    names = [f.name for f in layout.single]
    for kept, changed in (("user", "item"), ("item", "user")):
        mine = tf.constant([side[n] == kept for n in names])
        mixed = {
            **other,
            "ids": tf.where(mine, one["ids"], other["ids"]),
            "bags": {n: (one if side[n] == kept else other)["bags"][n] for n in one["bags"]},
            "dense": tf.concat(
                [
                    (one if owner == kept else other)["dense"][:, c[0] : c[-1] + 1]
                    for owner in ("user", "item", "context")
                    for c in [layout.dense_columns(owner)]
                ],
                axis=1,
            ),
        }
        before, after = model.towers(one), model.towers(mixed)
        assert np.array_equal(getattr(before, kept), getattr(after, kept))
        assert not np.array_equal(getattr(before, changed), getattr(after, changed))


def test_a_side_without_features_is_refused(
    layout: FeatureLayout, embeddings: EmbeddingsConfig
) -> None:
    bare = FeatureLayout(
        fields=tuple(f for f in layout.fields if f.owner != "item"),
        dense=tuple(d for d in layout.dense if d.owner != "item"),
        tables=layout.tables,
        scenarios=layout.scenarios,
        tasks=layout.tasks,
    )
    with pytest.raises(UserError, match="declares no item feature"):
        TwoTowers(bare, [], [], embeddings)


@pytest.mark.parametrize("units", [[], [6, 4]])
def test_towers_of_each_set_read_their_set_alone(
    layout: FeatureLayout,
    make_batch: Callable[..., dict[str, Any]],
    randomize: Callable[..., None],
    units: list[int],
) -> None:
    embeddings = EmbeddingsConfig(dim=4, sets=3, init_scale=0.5)
    towers = TwoTowers(layout, units, [3], embeddings, set_groups=[1, 1, 1], seed=1)
    batch = make_batch()
    towers(batch)
    randomize(towers)
    outputs, views, sets = towers(batch), towers.set_views(batch), towers.group_towers(batch)
    assert outputs.stream is None
    np.testing.assert_array_equal(sets["context"], views["context"])
    for owner, tower in (("user", towers.user_tower), ("item", towers.item_tower)):
        for k in range(3):
            h = views[owner][k].numpy().astype(np.float64)
            for n, (kernel, bias) in enumerate(tower.layers, start=1):
                h = h @ kernel.numpy()[k] + bias.numpy()[k]
                h = np.maximum(h, 0) if n < len(tower.layers) else h
            assert_close(sets[owner][k], h, terms=60)
        flat = np.concatenate([*sets[owner].numpy()], axis=1)
        np.testing.assert_array_equal(outputs.user if owner == "user" else outputs.item, flat)


def test_one_set_has_the_towers_of_all_sets(
    layout: FeatureLayout, make_batch: Callable[..., dict[str, Any]]
) -> None:
    batch, embeddings = make_batch(), EmbeddingsConfig(dim=4, init_scale=0.5)
    apart, plain = (
        TwoTowers(layout, [6], [3], embeddings, set_groups=groups, seed=1, name="towers")
        for groups in ([1], [])
    )
    np.testing.assert_array_equal(apart(batch).user, plain(batch).user)
    assert [v.name for v in apart.weights] == [v.name for v in plain.weights]


@pytest.mark.parametrize("groups", [[1, 1], [1, 3], [3, 0]])
def test_groups_of_another_number_of_sets_are_refused(
    layout: FeatureLayout, groups: list[int]
) -> None:
    with pytest.raises(ValueError, match="are not of 3 sets"):
        TwoTowers(layout, [6], [3], EmbeddingsConfig(dim=4, sets=3), set_groups=groups)
