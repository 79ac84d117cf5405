"""What all upstreams that give every task a vector of its own have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.merging import merged_model
from lfm4ads_tf.export.tower_model import TowerModel
from lfm4ads_tf.interactions.block import mixture_names
from lfm4ads_tf.models.mixture_model import MixtureModel
from lfm4ads_tf.models.registry import UPSTREAMS
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.named_method import read_method
from tests.rounding import assert_close
from tests.small_models import LAYOUT, NETWORK, random_batch

pytestmark = pytest.mark.processor

SIZES: dict[str, Any] = {"expert_units": [8, 5], "task_units": [4]}
OPTIONS: dict[str, dict[str, Any]] = {
    "single_task": {},
    "shared_bottom": {},
    "omoe": {"experts": 3, "gate_units": [4]},
    "mmoe": {"experts": 3, "gate_units": [4, 3], "gate_bias": True},
    "ple": {"levels": 2, "task_experts": 2, "shared_experts": 1},
    "me_mmoe": {"experts": 3, "gate_input": "joined", "gate_bias": True},
    "me_ple": {"levels": 2, "task_experts": 1, "shared_experts": 2},
    "stem": {"levels": 2, "task_experts": 1, "shared_experts": 2, "gate_units": [4]},
    "ame": {"set_groups": [1, 2], "gate_units": [4]},
    "esmm": {"funnel": ["click", "buy"], "output": "conditional"},
    "aitm": {"sequence": ["buy", "click"]},
}
SETS = {"single_task": 2, "me_mmoe": 3, "me_ple": 3, "stem": 3, "ame": 3}
"""Models of several sets of embeddings, and how many of them."""
of_all = pytest.mark.parametrize("name", OPTIONS)
H, T = 5, 2
Randomize = Callable[..., None]


def config_of(name: str, shards: int = 1, sets: int = 0, **options: Any) -> RunConfig:
    """A run with a small model of a name."""
    sets = sets or SETS.get(name, 1)
    upstream = {
        "model": name,
        name: {**SIZES, **OPTIONS[name], **options},
        "network": NETWORK,
        "embeddings": EmbeddingsConfig(dim=4, init_scale=0.5, sets=sets, shards=shards),
    }
    return RunConfig(upstream=UpstreamConfig(**upstream))


def made(name: str, randomize: Randomize, **options: Any) -> MixtureModel:
    """The model of a name with random weights."""
    model = build.upstream(LAYOUT, config_of(name, **options), 0)
    assert isinstance(model, MixtureModel)
    randomize(model)
    return model


def mlp(x: Any, layers: Any) -> np.ndarray:
    """relu layers of (kernel, bias) pairs."""
    h = np.asarray(x, np.float64)
    for kernel, bias in layers:
        h = np.maximum(h @ np.asarray(kernel) + np.asarray(bias), 0)
    return h


def softmax(scores: np.ndarray) -> np.ndarray:
    exponents = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights: np.ndarray = exponents / exponents.sum(axis=-1, keepdims=True)
    return weights


def expert_layers(bank: Any, expert: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernel and bias of every layer of an expert."""
    first, kernel, bias = bank.units[0], bank.kernel.numpy(), bank.bias.numpy()
    own = slice(expert * first, (expert + 1) * first)
    layers = [(kernel[:, own], bias[own])]
    if kernel.ndim == 3:
        layers = [(kernel[expert], bias[expert, 0])]
    return layers + [(k.numpy()[expert], b.numpy()[expert, 0]) for k, b in bank.deeper]


@of_all
def test_the_configuration_picks_the_model_and_its_layers(name: str, randomize: Randomize) -> None:
    model, batch = made(name, randomize), random_batch()
    assert UPSTREAMS.name_of(type(model)) == name
    found = model.represent(batch)
    assert list(found) == ["UR", "IR", "towers", "mix_click", "mix_buy"]
    assert list(found)[2:] == model.layer_names
    assert config_of(name).upstream.layer_names(LAYOUT.tasks) == model.layer_names
    assert [found[m].shape[1] for m in mixture_names(LAYOUT.tasks)] == [H, H]
    # towers of two groups; the context of the wider one has a field of two sets and one number
    sets = 2 if name == "ame" else SETS.get(name, 1)
    width = 22 if name == "ame" else 10 * sets
    assert [found[r].shape[1] for r in ("UR", "IR", "towers")] == [4 * sets, 3 * sets, width]
    assert model.configuration().options == config_of(name).upstream.options
    np.testing.assert_array_equal(found["mix_click"], model.represent(batch)["mix_click"])


