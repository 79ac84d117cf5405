"""Crocodile against its formulas, what its losses reach, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.spec_file import parse_spec
from lfm4ads_tf.losses.covariance import covariance_penalty
from lfm4ads_tf.models.crocodile import Crocodile, CrocodileConfig
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from tests.conftest import ADS_SPEC
from tests.models.test_mixture_models import expert_layers, mlp, softmax
from tests.rounding import assert_close
from tests.small_models import LAYOUT, NETWORK, random_batch

pytestmark = pytest.mark.processor

M, H, S, T = 3, 5, 3, 2
SIZES: dict[str, Any] = {"experts": M, "expert_units": [8, H], "task_units": [4], "prior_dim": 6}
Randomize = Callable[..., None]


def batch_of(rows: int = 24) -> dict[str, Any]:
    rng = np.random.default_rng(4)
    scenario = rng.integers(-1, S, rows)
    scenario[:3] = [-1, 0, 2]
    labels = rng.integers(0, 2, (rows, T)).astype(np.float32)
    labels[5, 0] = np.nan
    own = {"labels": tf.constant(labels), "scenario": tf.constant(scenario, tf.int64)}
    return {**random_batch(rows), **own}


def made(randomize: Randomize, **options: Any) -> Crocodile:
    tables = EmbeddingsConfig(dim=4, init_scale=0.5, sets=M)
    given = CrocodileConfig(**{"priors": ["user", "item"], **SIZES, **options})
    model = Crocodile(LAYOUT, NETWORK, tables, given, seed=1)
    model(batch_of())
    randomize(model)
    return model


def prior_of(model: Crocodile, batch: dict[str, Any]) -> np.ndarray:
    """r: rows of the prior tables side by side, then the scenario's; -1 is a table's last row."""
    parts = []
    for name in model.options.priors or []:
        place = [f.name for f in LAYOUT.single].index(name)
        table, ids = model.priors.read_table(name), batch["ids"].numpy()[:, place]
        parts.append(table[ids, 0])
    if model.scenario is not None:
        parts.append(model.scenario.table.numpy()[batch["scenario"].numpy()])  # -1 is the last
    return np.concatenate(parts, axis=1).astype(np.float64)


@pytest.mark.parametrize("scenario_prior", [True, False])
@pytest.mark.parametrize("gate_per", ["scenario", "task"])
def test_the_logits_are_those_of_the_formulas(
    gate_per: str, scenario_prior: bool, randomize: Randomize
) -> None:
    model = made(randomize, gate_per=gate_per, scenario_prior=scenario_prior)
    batch = batch_of()
    found = model.represent(batch)
    x = [v.astype(np.float64) for v in np.split(found["towers"].numpy(), M, axis=1)]
    outputs = np.stack([mlp(x[p], expert_layers(model.experts, p)) for p in range(M)], axis=1)
    scores = prior_of(model, batch) @ model.gates.kernel.numpy()
    gates = S + 1 if gate_per == "scenario" else T
    by_gate = scores.reshape(-1, gates, M, H)
    weights = np.moveaxis(softmax(np.moveaxis(by_gate, 2, -1)), -1, 2)
    mixed = np.sum(weights * outputs[:, None], axis=2)  # (B, G, h)
    scenario, heads = batch["scenario"].numpy(), model.heads
    rows = np.arange(len(scenario))
    own = mixed[rows, scenario % gates]  # of scenarios, the last gate is that of -1
    if gate_per == "scenario":
        assert_close(found["mix"], own, terms=60)
    else:
        for t, task in enumerate(LAYOUT.tasks):
            assert_close(found[f"mix_{task}"], mixed[:, t], terms=60)
    expected = np.zeros((len(rows), T))
    for t in range(T):
        shared, mine = (mixed[:, -1], own) if gate_per == "scenario" else (mixed[:, t], mixed[:, t])
        for choice, read in [(0, shared), *((1 + s, mine) for s in range(S))]:
            g = choice * T + t
            hidden = mlp(read, [(k.numpy()[g], b.numpy()[g, 0]) for k, b in heads.layers])
            logit = hidden @ heads.logit_kernel.numpy()[g] + heads.logit_bias.numpy()[g]
            counts = (choice == 0) | (scenario == choice - 1)
            expected[:, t] += np.where(counts, logit[:, 0], 0)
    assert_close(model(batch), expected, terms=100)


@pytest.mark.parametrize("scenario_prior", [True, False])
def test_a_named_scenarios_mixture_is_what_the_model_says_of_every_row_in_it(
    scenario_prior: bool, randomize: Randomize
) -> None:
    model = made(randomize, mixtures_of=["t2", "t0"], scenario_prior=scenario_prior)
    batch = batch_of()
    found = model.represent(batch)
    assert list(found) == ["UR", "IR", *model.layer_names]
    assert model.layer_names == ["towers", "mix", "mix_t2", "mix_t0"]
    x = [v.astype(np.float64) for v in np.split(found["towers"].numpy(), M, axis=1)]
    outputs = np.stack([mlp(x[p], expert_layers(model.experts, p)) for p in range(M)], axis=1)
    for name, s in (("t2", 2), ("t0", 0)):
        # the embedding of s in place of the row's own, and the gate of s
        there = {**batch, "scenario": tf.fill([24], tf.constant(s, tf.int64))}
        kernel = model.gates.kernel.numpy()[:, s * M * H : (s + 1) * M * H]
        scores = (prior_of(model, there) @ kernel).reshape(-1, M, H)
        weights = np.moveaxis(softmax(np.moveaxis(scores, 1, -1)), -1, 1)
        assert_close(found[f"mix_{name}"], np.sum(weights * outputs, axis=1), terms=60)
        mine = batch["scenario"].numpy() == s
        assert mine.any() and not mine.all()
        assert_close(found[f"mix_{name}"][mine], found["mix"][mine], terms=120)
        assert not np.allclose(found[f"mix_{name}"][~mine], found["mix"][~mine])
        assert_close(found[f"mix_{name}"], model.represent(there)["mix"], terms=120)


def test_named_mixtures_are_handed_over_and_known_by_the_configuration() -> None:
    given = {"mixtures_of": ["t2", "t0"]}
    config = UpstreamConfig(model="crocodile", crocodile=given)
    assert config.layer_names(["click"]) == ["towers", "mix", "mix_t2", "mix_t0"]
    for stored, handed in (
        (["towers", "mix", "mix_t0", "mix_t2"], ["mix_t2", "mix_t0"]),
        (["towers", "mix", "mix_t0"], ["mix_t0"]),
        (["towers", "mix"], ["mix"]),
        (["towers"], ["towers"]),
    ):
        assert Crocodile.handed_over(config, ["click"], stored) == handed
    rows = {"t0": 5, "t1": 7, "t2": 0}
    with pytest.raises(UserError, match=r"names 't2', a scenario of no training row.* Did you"):
        Crocodile.check_scenario_rows(config, rows)
    Crocodile.check_scenario_rows(config, {**rows, "t2": 1})
    with pytest.raises(
        UserError, match=r"needs two scenarios or more\.\nReceived: scenarios: t0\n"
    ):
        Crocodile.check_scenario_rows(config, {"t0": 5, "t1": 0})


def test_the_loss_is_a_mean_for_each_scenario_and_the_penalty(randomize: Randomize) -> None:
    model, batch = made(randomize, least_rows=6, alpha=0.3), batch_of()
    terms = model.loss_terms(batch)
    labels, z = batch["labels"].numpy().astype(np.float64), model(batch).numpy().astype(np.float64)
    known = np.isfinite(labels)
    losses = np.where(known, np.logaddexp(0, z) - np.where(known, labels, 0) * z, 0).sum(axis=1)
    scenario = batch["scenario"].numpy()
    counts = [int((scenario == s).sum()) for s in range(-1, S)]
    assert min(counts) < 6 < max(counts)
    expected = sum(losses[scenario == s].sum() / max(n, 6) for s, n in enumerate(counts, start=-1))
    assert_close(terms["tasks"], expected, terms=100, magnitude=expected)
    outputs = model.experts(model.backbone.stream(batch))
    penalty = 0.3 * float(covariance_penalty(tf.cast(outputs, tf.float64)))
    assert_close(terms["covariance"], penalty, terms=100, magnitude=penalty)
    twice = {**batch, "weights": 2 * tf.ones([24])}
    assert_close(model.loss_terms(twice)["tasks"], 2 * expected, terms=100, magnitude=2 * expected)
    assert list(made(randomize, alpha=0).loss_terms(batch)) == ["tasks"]


def test_every_scenario_trains_all_sets_and_experts_and_its_own_tower(
    randomize: Randomize,
) -> None:
    model = made(randomize, alpha=0)
    tables, batch = model.backbone.embeddings, batch_of()
    batch = {**batch, "scenario": tf.fill([24], tf.constant(1, tf.int64))}
    parts = tables.all_parts()
    with tf.GradientTape() as tape:
        loss = model.loss_terms(batch)["tasks"]
    kernels = [model.experts.kernel, model.heads.logit_kernel, model.gates.kernel]
    of_experts, of_logits, of_gates, *of_parts = tape.gradient(loss, [*kernels, *parts])
    assert all(np.any(g) for g in of_experts)
    by_choice = np.reshape(of_logits, [S + 1, T, -1])
    assert [bool(np.any(g)) for g in by_choice] == [True, False, True, False]
    by_gate = np.reshape(of_gates, [-1, S + 1, M * H])
    assert [bool(np.any(by_gate[:, g])) for g in range(S + 1)] == [False, True, False, True]
    sets = np.zeros(M, bool)
    for gradient in of_parts:
        dense = tf.convert_to_tensor(gradient).numpy()
        sets |= np.abs(dense.reshape(len(dense), M, -1)).max(axis=(0, 2)) > 0
    assert sets.all()


def test_with_one_set_it_is_the_model_whose_sets_are_equal_copies(randomize: Randomize) -> None:
    model = made(randomize, mixtures_of=["t2"])
    options = model.options.model_copy(update={"one_set": True})
    one = Crocodile(LAYOUT, NETWORK, EmbeddingsConfig(dim=4, init_scale=0.5), options, seed=1)
    batch = batch_of()
    one(batch)
    randomize(one, seed=1)
    assert one.experts.experts == M and one.backbone.embeddings.sets == 1
    for source, target in zip(one.variables, model.variables, strict=True):
        values = source.numpy()
        if target.shape == source.shape:  # all that is above the experts' first layer, and priors
            pass
        elif "table_" in target.name:
            values = np.tile(values, [1, M])  # set by set
        elif "experts" in target.name:  # expert by expert, in one set's columns
            values = np.moveaxis(values.reshape(-1, M, values.shape[-1] // M), 1, 0)
        else:
            values = np.stack([np.atleast_2d(values)] * M)
        target.assign(values)
    found, expected = one.represent(batch), model.represent(batch)
    for name, values in expected.items():
        copies = M if name in ("UR", "IR", "towers") else 1
        assert_close(np.tile(found[name], [1, copies]), values, terms=100)
    assert_close(one(batch), model(batch), terms=200)
    terms, of_copies = one.loss_terms(batch), model.loss_terms(batch)
    assert terms["covariance"] > 0
    for name, value in of_copies.items():
        assert_close(terms[name], value, terms=200, magnitude=value)
    config = UpstreamConfig(model="crocodile", crocodile={"one_set": True})
    assert Crocodile.default_sets(config, ["click"]) == 1
    with pytest.raises(UserError, match="set upstream.embeddings.sets=1"):
        Crocodile(LAYOUT, NETWORK, EmbeddingsConfig(sets=M), options)


def test_what_the_experts_have_in_common_is_observed(randomize: Randomize) -> None:
    model, batch = made(randomize, covariance_rows=8), batch_of()
    outputs = model.experts(model.backbone.stream(batch)).numpy().astype(np.float64)
    found = model.observed(batch)
    assert {v.shape for v in found.values()} == {(24,)}
    correlations = []
    flat = outputs.reshape(24, -1)
    centred = flat - flat.mean(axis=0)
    deviation = flat.std(axis=0)
    for p in range(M):
        for q in range(p):
            for a in range(H):
                for b in range(H):
                    i, j = p * H + a, q * H + b
                    if deviation[i] and deviation[j]:
                        both = np.mean(centred[:, i] * centred[:, j])
                        correlations.append(abs(both / deviation[i] / deviation[j]))
                    else:
                        correlations.append(0.0)
    expected = np.mean(correlations)
    assert_close(found["experts/correlation"][0], expected, terms=100, magnitude=expected)
    assert_close(found["experts/deviation"][0], deviation.mean(), terms=100, magnitude=flat.max())
    sampled = covariance_penalty(tf.constant(outputs), rows=8)
    assert_close(found["experts/covariance_sampled"][0], sampled, terms=100, magnitude=sampled)


def test_the_spec_settles_the_priors() -> None:
    spec = parse_spec(ADS_SPEC)
    config = Crocodile.settled(UpstreamConfig(model="crocodile"), spec)
    assert config.options.priors == [
        name for name in spec.features if name in (spec.keys.user, spec.keys.item)
    ]
    wrong = UpstreamConfig(model="crocodile", crocodile={"priors": ["nothing"]})
    with pytest.raises(UserError, match=r"upstream.crocodile.priors names 'nothing', which is no"):
        Crocodile.settled(wrong, spec)
    none = UpstreamConfig(model="crocodile", crocodile={"priors": [], "scenario_prior": False})
    with pytest.raises(UserError, match="gates read no prior"):
        Crocodile.settled(none, spec)


def test_what_cannot_be_built_is_refused() -> None:
    tables = EmbeddingsConfig(sets=M)
    options = CrocodileConfig(**SIZES)
    with pytest.raises(UserError, match="two scenarios or more"):
        Crocodile(replace(LAYOUT, scenarios=("all",)), NETWORK, tables, options)
    with pytest.raises(UserError, match="set upstream.embeddings.sets=3"):
        Crocodile(LAYOUT, NETWORK, EmbeddingsConfig(sets=2), options)
    with pytest.raises(UserError, match="'age', is no embedded feature"):
        Crocodile(LAYOUT, NETWORK, tables, options.model_copy(update={"priors": ["age"]}))
    with pytest.raises(UserError, match="gates read no prior"):
        Crocodile(LAYOUT, NETWORK, tables, CrocodileConfig(experts=M, scenario_prior=False))
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        CrocodileConfig(alpha=-1)
    for mixtures, more, message in (
        (["t3"], {}, "names 't3', a scenario of no training row. Did you mean"),
        (["t1", "t1"], {}, "names the scenario 't1' more than once"),
        (["a/b"], {}, "A scenario's name is part of the name of its mixture"),
        (["t1"], {"gate_per": "task"}, "here the tasks have mixtures"),
    ):
        scenarios = ("t0", "t1", "a/b")
        update = {"mixtures_of": mixtures, **more}
        with pytest.raises(UserError, match=message):
            Crocodile(
                replace(LAYOUT, scenarios=scenarios),
                NETWORK,
                tables,
                options.model_copy(update=update),
            )
    config = UpstreamConfig(model="crocodile")
    with pytest.raises(UserError, match="needs a feature spec with scenarios"):
        Crocodile.check_scenarios(config, given=False)
    with pytest.raises(UserError, match="two scenarios or more"):
        Crocodile.check_scenario_rows(config, {"feed": 10})
