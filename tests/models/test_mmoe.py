from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
import yaml

from lfm4ads_tf.config import RunConfig, resolve
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.merging import merged_model
from lfm4ads_tf.export.tower_model import TowerModel
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.models.mmoe import MMoE, MMoEConfig
from lfm4ads_tf.models.registry import UPSTREAMS
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.strict import StrictModel
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

SIZES = MMoEConfig(experts=3, expert_units=[8, 5], task_units=[4])
MakeBatch = Callable[..., dict[str, Any]]


@pytest.fixture
def make_model(
    layout: FeatureLayout,
    network: NetworkConfig,
    embeddings: EmbeddingsConfig,
    make_batch: MakeBatch,
    randomize: Callable[..., None],
) -> Callable[..., MMoE]:
    """`make_model(sizes, seed, random)`: a model with its variables, random ones if asked for."""

    def make(
        sizes: MMoEConfig = SIZES,
        seed: int = 1,
        *,
        random: int | None = None,
        shared_head: bool = True,
        of: FeatureLayout = layout,
    ) -> MMoE:
        own = network.model_copy(update={"shared_head": shared_head})
        model = MMoE(of, own, embeddings, sizes, seed=seed)
        model(make_batch(2))
        if random is not None:
            randomize(model, random)
        return model

    return make


def test_represent_gives_towers_and_every_tasks_mixture(
    make_model: Callable[..., MMoE], make_batch: MakeBatch
) -> None:
    model, batch = make_model(random=0), make_batch()
    assert model(batch).shape == (12, 2)
    found = model.represent(batch)
    assert list(found) == ["UR", "IR", "towers", "mix_click", "mix_buy"]
    assert list(found)[2:] == model.layer_names
    # The context has one field of width 2 and one number.
    assert [v.shape[1] for v in found.values()] == [4, 3, 4 + 3 + 3, 5, 5]
    towers = model.backbone.towers(batch)
    np.testing.assert_array_equal(
        found["towers"], tf.concat([towers.user, towers.item, towers.context], axis=1)
    )
    mixed = model.experts(found["towers"])
    np.testing.assert_array_equal(found["mix_click"], mixed[:, 0])
    np.testing.assert_array_equal(found["mix_buy"], mixed[:, 1])


@pytest.mark.parametrize("units", [[], [4], [6, 4]])
@pytest.mark.parametrize("shared", [True, False])
def test_logits_of_each_task_and_scenario(
    make_model: Callable[..., MMoE], make_batch: MakeBatch, units: list[int], shared: bool
) -> None:
    sizes = SIZES.model_copy(update={"task_units": units})
    model, batch = make_model(sizes, random=2, shared_head=shared), make_batch()
    found, scenario = model.represent(batch), batch["scenario"].numpy()
    assert (scenario == -1).any() and (scenario == 2).any()
    heads = model.heads
    expected = np.zeros((12, 2))
    for t, name in enumerate(("mix_click", "mix_buy")):
        h = found[name].numpy()
        for kernel, bias in heads.layers:
            h = np.maximum(h @ kernel.numpy()[t] + bias.numpy()[t], 0)
        every = h @ heads.logit_kernel.numpy()[t] + heads.logit_bias.numpy()[t]
        assert every.shape == (12, 3 + shared)
        for b, s in enumerate(scenario):
            own = every[b, s + shared] if s >= 0 else 0
            # of an unknown scenario without a shared logit: all alike before training
            of_all = every[b, 0] if shared else every[b].mean() if s < 0 else 0
            expected[b, t] = of_all + own
    assert_close(model(batch), expected, terms=40)


def test_scenarios_start_as_corrections_of_zero(
    make_model: Callable[..., MMoE], make_batch: MakeBatch
) -> None:
    batch = make_batch()
    scores = [
        make_model()({**batch, "scenario": tf.fill([12], tf.constant(s, tf.int64))})
        for s in (-1, 0, 2)
    ]
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])
    assert np.abs(scores[0]).max() > 0


