"""The public experiment's training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from lfm4ads_tf.experiments.dense_adamw import DenseAdamW
from lfm4ads_tf.experiments.public_log import PublicLog
from lfm4ads_tf.metrics import auc

BATCH = 10_000
MIN_GAIN = 0.001

Batch = dict[str, tf.Tensor]


@dataclass(frozen=True)
class OriginalResult:
    """What the training of one model gave.

    Attributes:
        valid, test: AUC of the best epoch's weights; None when a split has one class only.
        epochs: Validation AUC after each epoch.
        wall_s: Seconds that it took.
    """

    valid: float | None
    test: float | None
    epochs: list[float]
    wall_s: float


def chronological(log: PublicLog, rows: np.ndarray, size: int = BATCH) -> Iterator[Batch]:
    """Batches of rows as they come, without shuffling; the last one may be smaller."""
    for start in range(0, len(rows), size):
        chosen = rows[start : start + size]
        yield {
            "ids": tf.constant(log.ids[chosen]),
            "user": tf.constant(log.user[chosen]),
            "tab": tf.constant(log.tab[chosen]),
            "labels": tf.constant(log.labels[chosen]),
        }


def fit_original(model: tf_keras.Model, log: PublicLog, tab: str | None) -> OriginalResult:
    """Trains on one tab or on all, and scores the test rows with the best epoch's weights.

    BCE on the tab's logit, AdamW at its defaults, and a stop at the first epoch whose validation
    AUC gains less than 0.001 over the best.

    Args:
        model: Batch -> logits (B,).
        log: All rows.
        tab: The tab; None for all.

    Source: the public experiment of LFM4Ads (arXiv 2508.14948).
    """
    began = time.perf_counter()
    variables = model.trainable_variables
    optimizer = DenseAdamW(variables)

    @tf.function(autograph=False, reduce_retracing=True)
    def step(batch: Batch) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = model(batch, training=True)
            losses = tf.nn.sigmoid_cross_entropy_with_logits(batch["labels"], logits)
            loss = tf.reduce_mean(losses)
        optimizer.apply(tape.gradient(loss, variables))
        return loss

    rows = log.rows("train", tab)

    def epoch() -> float:
        for batch in chronological(log, rows):
            step(batch)
        return score(model, log, "valid", tab) or 0.0

    history = train_until_flat(epoch, variables)
    valid, test = (score(model, log, split, tab) for split in ("valid", "test"))
    return OriginalResult(valid, test, history, time.perf_counter() - began)


def score(model: tf_keras.Model, log: PublicLog, split: str, tab: str | None) -> float | None:
    """AUC of a model on a split's rows of one tab or of all; None with one class only."""
    rows = log.rows(split, tab)
    if not len(rows):
        return None
    scores = [model(batch, training=False).numpy() for batch in chronological(log, rows)]
    return auc(log.labels[rows], np.concatenate(scores))


def train_until_flat(epoch: Callable[[], float], variables: Sequence[Any]) -> list[float]:
    """Runs epochs up to the first that gains less than 0.001 over the best; restores the best.

    Args:
        epoch: Trains one epoch and returns its validation AUC.
        variables: What is restored.

    Returns:
        The validation AUC of each epoch.
    """
    history: list[float] = []
    best, kept = 0.0, [v.numpy() for v in variables]
    while not history or best == history[-1]:
        history.append(epoch())
        if history[-1] - best >= MIN_GAIN:
            best, kept = history[-1], [v.numpy() for v in variables]
    for variable, value in zip(variables, kept, strict=True):
        variable.assign(value)
    return history
