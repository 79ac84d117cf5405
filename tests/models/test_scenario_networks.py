"""Upstreams whose layers compute with each row's scenario: formulas, laws, state and refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.merging import merged_model
from lfm4ads_tf.export.tower_model import TowerModel
from lfm4ads_tf.interactions.gate_unit import GateUnit
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.pepnet import PEPNet, PEPNetConfig
from lfm4ads_tf.models.registry import UPSTREAMS
from lfm4ads_tf.models.scenario_network import ScenarioNetworkModel
from lfm4ads_tf.models.star import STAR
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.optim.model_optimizers import ModelOptimizers
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.optim.step import step_of, training_step
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.named_method import read_method
from lfm4ads_tf.training.checkpoints import TrainingCheckpoint, read_weights, write_weights
from lfm4ads_tf.training.config import OptimizerConfig
from tests.interactions.test_gated_towers import gate_of
from tests.interactions.test_partitioned_norm import moments, normed
from tests.interactions.test_star_network import of_scenario
from tests.rounding import assert_close
from tests.small_models import LAYOUT, NETWORK, random_batch
from tests.terms import Terms

pytestmark = pytest.mark.processor

OPTIONS: dict[str, dict[str, Any]] = {
    "star": {"units": [6, 5], "auxiliary_units": [8], "scenario_dim": 3, "momentum": 0.9},
    "pepnet": {
        "priors": ["user", "item", "tags"],
        "units": [6, 5],
        "gate_units": 4,
        "scenario_dim": 3,
    },
}
LAYERS = {
    "star": ["norm", "star_1", "star_2"],
    "pepnet": ["epnet", *(f"ppnet_{k}_{task}" for k in (1, 2) for task in LAYOUT.tasks)],
}
of_all = pytest.mark.parametrize("name", OPTIONS)
S, T = len(LAYOUT.scenarios), len(LAYOUT.tasks)
Randomize = Callable[..., None]
NORM = ("moving_rows", "moving_mean", "moving_variance")


def config_of(name: str, shards: int = 1, **options: Any) -> RunConfig:
    upstream = {
        "model": name,
        name: {**OPTIONS[name], **options},
        "network": NETWORK,
        "embeddings": EmbeddingsConfig(dim=4, init_scale=0.5, shards=shards),
    }
    return RunConfig(upstream=UpstreamConfig(**upstream))


def made(name: str, randomize: Randomize, **options: Any) -> Any:
    """The model of a name with random weights and moving statistics."""
    model = build.upstream(LAYOUT, config_of(name, **options), 0)
    assert isinstance(model, ScenarioNetworkModel)
    randomize(model)
    if isinstance(model, STAR):
        rng = np.random.default_rng(8)
        model.norm.moving_mean.assign(rng.normal(size=(S + 1, 10)))
        model.norm.moving_variance.assign(rng.uniform(0.5, 2, (S + 1, 10)))
        model.norm.moving_rows.assign([[9.0], [1.0], [5.0], [15.0]])
    return model


def mlp(read: Terms, layers: Any) -> Terms:
    """relu layers and a linear one, of kernel and bias each."""
    for k, layer in enumerate(layers, start=1):
        read = read.affine(*(v.numpy() for v in layer.weights))
        read = read.relu() if k < len(layers) else read
    return read


@of_all
def test_the_configuration_picks_the_model_and_its_layers(name: str, randomize: Randomize) -> None:
    model, batch, config = made(name, randomize), random_batch(), config_of(name).upstream
    assert UPSTREAMS.name_of(type(model)) == name
    found = model.represent(batch)
    assert list(found) == ["UR", "IR", *model.layer_names]
    assert model.layer_names == ["towers", *LAYERS[name]] == config.layer_names(LAYOUT.tasks)
    assert [found[r].shape[1] for r in ("UR", "IR", "towers", LAYERS[name][0])] == [4, 3, 10, 10]
    assert model.configuration().options == config.options
    stored = config.layer_names(LAYOUT.tasks)
    last = LAYERS[name][-(1 if name == "star" else T) :]
    assert config.model_class.handed_over(config, LAYOUT.tasks, stored) == last
    assert config.model_class.handed_over(config, LAYOUT.tasks, stored[:2]) == stored[1:2]


@pytest.mark.parametrize("training", [False, True])
def test_star_is_its_formula(training: bool, randomize: Randomize) -> None:
    model, batch = made("star", randomize), random_batch()
    found, scenario = model.represent(batch), batch["scenario"].numpy()
    x = found["towers"].numpy()
    assert [int((scenario == s).sum()) for s in range(-1, S)] == [4, 1, 2, 5]
    if training:  # scenario 0 has one row
        stored = [moments(x if s < 1 else x[scenario == s])[1:] for s in (0, 1, 2, -1)]
    else:  # scenario 1 had one row so far
        moving = model.norm.moving_mean.numpy(), model.norm.moving_variance.numpy()
        stored = [[each[s] for each in moving] for s in (0, S, 2, S)]
    z = normed(model.norm, x, scenario, lambda s: stored[s])
    table = np.concatenate([model.scenario.table.numpy(), np.zeros((1, 3))])
    beside = mlp(Terms.joined([Terms.of(table[scenario]), Terms.of(x)]), model.auxiliary.layers)
    logits = model(batch, training=training).numpy()
    for s in range(-1, S):
        mine = scenario == s
        of = Terms(z.value[mine], z.size[mine])
        layers = of_scenario(model.heads, of, s)
        (layers[-1] + Terms(beside.value[mine], beside.size[mine])).holds(logits[mine], f"{s}")
        for layer, name in zip([of, *layers[:-1]], LAYERS["star"], strict=True):
            if not training:
                layer.holds(found[name].numpy()[mine], f"{name} of {s}")


def test_pepnet_is_its_formula(randomize: Randomize) -> None:
    model, batch = made("pepnet", randomize), random_batch()
    found, scenario = model.represent(batch), batch["scenario"].numpy()
    assert (scenario == -1).any()
    x, table = Terms.of(found["towers"]), model.scenario.table.numpy()
    assert table.shape == (S + 1, 3)
    gated = x * gate_of(model.gate, Terms.joined([Terms.of(table[scenario]), x]))
    gated.holds(found["epnet"])
    groups = model.backbone.towers(batch).fields
    fields = {n: Terms.of(g.named(n)) for g in groups for n in g.names}
    read = Terms.joined([*(fields[n] for n in OPTIONS["pepnet"]["priors"]), gated])
    hidden, logits = [gated] * T, []
    for k, (variables, gate) in enumerate(zip(model.heads.layers, model.heads.gates, strict=True)):
        factors, (kernel, bias) = gate_of(gate, read), (v.numpy() for v in variables)
        for t, task in enumerate(LAYOUT.tasks):
            width = model.heads.units[k]
            own = slice(t * width, (t + 1) * width)
            w, b = (kernel[:, own], bias[own]) if k == 0 else (kernel[t], bias[t, 0])
            part = Terms(factors.value[:, own], factors.size[:, own])
            before = hidden[t].affine(w, b) * part
            before.holds(found[f"ppnet_{k + 1}_{task}"], f"layer {k + 1} of {task}")
            hidden[t] = hidden[t].affine(w, b).relu() * part
    for t in range(T):
        kernel, bias = model.heads.logit_kernel.numpy(), model.heads.logit_bias.numpy()
        logits.append(hidden[t].affine(kernel[t], bias[t, 0]))
    Terms.joined(logits).holds(model(batch))
    Terms.joined(logits).holds(model(batch, training=True))


def test_what_pepnets_gates_read_of_x_gets_no_gradient(
    randomize: Randomize, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient of x is bit by bit that with the gates as constants.

    Of the fields' embeddings the gates' part is the priors' alone.
    """
    model, batch = made("pepnet", randomize), random_batch()
    towers = model.backbone.towers(batch)
    stream = model.represent(batch)["towers"]
    fields = [group.values for group in towers.fields]

    def gradients() -> Any:
        with tf.GradientTape() as tape:
            tape.watch([stream, *fields])
            logits = model.interact(batch, towers, stream, True)[1]
            loss = tf.reduce_sum(tf.square(logits))
        weights = [model.gate.hidden.kernel, model.heads.gates[1].scores.kernel]
        return tape.gradient(loss, [stream, *fields, *weights])

    of_x, *rest = gradients()
    of_fields, of_gates = rest[: len(fields)], rest[len(fields) :]
    assert all(np.any(each) for each in (of_x, *of_gates))
    for group, gradient in zip(towers.fields, of_fields, strict=True):
        read = [name in OPTIONS["pepnet"]["priors"] for name in group.names]
        reached = [False] * len(read) if gradient is None else np.any(gradient, axis=(0, 2))
        assert list(reached) == read
    call, values = GateUnit.call, []

    def kept(self: GateUnit, read: tf.Tensor) -> tf.Tensor:
        values.append(call(self, read))
        return values[-1]

    monkeypatch.setattr(GateUnit, "call", kept)
    gradients()
    constants = iter([tf.constant(value.numpy()) for value in values])
    monkeypatch.setattr(GateUnit, "call", lambda self, read: next(constants))
    frozen, *others = gradients()
    assert np.array_equal(of_x, frozen) and all(each is None for each in others)


