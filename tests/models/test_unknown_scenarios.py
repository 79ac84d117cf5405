"""Rows of unknown scenarios in models without a shared logit: the mean by the training rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.batch import BRANCHES
from lfm4ads_tf.interactions.scenario_choice import ScenarioChoice
from lfm4ads_tf.models.aitm import AITM, AITMConfig
from lfm4ads_tf.models.crocodile import Crocodile, CrocodileConfig
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.models.model_parts import ModelParts
from lfm4ads_tf.models.sdem import SDEM
from lfm4ads_tf.models.stem_al import STEMAL, STEMALConfig
from lfm4ads_tf.models.stem_config import STEMConfig
from lfm4ads_tf.optim.model_optimizers import ModelOptimizers
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.training import checkpoints
from lfm4ads_tf.training.checkpoints import TrainingCheckpoint, read_weights, write_weights
from lfm4ads_tf.training.config import OptimizerConfig
from tests.rounding import assert_close
from tests.small_models import EMBEDDINGS, LAYOUT, NETWORK, random_batch

ALONE = NETWORK.model_copy(update={"shared_head": False})
GATED = ALONE.model_copy(
    update={"block": NETWORK.block.model_copy(update={"structure": "gated", "mix_dim": 3})}
)
TWO_SETS = EMBEDDINGS.model_copy(update={"sets": 2})
SIZES: dict[str, Any] = {"expert_units": [4], "task_units": [3]}
S = len(LAYOUT.scenarios)
AD, CONTENT = BRANCHES.index("ad"), BRANCHES.index("content")

MODELS: dict[str, Callable[[], Any]] = {
    "heads": lambda: FoundationModel(LAYOUT, ALONE, EMBEDDINGS, seed=1),
    "branches": lambda: FoundationModel(LAYOUT, ALONE, EMBEDDINGS, branches=True, seed=1),
    "gated": lambda: FoundationModel(LAYOUT, GATED, EMBEDDINGS, seed=1),
    "stem_al": lambda: STEMAL(
        LAYOUT, ALONE, TWO_SETS, STEMALConfig(auxiliary=["buy"], **SIZES), seed=1
    ),
    "aitm": lambda: AITM(
        LAYOUT, ALONE, EMBEDDINGS, AITMConfig(sequence=["click", "buy"], **SIZES), seed=1
    ),
    "sdem": lambda: SDEM(LAYOUT, ALONE, EMBEDDINGS, STEMConfig(axis="scenario", **SIZES), seed=1),
    "crocodile": lambda: Crocodile(LAYOUT, ALONE, TWO_SETS, CrocodileConfig(experts=2, **SIZES)),
    "crocodile per task": lambda: Crocodile(
        LAYOUT, ALONE, TWO_SETS, CrocodileConfig(experts=2, gate_per="task", **SIZES)
    ),
}


def batch_of(rows: int = 12, seed: int = 0) -> dict[str, Any]:
    """Rows of all scenarios and of none, of both branches."""
    return {**random_batch(rows, seed), "branch": tf.constant(np.arange(rows) % 2, tf.int64)}


def in_scenario(batch: dict[str, Any], scenario: int) -> dict[str, Any]:
    return {**batch, "scenario": tf.fill(tf.shape(batch["scenario"]), np.int64(scenario))}


def counts(model: Any) -> dict[str, np.ndarray]:
    layers = ModelParts(model).layers
    return {k: v.rows.numpy() for k, v in layers.items() if isinstance(v, ScenarioChoice)}


def rows_in(batches: list[dict[str, Any]], branch: int | None = None) -> np.ndarray:
    """Rows of each scenario, (S,)."""
    held = [
        b["scenario"] if branch is None else b["scenario"][b["branch"] == branch] for b in batches
    ]
    every = np.concatenate([each.numpy() for each in held])
    return np.bincount(every[every >= 0], minlength=S)


def counted(model: Any, batches: list[dict[str, Any]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What each head has counted, and what it should."""
    found = counts(model)
    if len(found) == 1:
        yield found["heads/choice"], rows_in(batches)
        return
    yield found["heads/choice"], rows_in(batches, AD)
    yield found["content_heads/choice"], rows_in(batches, CONTENT)