@of_all
def test_logits_are_those_of_the_tasks_towers_over_their_vectors(
    name: str, randomize: Randomize
) -> None:
    model, batch = made(name, randomize), random_batch()
    found, scenario = model.represent(batch), batch["scenario"].numpy()
    assert (scenario == -1).any()
    heads, expected = model.heads, np.zeros((12, T))
    for t, mixture in enumerate(mixture_names(LAYOUT.tasks)):
        h = mlp(found[mixture], [(k.numpy()[t], b.numpy()[t]) for k, b in heads.layers])
        every = h @ heads.logit_kernel.numpy()[t] + heads.logit_bias.numpy()[t]
        own = np.where(scenario < 0, 0, every[np.arange(12), 1 + np.maximum(scenario, 0)])
        expected[:, t] = every[:, 0] + own
    assert_close(model(batch), expected, terms=40)


@of_all
def test_sharded_tables_merge_and_towers_cut_out_as_an_export_needs(
    name: str, randomize: Randomize
) -> None:
    config, batch = config_of(name, shards=3), random_batch()
    model = made(name, randomize, shards=3)
    merged = merged_model(
        model,
        lambda shards, storage: build.upstream(LAYOUT, config, 5, shards=shards, storage=storage),
        batch,
    )
    assert merged is not model and merged.backbone.embeddings.shards == 1
    assert_close(merged(batch), model(batch), terms=40)
    found = model.represent(batch)
    for side, representation in (("user", "UR"), ("item", "IR")):
        tower = TowerModel(model.backbone, side)  # type: ignore[arg-type]
        assert_close(tower(batch), found[representation], terms=40)


@of_all
def test_the_seed_settles_every_weight(name: str) -> None:
    batch = random_batch()
    logits = [build.upstream(LAYOUT, config_of(name), s)(batch).numpy() for s in (1, 1, 2)]
    assert np.array_equal(logits[0], logits[1])
    assert not np.array_equal(logits[0], logits[2])


@of_all
@pytest.mark.parametrize("level", ["output", "mix_click"])
def test_a_warm_start_above_the_towers_is_refused_by_name(name: str, level: str) -> None:
    last = "embeddings" if name in SETS else "towers"
    with pytest.raises(UserError, match=level) as refused:
        read_method(_run(name), f"module/warm_start/{level}")
    assert last in str(refused.value)
    assert read_method(_run(name), f"module/warm_start/{last}").warm_start is not None
    with pytest.raises(UserError, match=f"'{name}' has no mix tower") as refused:
        read_method(_run(name), "module/isomorphic")
    assert f"use module/warm_start/{last}, or" in str(refused.value)  # what is not refused itself


def test_towers_of_several_sets_are_no_level_of_a_warm_start() -> None:
    """A downstream's towers read all sets together: they could not be copied to them."""
    with pytest.raises(UserError, match="towers") as refused:
        read_method(_run("single_task"), "module/warm_start/towers")
    assert "embeddings" in str(refused.value)


def _run(name: str) -> Any:
    return SimpleNamespace(
        config=config_of(name), spec=SimpleNamespace(features={}, task_names=list(LAYOUT.tasks))
    )


@pytest.mark.parametrize("name", ["shared_bottom", "omoe"])
def test_full_hands_a_vector_of_all_tasks_over_once(name: str, randomize: Randomize) -> None:
    config = config_of(name).upstream
    stored = config.layer_names(LAYOUT.tasks)
    assert config.model_class.handed_over(config, LAYOUT.tasks, stored) == ["mix_click"]
    assert config.model_class.handed_over(config, LAYOUT.tasks, ["towers"]) == ["towers"]
    found = made(name, randomize).represent(random_batch())
    np.testing.assert_array_equal(found["mix_click"], found["mix_buy"])


@pytest.mark.parametrize("name", sorted({*OPTIONS} - {"shared_bottom", "omoe"}))
def test_full_hands_the_vector_of_every_task_over(name: str, randomize: Randomize) -> None:
    config = config_of(name).upstream
    stored = config.layer_names(LAYOUT.tasks)
    assert config.model_class.handed_over(config, LAYOUT.tasks, stored) == stored[1:]
    found = made(name, randomize).represent(random_batch())
    assert not np.allclose(found["mix_click"], found["mix_buy"])


def test_fewer_tasks_than_a_model_needs_are_refused() -> None:
    for name in ("ple", "esmm", "aitm", "stem", "me_ple"):
        config = config_of(name)
        needs = f"{config.upstream.model_class.__name__} needs 2 tasks"
        with pytest.raises(UserError, match=needs):
            config.upstream.model_class.check_tasks(config.upstream, ["click"])
        with pytest.raises(UserError, match=needs):
            build.upstream(replace(LAYOUT, tasks=("click",)), config, 0)
    for name in ("shared_bottom", "omoe", "mmoe", "me_mmoe"):
        config = config_of(name)
        config.upstream.model_class.check_tasks(config.upstream, ["click"])
        model = build.upstream(replace(LAYOUT, tasks=("click",)), config, 0)
        assert model(random_batch()).shape == (12, 1)


