"""Order of batches and the stopping rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from lfm4ads_tf.config import resolve
from lfm4ads_tf.experiments.kuairand import SPEC
from lfm4ads_tf.experiments.original_training import (
    chronological,
    fit_original,
    train_until_flat,
)
from lfm4ads_tf.experiments.public_log import read_public_log
from lfm4ads_tf.experiments.public_network import PublicNetwork
from lfm4ads_tf.metrics import auc


def test_batches_are_consecutive_rows(kuairand_folder: Path) -> None:
    log = read_public_log(resolve(SPEC).spec, kuairand_folder)
    rows = log.rows("train", "1")
    found = list(chronological(log, rows, 50))
    assert [len(b["labels"]) for b in found] == [50] * (len(rows) // 50) + [len(rows) % 50]
    for name, values in (("ids", log.ids), ("user", log.user), ("labels", log.labels)):
        together = np.concatenate([batch[name].numpy() for batch in found])
        np.testing.assert_array_equal(together, values[rows])
    assert len(next(chronological(log, np.arange(log.ids.shape[0])))["tab"]) == len(log.tab)


def test_stops_at_the_first_gain_below_a_thousandth() -> None:
    weight = tf.Variable(0.0)
    given = iter([0.5, 0.6, 0.6015, 0.6024, 0.9])

    def epoch() -> float:
        weight.assign_add(1.0)
        return next(given)

    assert train_until_flat(epoch, [weight]) == [0.5, 0.6, 0.6015, 0.6024]
    assert float(weight) == 3.0, "weights of the best epoch"
    assert next(given) == 0.9


def test_fit_learns_and_scores_with_the_best_weights(kuairand_folder: Path) -> None:
    log = read_public_log(resolve(SPEC).spec, kuairand_folder)
    model = PublicNetwork(log.sizes, len(log.tabs), seed=0)
    result = fit_original(model, log, None)
    kept = [0.0, *result.epochs[:-1]]  # the last epoch ended the training
    assert len(kept) > 1 and result.valid == kept[-1] == max(kept)
    rows = log.rows("test")
    scores = [model(batch).numpy() for batch in chronological(log, rows)]
    assert result.test == auc(log.labels[rows], np.concatenate(scores))
