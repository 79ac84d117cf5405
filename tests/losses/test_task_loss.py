"""The configured loss: its registry, its options and what a batch gives it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.losses.masked_bce import masked_bce
from lfm4ads_tf.losses.registry import LOSSES
from lfm4ads_tf.losses.task_loss import TaskLoss
from lfm4ads_tf.strict import parse
from lfm4ads_tf.training.config import FittedTrainingConfig, TrainingConfig
from lfm4ads_tf.written import load
from tests.rounding import room

LABELS = tf.constant([[1.0, np.nan], [0.0, 1.0], [1.0, 0.0]])
LOGITS = tf.constant([[0.5, 1.0], [-1.0, 2.0], [0.25, -0.5]])
TASKS = ("click", "buy")


def brier(
    labels: tf.Tensor,
    logits: tf.Tensor,
    task_weights: tf.Tensor,
    row_weights: tf.Tensor | None = None,
    *,
    power: float = 2.0,
    sharpness: float,
) -> tf.Tensor:
    """A loss of a user's own: sum_t lambda_t mean_b |sigmoid(s z) - y|^power of known labels."""
    known = tf.math.is_finite(labels)
    gap = tf.abs(tf.sigmoid(sharpness * logits) - tf.where(known, labels, 0.0)) ** power
    return tf.reduce_sum(tf.reduce_mean(tf.where(known, gap, 0.0), axis=0) * task_weights)


def training(**over: Any) -> TrainingConfig:
    return parse(TrainingConfig, over, source="training")


def test_the_default_is_the_masked_cross_entropy() -> None:
    loss = TaskLoss.of(training(task_weights={"buy": 3.0}), TASKS)
    expected = masked_bce(LABELS, LOGITS, tf.constant([1.0, 3.0]))
    assert float(loss({"labels": LABELS}, LOGITS)) == float(expected)


@pytest.mark.parametrize("weights", [[0.5, 2.0, 1.0], [[0.5, 1.0], [2.0, 0.0], [1.0, 3.0]]])
def test_row_weights_of_the_batch_are_taken(weights: Any) -> None:
    loss = TaskLoss.of(training(), TASKS)
    found = loss({"labels": LABELS, "weights": tf.constant(weights)}, LOGITS)
    expected = masked_bce(LABELS, LOGITS, tf.ones([2]), tf.constant(weights))
    assert float(found) == float(expected) != float(loss({"labels": LABELS}, LOGITS))


def test_a_loss_of_ones_own_takes_its_options() -> None:
    with LOSSES.added("brier", brier):
        config = training(loss="brier", loss_options={"sharpness": 2.0, "power": 1.0})
        loss = TaskLoss.of(config, TASKS)
        y, z = LABELS.numpy().astype(np.float64), LOGITS.numpy().astype(np.float64)
        expected = np.nansum(np.abs(1 / (1 + np.exp(-2 * z)) - y)) / 3
        found = float(loss({"labels": LABELS}, LOGITS))
        assert found == pytest.approx(expected, abs=room(8, expected))
        for options, told in (
            ({"sharpnes": 2.0}, r"no option 'sharpnes'\. Did you mean 'sharpness'\?"),
            ({"power": 1.0}, "needs the option 'sharpness'"),
        ):
            with pytest.raises(UserError, match=told):
                TaskLoss.of(training(loss="brier", loss_options=options), TASKS)
    with pytest.raises(UserError, match="there is no such loss"):
        training(loss="brier")


@pytest.mark.parametrize("config", [TrainingConfig, FittedTrainingConfig])
def test_an_unknown_loss_is_refused_when_it_is_read(config: Any) -> None:
    with pytest.raises(UserError, match=r"loss: there is no such loss\. Did you mean 'bce'\?"):
        parse(config, {"loss": "bc"}, source="training")


def test_options_of_a_loss_without_any_and_unknown_tasks_are_refused() -> None:
    with pytest.raises(UserError, match=r"(?s)'bce' has no option 'gamma'.*it takes none"):
        TaskLoss.of(training(loss_options={"gamma": 2.0}), TASKS)
    with pytest.raises(UserError, match=r"(?s)unknown task 'like'.*click, buy"):
        TaskLoss.of(training(task_weights={"like": 2.0}), TASKS)


def test_options_are_read_by_the_types_that_the_loss_declares() -> None:
    seen: list[Any] = []

    def told(
        labels: Any, logits: Any, weights: Any, rows: Any = None, *, mode: str, gamma: float = 1.0
    ) -> Any:
        seen.append((mode, gamma))
        return tf.reduce_sum(logits)

    with LOSSES.added("told", told):
        document = load("{loss: told, loss_options: {mode: no, gamma: 1e-3}}")
        loss = TaskLoss.of(parse(TrainingConfig, document, source="training"), TASKS)
        loss({"labels": LABELS}, LOGITS)
        assert seen == [("no", 0.001)]
        wrong = training(loss="told", loss_options={"mode": "a", "gamma": "abc"})
        with pytest.raises(
            UserError, match=r"(?s)'gamma' of the loss 'told'.*'abc'.*a valid number"
        ):
            TaskLoss.of(wrong, TASKS)