def test_a_task_without_a_positive_is_refused() -> None:
    labels: Mapping[str, np.ndarray] = {
        "click": np.float32([0, 1, np.nan]),
        "buy": np.float32([0, np.nan, 0]),
    }
    config = config_of("ple").upstream
    with pytest.raises(UserError, match="'buy' has no positive") as refused:
        config.model_class.check_labels(config, labels)
    assert "3 training rows" in str(refused.value)
    config.model_class.check_labels(config, {"click": labels["click"]})


def test_every_task_of_shared_bottom_reads_one_network(randomize: Randomize) -> None:
    model, batch = made("shared_bottom", randomize), random_batch()
    found = model.represent(batch)
    expected = mlp(found["towers"], expert_layers(model.experts, 0))
    assert_close(found["mix_buy"], expected, terms=40)


@pytest.mark.parametrize("name", ["omoe", "mmoe"])
def test_gates_with_hidden_layers_mix_the_experts(name: str, randomize: Randomize) -> None:
    model, batch = made(name, randomize), random_batch()
    found, bank = model.represent(batch), model.experts
    x = found["towers"].numpy()
    outputs = np.stack([mlp(x, expert_layers(bank, e)) for e in range(3)], axis=1)  # (B, E, h)
    gates = bank.gates
    for t, mixture in enumerate(mixture_names(LAYOUT.tasks)):
        g = t if name == "mmoe" else 0
        (kernel, bias), *deeper = gates.hidden
        own = slice(4 * g, 4 * (g + 1))
        hidden = [(kernel.numpy()[:, own], bias.numpy()[own])]
        hidden += [(k.numpy()[g], b.numpy()[g, 0]) for k, b in deeper]
        scores = mlp(x, hidden) @ gates.kernel.numpy()[g]
        if name == "mmoe":
            scores += gates.bias.numpy()[g, 0]
        expected = np.einsum("be,beh->bh", softmax(scores), outputs)
        assert_close(found[mixture], expected, terms=60)


def test_options_of_gates_that_are_not_used_are_in_no_document() -> None:
    before = {"experts": 4, "expert_units": [256, 128], "task_units": [64]}
    assert UpstreamConfig(model="mmoe").model_dump(mode="json")["mmoe"] == before
    document = config_of("mmoe").upstream.model_dump(mode="json")["mmoe"]
    assert document["gate_units"] == [4, 3] and document["gate_bias"] is True


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("units", [[], [3]])
@pytest.mark.parametrize("biased", [False, True])
def test_ple_mixes_own_and_shared_experts_level_by_level(
    levels: int, units: list[int], biased: bool, randomize: Randomize
) -> None:
    model = made("ple", randomize, levels=levels, gate_units=units, gate_bias=biased)
    found = model.represent(random_batch())
    layer = model.experts
    reads = [0, 0, 1, 1, T]
    z = [found["towers"].numpy().astype(np.float64)] * (T + 1)
    for level in range(levels):
        bank = layer.first if level == 0 else layer.experts[level - 1]
        outputs = [mlp(z[k], expert_layers(bank, e)) for e, k in enumerate(reads)]
        above, column = [], 5 * 8
        for g in range(T + int(level < levels - 1)):
            seen = [e for e, k in enumerate(reads) if g == T or k in (g, T)]
            if level or units:
                gates = layer.gates[level - 1] if level else bank.gates
                hidden = [
                    (k.numpy()[:, 3 * g : 3 * g + 3], b.numpy()[3 * g : 3 * g + 3])
                    if len(k.shape) == 2
                    else (k.numpy()[g], b.numpy()[g, 0])
                    for k, b in gates.hidden
                ]
                scores = mlp(z[g], hidden) if hidden else z[g]
                scores = scores @ gates.kernel.numpy()[g][:, : len(seen)]
                if biased:
                    scores += gates.bias.numpy()[g][:, : len(seen)]
            else:
                scores = z[g] @ bank.kernel.numpy()[:, column : column + len(seen)]
                if biased:
                    scores += bank.gate_bias.numpy()[column - 5 * 8 :][: len(seen)]
                column += len(seen)
            weights = softmax(scores)
            above.append(sum(weights[:, k, None] * outputs[e] for k, e in enumerate(seen)))
        z = above
    for t, mixture in enumerate(mixture_names(LAYOUT.tasks)):
        assert_close(found[mixture], z[t], terms=100 * levels)