def test_one_task_and_one_expert_is_a_plain_mlp(
    layout: FeatureLayout,
    network: NetworkConfig,
    embeddings: EmbeddingsConfig,
    make_batch: MakeBatch,
    randomize: Callable[..., None],
) -> None:
    lone = replace(layout, tasks=("click",), scenarios=())
    sizes = MMoEConfig(experts=1, expert_units=[8, 5], task_units=[4])
    model, batch = MMoE(lone, network, embeddings, sizes, seed=1), make_batch()
    model(batch)
    randomize(model)
    plain = tf_keras.Sequential(
        [*(tf_keras.layers.Dense(w, "relu") for w in (8, 5, 4)), tf_keras.layers.Dense(1)]
    )
    stream = model.represent(batch)["towers"]
    plain(stream)
    experts, heads = model.experts, model.heads
    plain.set_weights(
        [
            experts.kernel[:, :8],  # the last column is the gate's, which has nothing to choose
            experts.bias,
            *(w[0] if w.shape[1] > 1 else w[0, 0] for pair in experts.deeper for w in pair),
            heads.layers[0][0][0],
            heads.layers[0][1][0, 0],
            heads.logit_kernel[0],
            heads.logit_bias[0, 0],
        ]
    )
    assert_close(model(batch), plain(stream), terms=40)


def test_a_tasks_loss_moves_its_own_gate_and_tower_alone(
    make_model: Callable[..., MMoE], make_batch: MakeBatch
) -> None:
    model, batch = make_model(random=0), make_batch()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(batch)[:, 0])
    kernel, tower, logit = tape.gradient(
        loss, [model.experts.kernel, model.heads.layers[0][0], model.heads.logit_kernel]
    )
    first, gate = 3 * 8, 3
    assert np.abs(kernel[:, :first]).sum() > 0
    assert np.abs(kernel[:, first : first + gate]).sum() > 0
    assert not np.any(kernel[:, first + gate :])
    for of in (tower, logit):
        assert np.any(of[0]) and not np.any(of[1])


def test_weights_and_optimizer_survive_a_checkpoint(
    make_model: Callable[..., MMoE], make_batch: MakeBatch, tmp_path: Path
) -> None:
    batch = make_batch()

    def trained(model: MMoE, optimizer: HybridOptimizer, steps: int) -> None:
        for _ in range(steps):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(batch, training=True) - batch["labels"]) ** 2)
            variables = model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    def prepared(model: MMoE) -> HybridOptimizer:
        optimizer = HybridOptimizer(0.1, 0.01)
        tables = model.backbone.embeddings
        parts = {id(p) for p in tables.all_parts()}
        optimizer.build([tables], [v for v in model.trainable_variables if id(v) not in parts])
        return optimizer

    one, other = make_model(), make_model(seed=2)
    first, second = prepared(one), prepared(other)
    trained(one, first, 3)
    path = tf.train.Checkpoint(model=one, optimizer=first).write(str(tmp_path / "state"))
    restored = tf.train.Checkpoint(model=other, optimizer=second).read(path)
    restored.assert_existing_objects_matched()
    np.testing.assert_array_equal(one(batch), other(batch))
    trained(one, first, 2)
    trained(other, second, 2)
    np.testing.assert_array_equal(one(batch), other(batch))


def test_the_seed_settles_every_weight(
    make_model: Callable[..., MMoE], make_batch: MakeBatch
) -> None:
    logits = [make_model(seed=s)(make_batch()).numpy() for s in (1, 1, 2)]
    assert np.array_equal(logits[0], logits[1])
    assert not np.array_equal(logits[0], logits[2])


def test_the_configuration_picks_the_model_and_its_layers(
    layout: FeatureLayout, make_batch: MakeBatch
) -> None:
    for model, kind in (("foundation", FoundationModel), ("mmoe", MMoE)):
        config = RunConfig(upstream=UpstreamConfig(model=model, mmoe=SIZES))
        made = build.upstream(layout, config, 0)
        assert isinstance(made, kind)
        names = config.upstream.layer_names(layout.tasks)
        assert names == made.layer_names == list(made.represent(make_batch()))[2:]