def test_star_gives_all_scenarios_of_equal_statistics_equal_logits_at_the_start() -> None:
    model = build.upstream(LAYOUT, config_of("star"), 0)
    assert isinstance(model, STAR)
    model.norm.moving_rows.assign(tf.fill([S + 1, 1], 7.0))
    model.norm.moving_mean.assign(tf.fill([S + 1, 10], 0.3))
    model.scenario.table.assign(tf.zeros_like(model.scenario.table))  # of the auxiliary network
    batch, found = random_batch(), []
    for s in range(-1, S):
        found.append(model({**batch, "scenario": tf.fill([12], tf.constant(s, tf.int64))}).numpy())
    for each in found[1:]:
        assert np.array_equal(each, found[0])


def test_a_scenarios_loss_reaches_no_other_ones_part_of_star(randomize: Randomize) -> None:
    model, batch = made("star", randomize), random_batch()
    own = [v for v in model.trainable_variables if v.shape[0] == S and "/bias" not in v.name]
    own = [v for v in own if "star_layers" in v.name or "norm" in v.name or "scenario" in v.name]
    assert len(own) == 2 + 3 + 1
    for s in range(S):
        chosen = batch["scenario"] == s
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.boolean_mask(tf.square(model(batch, training=True)), chosen))
        for gradient, variable in zip(tape.gradient(loss, own), own, strict=True):
            touched = [bool(np.any(each)) for each in gradient.numpy()]
            assert touched == [k == s for k in range(S)], variable.name