@pytest.mark.parametrize("levels", [1, 2])
def test_a_tasks_loss_reaches_other_tasks_experts_through_shared_gates_alone(
    levels: int, randomize: Randomize
) -> None:
    model = made("ple", randomize, levels=levels)
    first = model.experts.first
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model(random_batch())[:, 0])
    kernel, deeper = tape.gradient(total, [first.kernel, first.deeper[0][0]])
    of_first = [kernel[:, 8 * e : 8 * (e + 1)] for e in range(5)]
    for gradients in (of_first, list(deeper)):
        assert all(np.any(gradients[e]) for e in (0, 1, 4))
        assert all(np.any(gradients[e]) == (levels > 1) for e in (2, 3))


def test_single_tasks_have_the_gradients_of_tasks_trained_alone(randomize: Randomize) -> None:
    """From the same weights, the part of each set and task is what a model of the task has."""
    both, batch = made("single_task", randomize), random_batch()
    with tf.GradientTape() as tape:
        total = both.loss_terms(batch)["tasks"]
    names = [v.name for v in both.trainable_variables]
    gradients = dict(zip(names, tape.gradient(total, both.trainable_variables), strict=True))
    losses = []
    for t, task in enumerate(LAYOUT.tasks):
        alone = replace(LAYOUT, tasks=(task,))
        model = build.upstream(alone, config_of("single_task", sets=1), 0)
        _copy_task(both, model, t)
        single = {**batch, "labels": batch["labels"][:, t : t + 1]}
        with tf.GradientTape() as tape:
            loss = model.loss_terms(single)["tasks"]
        losses.append(loss)
        mine = dict(
            zip(
                [v.name for v in model.trainable_variables],
                tape.gradient(loss, model.trainable_variables),
                strict=True,
            )
        )
        for name, found in _parts(gradients, t).items():
            assert_close(found, tf.convert_to_tensor(mine[name]), terms=200, what=name)
    assert_close(total, tf.add_n(losses), terms=40, magnitude=float(total))


def test_no_gradient_of_a_single_task_reaches_another(randomize: Randomize) -> None:
    model, batch = made("single_task", randomize), random_batch()
    names = [v.name for v in model.trainable_variables]
    for t in range(T):
        alone = batch["labels"].numpy()
        alone[:, 1 - t] = np.nan
        with tf.GradientTape() as tape:
            loss = model.loss_terms({**batch, "labels": tf.constant(alone)})["tasks"]
        gradients = tape.gradient(loss, model.trainable_variables)
        of_variables = dict(zip(names, gradients, strict=True))
        for name, found in _parts(of_variables, 1 - t).items():
            assert not np.any(found), name  # exactly
        assert all(np.any(found) for found in _parts(of_variables, t).values())


def _parts(values: Mapping[str, Any], task: int) -> dict[str, Any]:
    """What a model of one task has in place of variables, or their gradients, of two tasks."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        dense = tf.convert_to_tensor(value).numpy()
        head, _, rest = name.partition("_tower/")
        if "embeddings" in name:
            width = dense.shape[1] // T
            found[name] = dense[:, task * width : (task + 1) * width]
        elif rest:  # a tower of plain layers: user_tower/user_tower_1/kernel
            kind, _, k = rest.split(":")[0].rpartition("_")
            side = head.rpartition("/")[2]
            own = dense[task] if kind == "kernel" else dense[task, 0]
            found[f"{head}_tower/{side}_tower_{k}/{kind}:0"] = own
        elif name.endswith("experts/kernel:0"):
            found[name] = dense[task]
        elif name.endswith("experts/bias:0"):
            found[name] = dense[task, 0]
        else:
            found[name] = dense[task : task + 1]
    return found


def _copy_task(both: MixtureModel, alone: MixtureModel, task: int) -> None:
    values = _parts({v.name: v for v in both.trainable_variables}, task)
    variables = {v.name: v for v in alone.trainable_variables}
    assert values.keys() == variables.keys()
    for name, value in values.items():
        variables[name].assign(value)


@pytest.mark.parametrize("name", SETS)
def test_another_number_of_sets_is_refused(name: str) -> None:
    config = config_of(name, sets=SETS[name] + 1)
    with pytest.raises(UserError, match=f"set upstream.embeddings.sets={SETS[name]}"):
        config.upstream.model_class.check_tasks(config.upstream, LAYOUT.tasks)
    with pytest.raises(UserError, match=f"set upstream.embeddings.sets={SETS[name]}"):
        build.upstream(LAYOUT, config, 0)
