"""Whether a trained model tells rows apart: its scores against those of a constant."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.metrics import logloss
from lfm4ads_tf.pipeline.scoring import Targets

_LOG = logging.getLogger(__name__)

Entries = Sequence[dict[str, Any]]


def constant_logloss(train: np.ndarray, labels: np.ndarray) -> float | None:
    """Cross-entropy of predicting the training rows' mean label for every row, in nats.

        -mean(y log p + (1 - y) log(1 - p)), p the mean of the known training labels

    Args:
        train: Labels of the training rows (M,), NaN where unknown.
        labels: Labels of the scored rows (N,), likewise.

    Returns:
        The loss, None without a known label on either side.
    """
    known = train[np.isfinite(train)].astype(np.float64)
    if not len(known):
        return None
    return logloss(labels, np.full(len(labels), known.mean()))


def unlearnt(
    cache: EncodedCache,
    found: Entries,
    scenario: str | None = None,
    *,
    targets: Targets = np.asarray,
) -> Entries:
    """The tasks and splits on which a model is no better than a constant.

    That is an AUC of at most 0.5 or none, or a logloss that is not below the constant's.

    Args:
        cache: The encoded cache.
        found: Entries of `metrics.json` of one trained model.
        scenario: The scenario or segment it was trained on, None for all rows.
        targets: What the model's probabilities are of, where it is not the labels.

    Returns:
        `stage`, `scenario`, `method`, `seed`, `task`, `split`, `rows`, `auc`, `logloss` and
        `logloss_constant` of each.
    """
    rows_of = {split: cache.rows_of(split, scenario) for split in ("train", "valid", "test")}
    chosen = ("all" if scenario is None else scenario, "all", "frozen")
    # A log without scenarios has one called `all`, so its rows are there twice.
    entry_of = {
        (entry["split"], entry["task"]): entry
        for entry in found
        if (entry["scenario"], entry["slice"], entry["refresh"]) == chosen
    }
    poor = []
    labels_of = {split: targets(cache.labels[rows]) for split, rows in rows_of.items()}
    for entry in entry_of.values():
        k = cache.layout.tasks.index(entry["task"])
        constant = constant_logloss(labels_of["train"][:, k], labels_of[entry["split"]][:, k])
        auc, loss = entry["metrics"]["auc"], entry["metrics"]["logloss"]
        beaten = constant is not None and loss is not None and loss >= constant
        if auc is None or auc <= 0.5 or beaten:
            names = ("stage", "scenario", "method", "seed", "task", "split", "rows")
            values = {"auc": auc, "logloss": loss, "logloss_constant": constant}
            poor.append({**{name: entry[name] for name in names}, **values})
    return poor


def warn_unlearnt(label: str, poor: Entries) -> None:
    """Says of which tasks a model knows nothing.

    Args:
        label: The training, such as `upstream seed 0`.
        poor: What `unlearnt` gives.
    """
    if poor:
        texts = [
            f"'{entry['task']}' on {entry['rows']} {entry['split']} rows "
            f"(AUC {_number(entry['auc'])}, logloss {_number(entry['logloss'])}, that of the "
            f"training rows' mean label {_number(entry['logloss_constant'])}{_ranks(entry['auc'])})"
            for entry in poor
        ]
        _LOG.warning("%s is no better than a constant for %s", label, "; ".join(texts))


def _ranks(auc: float | None) -> str:
    return "" if auc is None or auc <= 0.5 else ": it ranks, but its probabilities are off"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