@of_all
def test_representations_of_a_side_see_that_side_alone(name: str, randomize: Randomize) -> None:
    model, batch = made(name, randomize), random_batch()
    other = random_batch(seed=5)
    owners = [f.owner for f in LAYOUT.single]
    mixed = {**batch, "scenario": other["scenario"]}
    for side, bag, numbers, representation in (
        ("user", "history", slice(0, 1), "UR"),
        ("item", "tags", slice(1, 3), "IR"),
    ):
        keep = tf.constant([owner == side for owner in owners])
        dense = other["dense"].numpy().copy()
        dense[:, numbers] = batch["dense"].numpy()[:, numbers]
        changed = {
            **mixed,
            "ids": tf.where(keep, batch["ids"], other["ids"]),
            "bags": {**other["bags"], bag: batch["bags"][bag]},
            "dense": tf.constant(dense),
        }
        found, expected = model.represent(changed), model.represent(batch)
        assert np.array_equal(found[representation], expected[representation])
        assert not np.array_equal(found["towers"], expected["towers"])


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
    assert_close(merged(batch), model(batch), terms=60)
    found = model.represent(batch)
    for side, representation in (("user", "UR"), ("item", "IR")):
        tower = TowerModel(model.backbone, side)  # type: ignore[arg-type]
        assert_close(tower(batch), found[representation], terms=40)


