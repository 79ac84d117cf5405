"""What each scenario's rows reach in SDEM, and what unknown ones get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.models.sdem import SDEM
from lfm4ads_tf.models.stem import STEM
from lfm4ads_tf.models.stem_config import STEMConfig
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.named_method import read_method
from tests.models.test_mixture_models import mlp
from tests.models.test_stem import THREE, D, T, batch_of
from tests.rounding import assert_close
from tests.small_models import NETWORK

pytestmark = pytest.mark.processor

Randomize = Callable[..., None]


def by_scenario(randomize: Randomize, **options: Any) -> SDEM:
    """Scenarios t0, t1 and t2 in the place of tasks; the sets are left to the model."""
    sizes: dict[str, Any] = {"expert_units": [8, 5], "task_units": [4], "axis": "scenario"}
    tables = EmbeddingsConfig(dim=D, init_scale=0.5)
    model = SDEM(THREE, NETWORK, tables, STEMConfig(**{**sizes, **options}), seed=1)
    model(batch_of())
    randomize(model)
    return model


def rows_of(scenario: int, rows: int = 40) -> dict[str, Any]:
    batch = batch_of(rows)
    return {**batch, "scenario": tf.fill([rows], tf.constant(scenario, tf.int64))}


@pytest.mark.parametrize("scenario", range(3))
def test_a_scenarios_rows_reach_its_own_and_the_shared_part_alone(
    scenario: int, randomize: Randomize
) -> None:
    model = by_scenario(randomize)
    tables, batch = model.backbone.embeddings, rows_of(scenario)
    assert tables.sets == 4
    parts = tables.all_parts()
    with tf.GradientTape() as tape:
        loss = model.loss_terms(batch)["tasks"]
    bank, gates = model.experts.experts[0], model.experts.gates[0]
    found = tape.gradient(loss, [bank.kernel, gates.kernel, model.heads.logit_kernel, *parts])
    of_experts, of_gates, of_logits, *of_parts = found
    own = [k == scenario for k in range(3)]
    assert [bool(np.any(g)) for g in of_experts] == [*own, True, True]
    assert [bool(np.any(g)) for g in of_gates] == [*own, True]
    by_choice = np.reshape(of_logits, [4, T, -1])
    assert [bool(np.any(g)) for g in by_choice] == [True, *own]
    sets = np.zeros(4, bool)
    for gradient in of_parts:
        dense = tf.convert_to_tensor(gradient).numpy()
        sets |= np.abs(dense.reshape(len(dense), 4, -1)).max(axis=(0, 2)) > 0
    assert [bool(s) for s in sets] == [*own, True]


def test_an_unknown_scenario_has_the_shared_logit_alone(randomize: Randomize) -> None:
    model = by_scenario(randomize)
    unknown = model(rows_of(-1)).numpy()
    found = model.represent(rows_of(-1))
    assert list(found) == ["UR", "IR", "towers", "mix"] and model.layer_names == ["towers", "mix"]
    heads, logits = model.heads, []
    for t in range(T):
        hidden = mlp(found["mix"], [(k.numpy()[t], b.numpy()[t, 0]) for k, b in heads.layers])
        logits.append(hidden @ heads.logit_kernel.numpy()[t] + heads.logit_bias.numpy()[t])
    assert_close(unknown, np.concatenate(logits, axis=1), terms=40)
    known = model.represent(rows_of(1))
    every = model.mixtures(tf.stack(tf.split(known["towers"], 4, axis=1)))
    assert_close(known["mix"], every[:, 1], terms=40)
    shared = model.represent(rows_of(-1))["mix"]
    assert_close(shared, every[:, 3], terms=40)
    assert not np.allclose(known["mix"], shared)
    corrected = model(rows_of(1)).numpy() - unknown
    expected = []
    for t in range(T):
        g = 2 * T + t  # behind the shared towers and those of scenario 0
        hidden = mlp(known["mix"], [(k.numpy()[g], b.numpy()[g, 0]) for k, b in heads.layers])
        expected.append(hidden @ heads.logit_kernel.numpy()[g] + heads.logit_bias.numpy()[g])
    magnitude = np.abs(np.concatenate(expected, axis=1)) + 2 * np.abs(unknown)
    assert_close(corrected, np.concatenate(expected, axis=1), terms=60, magnitude=magnitude)


def test_scenarios_of_a_group_share_a_set_and_others_are_refused(randomize: Randomize) -> None:
    assert by_scenario(randomize, groups=[["t0", "t2"]]).backbone.embeddings.sets == 3
    options = STEMConfig(axis="scenario", groups=[["t0", "tab"]])
    with pytest.raises(UserError, match="unknown scenario 'tab'"):
        SDEM(THREE, NETWORK, EmbeddingsConfig(), options)
    with pytest.raises(UserError, match="or set it to 4"):
        SDEM(THREE, NETWORK, EmbeddingsConfig(sets=3), STEMConfig(axis="scenario"))
    one = replace(THREE, scenarios=("all",))
    with pytest.raises(UserError, match="two scenarios or more"):
        SDEM(one, NETWORK, EmbeddingsConfig(), STEMConfig(axis="scenario"))


def test_a_named_scenarios_mixture_is_that_of_every_row(randomize: Randomize) -> None:
    model, batch = by_scenario(randomize, mixtures_of=["t2", "t0"]), batch_of(40)
    found = model.represent(batch)
    assert list(found) == ["UR", "IR", *model.layer_names]
    assert model.layer_names == ["towers", "mix", "mix_t2", "mix_t0"]
    for name, s in (("t2", 2), ("t0", 0)):
        # the scenario's index chooses among the mixtures and is read by nothing else
        assert_close(found[f"mix_{name}"], model.represent(rows_of(s))["mix"], terms=40)
        mine = batch["scenario"].numpy() == s
        assert mine.any() and not mine.all()
        assert np.array_equal(found[f"mix_{name}"][mine], found["mix"][mine])
        assert not np.allclose(found[f"mix_{name}"][~mine], found["mix"][~mine])


def test_mixtures_of_what_is_no_scenario_are_refused() -> None:
    config = UpstreamConfig(model="stem", stem={"axis": "scenario", "mixtures_of": ["t2", "t3"]})
    assert config.layer_names(["click"]) == ["towers", "mix", "mix_t2", "mix_t3"]
    assert SDEM.handed_over(config, ["click"], ["mix", "mix_t3"]) == ["mix_t3"]
    tables = EmbeddingsConfig(dim=D)
    with pytest.raises(UserError, match="names 't3', a scenario of no training row. Did you mean"):
        SDEM(THREE, NETWORK, tables, config.options)
    with pytest.raises(UserError, match="names 't3', a scenario of no training row"):
        SDEM.check_scenario_rows(config, {"t0": 5, "t1": 6, "t2": 7, "t3": 0})
    twice = STEMConfig(axis="scenario", mixtures_of=["t1", "t1"])
    with pytest.raises(UserError, match="names the scenario 't1' more than once"):
        SDEM(THREE, NETWORK, tables, twice)
    tasks = UpstreamConfig(model="stem", stem={"mixtures_of": ["t0"]})
    with pytest.raises(UserError, match="here the tasks have mixtures"):
        tasks.model_class.check_tasks(tasks, THREE.tasks)


def test_a_spec_without_scenarios_is_refused() -> None:
    config = UpstreamConfig(model="stem", stem={"axis": "scenario"})
    config.model_class.check_scenarios(config, given=True)
    with pytest.raises(UserError, match="needs a feature spec with scenarios"):
        config.model_class.check_scenarios(config, given=False)
    UpstreamConfig(model="stem").model_class.check_scenarios(config, given=False)


def test_the_axis_says_which_class_it_is() -> None:
    config = UpstreamConfig(model="stem", stem={"axis": "scenario"})
    assert (config.model_class, UpstreamConfig(model="stem").model_class) == (SDEM, STEM)
    model = SDEM(THREE, NETWORK, EmbeddingsConfig(dim=D, sets=4), config.options)
    assert (model.configuration().model, model.configuration().options) == ("stem", config.options)
    for build_class, other in ((STEM, config.options), (SDEM, STEMConfig())):
        with pytest.raises(UserError, match="as its axis"):
            build_class(THREE, NETWORK, EmbeddingsConfig(dim=D, sets=4), other)


def test_a_downstream_of_copied_tables_has_the_sets_of_the_scenarios() -> None:
    """The configuration says 1; what a warm start copies has as many as there are scenarios."""
    upstream = UpstreamConfig(
        model="stem", stem={"axis": "scenario"}, embeddings=EmbeddingsConfig(dim=D)
    )
    config = RunConfig(upstream=upstream)
    run: Any = SimpleNamespace(
        config=config,
        spec=SimpleNamespace(features={}, task_names=list(THREE.tasks), omit=[]),
    )
    method = read_method(run, "module/warm_start/embeddings")
    source = build.upstream(THREE, config, 0).backbone.embeddings
    target = build.downstream(THREE, config, method, {}, 0).backbone.embeddings
    assert (source.sets, target.sets) == (4, 4)
    assert [p.shape for p in source.all_parts()] == [p.shape for p in target.all_parts()]


def test_the_training_rows_of_the_scenarios_tell_whether_sets_fit() -> None:
    rows = {"t0": 5, "t1": 6, "t2": 7, "later": 0}
    given: dict[str, Any] = {"axis": "scenario"}
    SDEM.check_scenario_rows(UpstreamConfig(model="stem", stem=given), rows)
    config = UpstreamConfig(model="stem", stem=given, embeddings=EmbeddingsConfig(sets=3))
    with pytest.raises(UserError, match="or set it to 4"):
        SDEM.check_scenario_rows(config, rows)