def test_sharded_tables_merge_and_towers_cut_out_as_an_export_needs(
    layout: FeatureLayout, make_batch: MakeBatch, randomize: Callable[..., None]
) -> None:
    config = RunConfig(
        upstream=UpstreamConfig(
            model="mmoe", mmoe=SIZES, embeddings=EmbeddingsConfig(dim=4, shards=3, init_scale=0.5)
        )
    )
    model, batch = build.upstream(layout, config, 0), make_batch()
    randomize(model)
    merged = merged_model(
        model,
        lambda shards, storage: build.upstream(layout, config, 5, shards=shards, storage=storage),
        batch,
    )
    assert merged is not model and merged.backbone.embeddings.shards == 1
    assert_close(merged(batch), model(batch), terms=40)
    found = model.represent(batch)
    assert_close(TowerModel(model.backbone, "user")(batch), found["UR"], terms=40)
    assert_close(TowerModel(model.backbone, "item")(batch), found["IR"], terms=40)


SPEC: dict[str, Any] = {
    "name": "tiny",
    "log": {"files": ["log.csv"]},
    "keys": {"user": "u", "item": "i", "time": "t"},
    "tasks": {"click": "click"},
    "split": {"by": "day", "train_until": 3, "valid_until": 5},
    "features": {
        "u": {"owner": "user", "kind": "hashed"},
        "i": {"owner": "item", "kind": "hashed"},
    },
    "run": {
        "upstream": {
            "mmoe": {"experts": 6},
            "network": {"block": {"layers": [{"type": "cross", "depth": 1}]}},
        }
    },
}


@pytest.fixture
def spec_path(tmp_path: Path) -> Path:
    """A spec with sizes of both upstreams."""
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(SPEC), "utf-8")
    return path


def test_the_same_spec_runs_either_upstream(spec_path: Path) -> None:
    part = resolve(
        spec_path, ["upstream.model=mmoe", "upstream.mmoe.task_units=[]"]
    ).config.upstream
    assert part.mmoe == MMoEConfig(experts=6, task_units=[])
    assert part.layer_names(["click"]) == ["towers", "mix_click"]
    part = resolve(spec_path).config.upstream
    assert part.layer_names(["click"]) == ["towers", "cross_1"]


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (
            ["upstream.model=mmeo"],
            "upstream.model: the upstream model is unknown. Did you mean 'mmoe'",
        ),
        (["upstream.mmoe.expert_unit=[4]"], "Did you mean 'expert_units'?"),
        (["upstream.mmoe.expert_units=[]"], "upstream.mmoe.expert_units"),
        (["upstream.mmoe.experts=0"], "upstream.mmoe.experts"),
        (["upstream.mmoe.experts=8"], "'foundation' does not read upstream.mmoe."),
        (
            ["upstream.model=mmoe", "upstream.network.block.structure=parallel"],
            "'mmoe' does not read upstream.network.block.",
        ),
    ],
)
def test_bad_combinations_are_one_clear_message(
    spec_path: Path, assignments: list[str], message: str
) -> None:
    with pytest.raises(UserError) as error:
        resolve(spec_path, assignments)
    assert message in str(error.value)


def test_a_task_that_cannot_be_part_of_a_layers_name_is_refused() -> None:
    for task in ("a+b", "a & b", "a/b", "a@b"):
        with pytest.raises(UserError, match="rename the task"):
            UpstreamConfig(model="mmoe").layer_names(["click", task])
        assert UpstreamConfig().layer_names([task])


def test_an_upstream_cannot_take_the_place_of_another_key() -> None:
    class Other(MMoE):
        pass

    with UPSTREAMS.added("network", Other):
        with pytest.raises(UserError, match="cannot be called 'network'"):
            UpstreamConfig()


class _OwnOptions(StrictModel):
    size: int = 3


def test_a_plug_in_changes_no_configuration_that_does_not_name_it(spec_path: Path) -> None:
    class Own(MMoE):
        Config = _OwnOptions

    before = [resolve(spec_path, given).config.upstream for given in ([], ["upstream.model=mmoe"])]
    with UPSTREAMS.added("own", Own):
        after = [
            resolve(spec_path, given).config.upstream for given in ([], ["upstream.model=mmoe"])
        ]
        assert after == before
        assert [u.model_dump() for u in after] == [u.model_dump() for u in before]
        named = resolve(spec_path, ["upstream.model=own", "upstream.own.size=4"]).config.upstream
        assert named.options == _OwnOptions(size=4)
        assert UpstreamConfig(model="own").options == _OwnOptions()
