"""Scores of a model on rows of the cache, as entries of `metrics.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from lfm4ads_tf.data.cache import EncodedCache, Refresh
from lfm4ads_tf.data.input import RepresentationJoin, apply, batches
from lfm4ads_tf.data.splits import AUXILIARY, TRAIN
from lfm4ads_tf.features.fitted_encoding import ALL
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.interactions.observed_tokens import ObservedTokens
from lfm4ads_tf.metrics import auc, calibration, calibration_error, gauc, logloss
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.transfer.downstream import DownstreamModel

_BATCH = 8192

Targets = Callable[[np.ndarray], np.ndarray]
"""Labels (M, T) -> what a model's probabilities are of, see `TaskModel.targets`."""


def predict_rows(
    model: UpstreamModel | DownstreamModel,
    cache: EncodedCache,
    rows: np.ndarray,
    *,
    refresh: Refresh = "frozen",
    representations: RepresentationJoin | None = None,
) -> np.ndarray:
    """Probabilities (M, T) of some rows."""
    if not len(rows):
        return np.zeros((0, len(cache.layout.tasks)), np.float32)
    data = batches(cache, rows, _BATCH, refresh=refresh, representations=representations)
    return np.concatenate([p.numpy() for p in apply(_probabilities, data, model)])


def observed_means(model: UpstreamModel, cache: EncodedCache, rows: np.ndarray) -> dict[str, float]:
    """Means over some rows of the numbers that an upstream is observed by.

    See `UpstreamModel.observed`; of tokens `TokenSample` tells.
    """
    if type(model).observed is UpstreamModel.observed or not len(rows):
        return {}
    sums: dict[str, float] = {}
    for found in apply(_observed_sums, batches(cache, rows, _BATCH), model):
        if not found:  # its layers are observed by no number
            return {}
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    return {name: value / len(rows) for name, value in sums.items()}


def _observed_sums(model: Any, batch: Any) -> dict[str, tf.Tensor]:
    return {
        name: tf.reduce_sum(tf.cast(value, tf.float64))
        for name, value in model.observed(batch).items()
        if not isinstance(value, ObservedTokens)
    }


def _probabilities(model: Any, batch: Any) -> tf.Tensor:
    return model.probabilities(model(batch))


def targets_of(model: Any) -> Targets:
    """What a model's probabilities are of, as a function of labels (M, T)."""
    return lambda labels: model.targets(tf.constant(labels)).numpy()


def mean_auc(
    cache: EncodedCache,
    rows: np.ndarray,
    probabilities: np.ndarray,
    *,
    targets: Targets = np.asarray,
) -> float | None:
    """Mean AUC over the tasks that have both classes; None if there is none."""
    labels = targets(cache.labels[rows])
    values = [auc(labels[:, k], p) for k, p in enumerate(probabilities.T)]
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


class RowSlices(Protocol):
    """Divides rows into named slices, which may overlap."""

    def of(self, rows: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Name and mask over `rows` of every slice."""


class Slices:
    """Rows by how often training saw their item and user.

    A cold user has no training and no auxiliary row, so no stored representation either; where
    the log has no such user, `cold_user` and `warm_user` are left out.

    Args:
        cache: The encoded cache.
        spec: Its thresholds.
    """

    def __init__(self, cache: EncodedCache, spec: FeatureSpec) -> None:
        train = cache.split == TRAIN
        items = np.bincount(cache.item[train], minlength=int(cache.item.max()) + 1)
        users = np.bincount(cache.user[train], minlength=int(cache.user.max()) + 1)
        self._item_rows, self._user_rows = items[cache.item], users[cache.user]
        past = np.isin(cache.split, (TRAIN, AUXILIARY))
        known = np.bincount(cache.user[past], minlength=len(users)) > 0
        self._known_user = known[cache.user]
        self._thresholds = spec.thresholds

    def of(self, rows: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Name and mask over `rows` of every slice."""
        yield "all", np.ones(len(rows), bool)
        cold = self._thresholds.get("cold_item")
        if cold is not None:
            yield "cold_item", self._item_rows[rows] <= cold
            yield "warm_item", self._item_rows[rows] > cold
        light = self._thresholds.get("light_user")
        if light is not None:
            yield "light_user", self._user_rows[rows] <= light
        if not self._known_user.all():
            yield "cold_user", ~self._known_user[rows]
            yield "warm_user", self._known_user[rows]


def entries(
    cache: EncodedCache,
    slices: RowSlices,
    rows: np.ndarray,
    probabilities: np.ndarray,
    *,
    targets: Targets = np.asarray,
    **identity: Any,
) -> list[dict[str, Any]]:
    """One entry per task and slice.

    Args:
        cache: The encoded cache.
        slices: The slices.
        rows: Scored rows (M,).
        probabilities: (M, T).
        targets: What they are of.
        identity: `stage`, `scenario`, `method`, `refresh`, `seed`, `split`, `wall_s`.
    """
    task_entries = []
    of_rows = targets(cache.labels[rows])  # (M, T)
    for name, chosen in slices.of(rows):
        for k, task in enumerate(cache.layout.tasks):
            labels = of_rows[chosen, k]
            scores = probabilities[chosen, k]
            known = int(np.isfinite(labels).sum())
            values: dict[str, float | None] = {
                "auc": auc(labels, scores) if known else None,
                "gauc": gauc(labels, scores, cache.user[rows[chosen]]) if known else None,
                "logloss": logloss(labels, scores) if known else None,
                "calibration": calibration(labels, scores) if known else None,
            }
            if identity.get("stage") == "upstream":
                values |= _calibration(labels, scores)
            if cache.best_possible is not None:
                truth = cache.best_possible[rows[chosen], k]
                # the data's p is of the labels, and need not order anything else best
                same = np.array_equal(labels, cache.labels[rows[chosen], k], equal_nan=True)
                usable = known and same and np.isfinite(truth).all()
                values["auc_best_possible"] = auc(labels, truth) if usable else None
            counts = {"rows": known, "positives": int((labels == 1).sum())}
            task_entries.append(
                {**identity, "task": task, "slice": name, **counts, "metrics": values}
            )
    return task_entries


def count_positives(cache: EncodedCache, spec: FeatureSpec, found: list[dict[str, Any]]) -> None:
    """Sets `positives` of entries that an earlier version made, which did not count them."""
    counts: dict[tuple[str, str], dict[tuple[str, str], int]] = {}
    lacking = [e for e in found if "positives" not in e and e["stage"] != "retrieval"]
    slices = Slices(cache, spec) if lacking else None
    for entry in lacking:
        place = (entry["scenario"], entry["split"])
        if place not in counts and slices is not None:
            rows = cache.rows_of(entry["split"], None if place[0] == ALL else place[0])
            counts[place] = {
                (name, task): int((cache.labels[rows[chosen], k] == 1).sum())
                for name, chosen in slices.of(rows)
                for k, task in enumerate(cache.layout.tasks)
            }
        entry["positives"] = counts[place].get((entry["slice"], entry["task"]), 0)


def _calibration(labels: np.ndarray, scores: np.ndarray) -> dict[str, float | None]:
    """What the upstream's calibration report is made of, for some rows of one task."""
    known = np.isfinite(labels)
    if not known.any():
        return {"mean_prediction": None, "mean_label": None, "calibration_error": None}
    return {
        "mean_prediction": float(scores[known].mean(dtype=np.float64)),
        "mean_label": float(labels[known].mean(dtype=np.float64)),
        "calibration_error": calibration_error(labels, scores),
    }