def test_moving_statistics_are_a_part_of_the_state(tmp_path: Path) -> None:
    """Compiled steps move them, checkpoints and weights hold them, the rest leaves them alone."""

    def trained(steps: int, folder: Path, restore: bool = False, traced: bool = False) -> STAR:
        model = build.upstream(LAYOUT, config_of("star"), 0)
        assert isinstance(model, STAR)
        objective = Objective(model.loss_terms, model.optimizers(OptimizerConfig()))
        optimizers = ModelOptimizers(objective, model, model.all_embeddings)
        checkpoint = TrainingCheckpoint(folder, model, optimizers)
        first = checkpoint.restore().step if restore else 0
        spec = tf.nest.map_structure(tf.type_spec_from_value, random_batch())
        step: Any = step_of(objective, optimizers)
        step = training_step(objective, optimizers, spec) if traced else step
        for k in range(first, steps):
            step(random_batch(seed=k))
        checkpoint.save(0, 0, steps)
        return model

    whole, once = trained(2, tmp_path / "whole"), trained(1, tmp_path / "killed")
    moved = [getattr(whole.norm, name).numpy() for name in NORM]
    traced = trained(1, tmp_path / "traced", traced=True)
    for name, value in zip(NORM, moved, strict=True):
        found, expected = (getattr(each.norm, name) for each in (traced, once))
        assert_close(found, expected, terms=40)
        assert not np.array_equal(value, expected)
    again = trained(2, tmp_path / "killed", restore=True)
    for one, other in zip(whole.variables, again.variables, strict=True):
        assert np.array_equal(one, other), one.name
    whole(random_batch())
    whole.loss_terms(random_batch(), training=False)
    write_weights(whole, tmp_path / "weights")
    read_weights(once, tmp_path / "weights")
    for name, value in zip(NORM, moved, strict=True):
        assert np.array_equal(getattr(whole.norm, name), value), name
        assert np.array_equal(getattr(once.norm, name), value), name


@of_all
def test_a_warm_start_above_the_towers_is_refused_by_name(name: str) -> None:
    run: Any = SimpleNamespace(
        config=config_of(name), spec=SimpleNamespace(features={}, task_names=list(LAYOUT.tasks))
    )
    for level in ("output", LAYERS[name][-1]):
        with pytest.raises(UserError, match=level) as refused:
            read_method(run, f"module/warm_start/{level}")
        assert "towers" in str(refused.value)
    assert read_method(run, "module/warm_start/towers").warm_start is not None
    with pytest.raises(UserError, match=f"'{name}' has no mix tower"):
        read_method(run, "module/isomorphic")


@of_all
def test_what_a_model_cannot_be_built_for_is_refused(name: str) -> None:
    config = config_of(name)
    upstream, cls = config.upstream, config.upstream.model_class
    with pytest.raises(UserError, match=f"{cls.__name__} needs two scenarios") as refused:
        build.upstream(replace(LAYOUT, scenarios=("all",)), config, 0)
    assert "Received: scenarios: all" in str(refused.value)
    with pytest.raises(UserError, match="needs two scenarios"):
        cls.check_scenario_rows(upstream, {"home": 12})
    with pytest.raises(UserError, match=f"'{name}' needs a feature spec with scenarios"):
        cls.check_scenarios(upstream, given=False)
    cls.check_scenarios(upstream, given=True)
    alone = NetworkConfig(shared_head=False)
    with pytest.raises(UserError, match="no logits of a scenario's own"):
        cls.check(upstream.model_copy(update={"network": alone}), ads=False)
    with pytest.raises(UserError, match="no logits of a scenario's own"):
        cls(LAYOUT, alone)
    cls.check(upstream, ads=False)
    with pytest.raises(ValidationError, match="at least 1 item"):
        cls.Config(units=[])


def test_star_over_a_scenario_that_training_never_saw_is_refused() -> None:
    upstream = config_of("star").upstream
    STAR.check_scenario_rows(upstream, {"home": 12, "search": 1})
    with pytest.raises(UserError, match="no row of one in the log") as refused:
        STAR.check_scenario_rows(upstream, {"home": 12, "search": 1, "new": 0})
    assert "no training row of 'new'" in str(refused.value)
    PEPNet.check_scenario_rows(config_of("pepnet").upstream, {"home": 12, "search": 1, "new": 0})
    with pytest.raises(UserError, match="two scenarios or more"):
        PEPNet.check_scenario_rows(config_of("pepnet").upstream, {"home": 12, "new": 0})


def test_priors_that_are_no_embedded_features_are_refused() -> None:
    tables = EmbeddingsConfig(dim=4)
    with pytest.raises(UserError, match="'usr', which is no embedded.*Did you mean 'user'"):
        PEPNet(LAYOUT, NETWORK, tables, PEPNetConfig(priors=["usr"]))
    with pytest.raises(UserError, match="'age', which is no embedded feature"):
        PEPNet(LAYOUT, NETWORK, tables, PEPNetConfig(priors=["user", "age"]))
    with pytest.raises(UserError, match="PEPNet has no prior feature"):
        PEPNet(LAYOUT, NETWORK, tables)