def mean(model: Any, batch: dict[str, Any], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits (B, T) by the shares of `rows` (B, S), and (S, B, T) of the rows in each scenario."""
    each = np.stack([model(in_scenario(batch, s)).numpy() for s in range(S)]).astype(np.float64)
    return np.einsum("bs,sbt->bt", rows / rows.sum(axis=1, keepdims=True), each), each


@pytest.mark.parametrize("name", MODELS)
def test_training_counts_each_row_once_and_an_unknown_scenario_has_the_mean(name: str) -> None:
    model, batches = MODELS[name](), [batch_of(seed=s) for s in (1, 2)]
    model(batches[0])
    assert not any(found.any() for found in counts(model).values())
    for batch in batches:
        model.loss_terms(batch, training=True)
        model.loss_terms(batch, training=False)
        model.represent(batch)
        model.observed(batch)
    heads = [*counted(model, batches)]
    for found, expected in heads:
        assert len(np.unique(expected)) > 1
        np.testing.assert_array_equal(found, expected)
    batch = batches[0]
    rows = np.stack([heads[0 if b == AD else -1][0] for b in batch["branch"]])  # (B, S)
    expected, each = mean(model, batch, rows)
    found = model(in_scenario(batch, -1)).numpy()
    assert_close(found, expected, terms=100)
    assert np.abs(found - each.mean(axis=0)).max() > 1e-3  # not what all alike would give


def test_fit_counts_the_rows_of_its_epochs_and_the_unknown_follow(tmp_path: Path) -> None:
    model = MODELS["heads"]()
    batches = [batch_of(12, seed) for seed in range(3)]
    dataset = tf.data.Dataset.from_tensors(batches[0])
    for batch in batches[1:]:
        dataset = dataset.concatenate(tf.data.Dataset.from_tensors(batch))
    model.compile(run_eagerly=True)
    model.fit(dataset, validation_data=dataset, epochs=2, verbose=0)
    rows = 2 * rows_in(batches)
    np.testing.assert_array_equal(model.heads.choice.rows, rows)
    probe = batch_of(40, seed=9)
    expected, _ = mean(model, probe, np.tile(rows, (40, 1)))
    assert_close(model(in_scenario(probe, -1)), expected, terms=100)
    write_weights(model, tmp_path / "w")
    other = MODELS["heads"]()
    other(probe)
    read_weights(other, tmp_path / "w")
    np.testing.assert_array_equal(other.heads.choice.rows, rows)
    np.testing.assert_array_equal(other(in_scenario(probe, -1)), model(in_scenario(probe, -1)))


class _Older(ModelParts):
    """What the versions wrote that did not count."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.dense = {path: v for path, v in self.dense.items() if not path.endswith("/rows")}


def test_weights_of_a_version_without_counts_leave_all_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batch = batch_of()

    def made() -> tuple[Any, TrainingCheckpoint]:
        model = MODELS["branches"]()
        model(batch)
        objective = Objective(model.loss_terms, model.optimizers(OptimizerConfig()))
        optimizers = ModelOptimizers(objective, model, model.all_embeddings)
        return model, TrainingCheckpoint(tmp_path / "run", model, optimizers)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "ModelParts", _Older)
        older, checkpoint = made()
        for variable in older.trainable_variables[-4:]:
            variable.assign_add(tf.ones_like(variable))
        write_weights(older, tmp_path / "w")
        checkpoint.save(0, 3, 3)
    caplog.set_level(logging.WARNING)
    for read in (
        lambda model, checkpoint: read_weights(model, tmp_path / "w"),
        lambda model, checkpoint: checkpoint.restore(),
    ):
        caplog.clear()
        model, checkpoint = made()
        model.loss_terms(batch, training=True)
        read(model, checkpoint)
        assert not any(found.any() for found in counts(model).values())
        assert caplog.text.count("did not count the rows of scenarios") == 1
        np.testing.assert_array_equal(model(batch), older(batch))
        each = np.stack([model(in_scenario(batch, s)).numpy() for s in range(S)])
        assert_close(model(in_scenario(batch, -1)), each.mean(axis=0), terms=100)
    caplog.clear()
    model, checkpoint = made()
    model.loss_terms(batch, training=True)
    rows = counts(model)
    checkpoint.save(0, 4, 4)
    again, checkpoint = made()
    assert checkpoint.restore().step == 4
    for path, expected in rows.items():
        np.testing.assert_array_equal(counts(again)[path], expected)
    assert not caplog.records
