"""The preset `public_experiment` is the network of the LFM4Ads public experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.config import RunConfig, resolve
from lfm4ads_tf.features.layout import FeatureLayout, IdField, TableField
from lfm4ads_tf.features.spec_file import merge
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.presets import PRESETS
from lfm4ads_tf.strict import parse
from tests.rounding import assert_close

USER, ITEM, SCENARIOS = 27, 9, 15
NAMES = [f"f{k}" for k in range(USER + ITEM)]


@pytest.fixture(scope="module")
def model() -> FoundationModel:
    layout = FeatureLayout(
        fields=tuple(IdField(n, "user" if k < USER else "item", n) for k, n in enumerate(NAMES)),
        dense=(),
        tables=tuple(TableField(n, 5 + k) for k, n in enumerate(NAMES)),
        scenarios=tuple(f"tab_{k}" for k in range(SCENARIOS)),
        tasks=("click",),
    )
    preset = PRESETS["public_experiment"]
    shared = {part: {"embeddings": preset["embeddings"]} for part in ("upstream", "downstream")}
    config = parse(RunConfig, merge(preset, shared), source="preset")
    part = config.upstream
    made = FoundationModel(
        layout, part.network, part.embeddings.model_copy(update={"init_scale": 0.3}), seed=0
    )
    made(batch())
    rng = np.random.default_rng(1)
    for variable in dense_variables(made):
        if "bias" in variable.name:
            variable.assign(rng.normal(0, 0.1, variable.shape))
    return made


def batch(rows: int = 40) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    ids = np.stack([rng.integers(0, 5 + k, rows) for k in range(len(NAMES))], axis=1)
    return {
        "ids": tf.constant(ids),
        "bags": {},
        "dense": tf.zeros([rows, 0]),
        "scenario": tf.constant(rng.integers(0, SCENARIOS, rows)),
    }


def dense_variables(model: FoundationModel) -> list[tf.Variable]:
    tables = {id(p) for p in model.backbone.embeddings.parts(10)}
    return [v for v in model.trainable_variables if id(v) not in tables]


def test_dense_parameters(model: FoundationModel) -> None:
    assert sum(int(tf.size(v)) for v in dense_variables(model)) == 655_215


def test_layers_and_width(model: FoundationModel) -> None:
    found = model.represent(batch())
    layers = ["towers", "cross_1", "cross_2", "cross_3", "dnn_1", "dnn_2"]
    assert list(found) == ["UR", "IR", *layers]
    assert model.backbone.block.layer_names == layers
    assert {found[n].shape[1] for n in layers} == {360}
    assert (found["UR"].shape[1], found["IR"].shape[1]) == (270, 90)


def test_equals_a_numpy_forward_pass(model: FoundationModel) -> None:
    given = batch()
    weights = {v.name.split(":")[0]: v.numpy().astype(float) for v in dense_variables(model)}

    def weight(layer: str, kind: str) -> np.ndarray:
        (found,) = [w for n, w in weights.items() if f"{layer}/" in n and n.endswith(kind)]
        return found

    def affine(x: np.ndarray, layer: str) -> np.ndarray:
        return x @ weight(layer, "kernel") + weight(layer, "bias")

    ids = given["ids"].numpy()
    tables = [model.backbone.embeddings.read_table(n)[:, 0] for n in NAMES]
    x0 = np.concatenate([t[ids[:, k]] for k, t in enumerate(tables)], axis=1).astype(float)
    x = x0
    for k in (1, 2, 3):
        x = x0 * affine(x, f"cross_{k}") + x
    hidden_1 = affine(np.maximum(x, 0), "dnn_1")
    hidden_2 = affine(np.maximum(hidden_1, 0), "dnn_2")
    every = affine(np.maximum(hidden_2, 0), "scenario")  # (B, 15)
    expected = every[np.arange(len(ids)), given["scenario"].numpy()]
    found = model.represent(given)
    assert_close(found["towers"], x0, terms=2160)
    assert_close(found["cross_3"], x, terms=2160)
    assert_close(found["dnn_1"], hidden_1, terms=2160)
    assert_close(found["dnn_2"], hidden_2, terms=2160)
    assert_close(model(given).numpy()[:, 0], expected, terms=2160)


def test_the_spec_declares_these_fields() -> None:
    path = Path(__file__).parents[1] / "feature_specs" / "kuairand_public.yaml"
    found = resolve(path, ["preset=public_experiment"])
    owners = [feature.owner for feature in found.spec.features.values()]
    assert owners.count("user") == USER and owners.count("item") == ITEM
    assert len(owners) == USER + ITEM
    assert found.spec.task_names == ["click"]
    assert not any(getattr(feature, "dim", None) for feature in found.spec.features.values())
    for part in (found.config.upstream, found.config.downstream):
        assert part.embeddings.dim == 10 and not part.network.shared_head
