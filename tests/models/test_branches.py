"""A foundation model with a content and an ad branch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.config import RunConfig, resolve
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.losses.masked_bce import masked_bce
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.models.model_parts import ModelParts
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.transfer.methods import parse_method
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

MakeBatch = Callable[..., dict[str, Any]]
MakeModel = Callable[..., FoundationModel]
CONTENT = ("content_block/", "content_heads/")
AD = ("backbone/block/", "heads/")


def structured(network: NetworkConfig, structure: str) -> NetworkConfig:
    block = network.block.model_copy(update={"structure": structure, "mix_dim": 6})
    return network.model_copy(update={"block": block})


@pytest.fixture(params=["stacked", "gated"])
def shape(request: pytest.FixtureRequest, network: NetworkConfig) -> NetworkConfig:
    """The network with plain and with gated blocks."""
    return structured(network, request.param)


@pytest.fixture
def make_model(
    layout: FeatureLayout,
    shape: NetworkConfig,
    embeddings: EmbeddingsConfig,
    make_batch: MakeBatch,
    randomize: Callable[..., None],
) -> MakeModel:
    """`make_model(branches, random)`: a model with its variables, random ones if asked for."""

    def make(branches: bool = True, random: int | None = None) -> FoundationModel:
        model = FoundationModel(layout, shape, embeddings, branches=branches, seed=1)
        model(make_batch(2) | {"branch": tf.zeros([2], tf.int64)})
        if random is not None:
            randomize(model, random)
        return model

    return make


def with_branch(batch: dict[str, Any], branch: Any) -> dict[str, Any]:
    rows = batch["ids"].shape[0]
    return {**batch, "branch": tf.constant(np.broadcast_to(branch, [rows]), tf.int64)}


def gradients(model: FoundationModel, batch: dict[str, Any]) -> dict[str, np.ndarray]:
    """Path -> gradient of the training loss, of the dense variables."""
    dense = ModelParts(model).dense
    with tf.GradientTape() as tape:
        loss = masked_bce(batch["labels"], model(batch, training=True), tf.ones([2]))
    found = tape.gradient(loss, dense, unconnected_gradients="zero")
    return {path: tf.convert_to_tensor(g).numpy() for path, g in found.items()}


@pytest.mark.parametrize(
    ("branch", "own", "other"), [(0, CONTENT, AD), (1, AD, CONTENT)], ids=["content", "ad"]
)
def test_rows_train_their_own_branch_alone(
    make_model: MakeModel, make_batch: MakeBatch, branch: int, own: Any, other: Any
) -> None:
    found = gradients(make_model(random=0), with_branch(make_batch(), branch))
    assert any(path.startswith(own) for path in found)
    for path, gradient in found.items():
        if path.startswith(other):
            assert not gradient.any(), path
        elif path.startswith(own) and path.endswith("kernel"):
            assert gradient.any(), path
    # Both branches train the towers.
    assert any(g.any() for path, g in found.items() if "user_tower" in path)


def test_a_branchs_gradient_is_that_of_its_own_rows(
    make_model: MakeModel, make_batch: MakeBatch
) -> None:
    """What the content rows are has no influence on the ad branch."""
    model, batch = make_model(random=0), make_batch()
    branch = np.arange(12) % 3 == 0
    labels = batch["labels"].numpy()
    labels[~branch] = 1 - labels[~branch]
    one = gradients(model, with_branch(batch, branch))
    two = gradients(model, with_branch(batch | {"labels": tf.constant(labels)}, branch))
    for path, gradient in one.items():
        if path.startswith(AD):
            assert_close(gradient, two[path], terms=24, what=path)
    assert any(not np.allclose(g, two[p]) for p, g in one.items() if p.startswith(CONTENT))


def test_ad_logits_are_those_of_a_single_branch_model_with_the_ad_weights(
    make_model: MakeModel, make_batch: MakeBatch
) -> None:
    both, single, batch = make_model(random=0), make_model(branches=False), make_batch()
    source = ModelParts(both).dense

    def copy(content: bool) -> None:
        for path, variable in ModelParts(single).dense.items():
            if content and path.startswith(AD):
                path = path.replace("backbone/block/", "content_block/")
                path = path.replace("heads/", "content_heads/")
            variable.assign(source[path])

    branch = np.array([0, 1, 1, 0, 1, 0, 0, 0, 1, 1, 0, 1])
    logits = both(with_branch(batch, branch)).numpy()
    copy(content=False)
    assert_close(logits[branch == 1], single(batch)[branch == 1], terms=40)
    assert not np.allclose(logits[branch == 0], single(batch)[branch == 0], atol=1e-3)
    copy(content=True)
    assert_close(logits[branch == 0], single(batch)[branch == 0], terms=40)


@pytest.mark.parametrize("branch", [0, 1])
def test_a_batch_of_one_branch_needs_no_row_of_the_other(
    make_model: MakeModel, make_batch: MakeBatch, branch: int
) -> None:
    model, batch = make_model(random=0), make_batch()
    mixed = model(with_branch(batch, np.arange(12) % 2))
    alone = model(with_branch(batch, branch))
    rows = np.arange(branch, 12, 2)
    assert_close(alone.numpy()[rows], mixed.numpy()[rows], terms=40)
    assert alone.shape == (12, 2)


def test_represent_gives_every_layer_of_both_branches_for_all_rows(
    make_model: MakeModel, make_batch: MakeBatch, shape: NetworkConfig
) -> None:
    model, batch = make_model(random=0), make_batch()
    found = model.represent(with_branch(batch, 0))
    own = ["fm", "cross_1", "dnn_1"]
    own += ["mix_click", "mix_buy"] if shape.block.structure == "gated" else []
    names = ["towers", *(f"{b}.{layer}" for b in ("content", "ad") for layer in own)]
    assert list(found)[:2] == ["UR", "IR"] and list(found)[2:] == names == model.layer_names
    config = UpstreamConfig(network=shape, branches=True)
    assert config.layer_names(model.layout.tasks) == names
    # It does not matter which branch a row is of.
    other = model.represent(with_branch(batch, 1))
    for name, value in found.items():
        assert value.shape[0] == 12
        np.testing.assert_array_equal(value, other[name], err_msg=name)
    activations, _ = model.backbone.interact(model.backbone.towers(batch))
    np.testing.assert_array_equal(found["ad.dnn_1"], activations["dnn_1"])
    np.testing.assert_array_equal(found["towers"], activations["towers"])
    assert not np.allclose(found["content.dnn_1"], found["ad.dnn_1"])


def test_without_branches_the_weights_are_those_of_the_ad_branch(make_model: MakeModel) -> None:
    """A switch of branches changes nothing else."""
    single, both = ModelParts(make_model(branches=False)).dense, ModelParts(make_model()).dense
    assert set(both) - set(single) == {p for p in both if p.startswith(CONTENT)}
    for path, variable in single.items():
        np.testing.assert_array_equal(variable, both[path], err_msg=path)
    kernels = [p for p in both if p.startswith("content_block") and p.endswith("kernel")]
    assert kernels
    for path in kernels:  # the branches start from weights of their own
        twin = path.replace("content_block", "backbone/block")
        assert not np.array_equal(both[path], both[twin]), path


def test_methods_name_layers_of_branches() -> None:
    method = parse_method("feature/mlp/UR+CR_user@ad.cross_2", ["towers", "ad.cross_2"])
    assert method.sources == ["UR", "CR_user@ad.cross_2"]


def test_branches_need_ads_and_the_foundation_model(layout: FeatureLayout, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    text = (
        "{name: x, log: {files: [x.csv]}, keys: {user: u, item: i, time: t}, tasks: {click: c}, "
        "split: {by: t, train_until: 1, valid_until: 2}, "
        "features: {u: {owner: user, kind: hashed}, i: {owner: item, kind: hashed}}"
    )
    spec.write_text(text + "}", "utf-8")
    with pytest.raises(UserError, match="which samples are ads"):
        resolve(spec, ["upstream.branches=true"])
    spec.write_text(text + ", ads: {by: place, values: [1]}}", "utf-8")
    with pytest.raises(UserError, match="'mmoe' has no branches"):
        resolve(spec, ["upstream.branches=true", "upstream.model=mmoe"])
    config: RunConfig = resolve(spec, ["upstream.branches=true"]).config
    model = build.upstream(layout, config, seed=0)
    assert isinstance(model, FoundationModel) and model.branches
