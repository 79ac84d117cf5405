"""Gradient-boosted trees on everything that the upstream reads."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

import numpy as np

from lfm4ads_tf.baselines.baseline import Baseline
from lfm4ads_tf.baselines.tree_table import TreeTable
from lfm4ads_tf.data.cache import Refresh
from lfm4ads_tf.metrics import auc
from lfm4ads_tf.seeding import derive

_LOG = logging.getLogger(__name__)

SETTINGS: tuple[dict[str, Any], ...] = (
    {"num_leaves": 15},
    {"num_leaves": 63},
    {"num_leaves": 255},
)
"""Tried in this order; the first one with the best validation AUC is taken, task by task."""
COMMON: dict[str, Any] = {
    "objective": "binary",
    "metric": "auc",
    "learning_rate": 0.1,
    "min_data_in_leaf": 100,
    "lambda_l2": 10.0,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    # The same trees whatever the number of threads.
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
ROUNDS, PATIENCE = 1000, 30
"""Most trees, and trees without a better validation AUC after which training stops."""
BLIND_ROUNDS = 100
"""Trees where the validation labels are of one class, so that nothing can stop early."""
TRIAL_ROWS = 100_000
"""Training rows, the latest ones, that the settings are tried on."""
SMALL = 20
"""`min_data_in_leaf` is at most one in so many training rows."""
_THREADED = 50_000  # rows from which threads are worth their waiting for each other
_EVERY = 15.0  # seconds between two lines of progress


class LightGBM(Baseline):
    """LightGBM over `TreeTable`, one model per task.

    Ids are ordered codes: they count values in order of their first appearance, so that a split
    tells early from late ones, and held up better than categorical splits on all three logs of
    docs/baselines.md. The setting is the one of `SETTINGS` with the best validation AUC, and early
    stopping takes the number of trees with the best validation AUC (frozen rows), as downstream
    models take their epoch. A task whose known labels are of one class among the rows that are read
    takes the rate of its training rows.

    Source: Ke et al., "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", 2017.
    """

    name = "lightgbm"
    package = "lightgbm"
    seeded = True
    max_rows = 2_000_000

    @classmethod
    def load(cls) -> None:
        """See `Baseline`."""
        _library()

    def fit(self) -> None:
        """See `Baseline`."""
        self._table = TreeTable(self.cache, branches=self.branches)
        train, valid = self.training_rows(), self.cache.rows_of("valid")
        tables = self._table.take(train), self._table.take(valid)
        self._models: list[Any] = []
        self._rates = self.train_rates()
        for k, task in enumerate(self.cache.layout.tasks):
            labels = tuple(self.cache.labels[rows, k] for rows in (train, valid))
            if self.tells_one_class(task, labels[0][np.isfinite(labels[0])], self._rates[k]):
                self._models.append(None)
                self.facts[task] = {"trees": 0}
                continue
            model, facts = self._fit_task(task, tables, labels)
            self._models.append(model)
            self.facts[task] = facts

    def predict(self, rows: np.ndarray, refresh: Refresh = "frozen") -> np.ndarray:
        """See `Baseline`."""

        def score(block: np.ndarray) -> np.ndarray:
            values = self._table.take(block, refresh)
            threads = _threads(len(block))
            found = [
                np.full(len(block), rate)
                if model is None
                else model.predict(values, num_threads=threads)
                for model, rate in zip(self._models, self._rates, strict=True)
            ]
            return np.stack(found, axis=1).astype(np.float32)

        return self.in_blocks(score, rows)

    def _fit_task(
        self, task: str, tables: tuple[np.ndarray, ...], labels: tuple[np.ndarray, ...]
    ) -> tuple[Any, dict[str, Any]]:
        """The model of one task, and what was chosen."""
        label = f"lightgbm seed {self.seed}, {task}"
        train, valid = (_known(*part) for part in zip(tables, labels, strict=True))
        seed = derive(self.seed, f"baseline/lightgbm/{task}")
        if len(np.unique(valid[1])) < 2:
            _LOG.warning(
                "lightgbm takes %s and %d trees for '%s': its %d known validation labels are of "
                "one class",
                _told(SETTINGS[0]),
                BLIND_ROUNDS,
                task,
                len(valid[1]),
            )
            model = self._boost(SETTINGS[0], seed, train, None, label)
            return model, {**SETTINGS[0], "trees": BLIND_ROUNDS}
        latest = train[0][-TRIAL_ROWS:], train[1][-TRIAL_ROWS:]
        trials, tried = [], []
        for setting in SETTINGS:
            model = self._boost(setting, seed, latest, valid, label)
            trials.append(model)
            tried.append(
                auc(valid[1], model.predict(valid[0], num_threads=_threads(len(valid[1])))) or 0.0
            )
        best = int(np.argmax(tried))
        setting, model = SETTINGS[best], trials[best]
        if len(train[1]) > TRIAL_ROWS:
            model = self._boost(setting, seed, train, valid, label)
        facts = {
            **setting,
            "trees": model.best_iteration if model.best_iteration > 0 else model.num_trees(),
            "valid_auc": [round(value, 6) for value in tried],
        }
        return model, facts

    def _boost(
        self,
        setting: dict[str, Any],
        seed: int,
        train: tuple[np.ndarray, np.ndarray],
        valid: tuple[np.ndarray, np.ndarray] | None,
        label: str,
    ) -> Any:
        """Trees from (values, labels), as many as validation takes."""
        lightgbm = _library()
        rows = len(train[1])
        parameters = {**COMMON, **setting, "seed": seed}
        parameters["num_threads"] = _threads(rows)
        parameters["min_data_in_leaf"] = max(1, min(COMMON["min_data_in_leaf"], rows // SMALL))
        data = lightgbm.Dataset(train[0], train[1], params=parameters)
        told = [] if self.quiet else [_Told(f"{label}: {_told(setting)}, {rows:,} rows")]
        if valid is None:
            return lightgbm.train(parameters, data, BLIND_ROUNDS, callbacks=told)
        held = lightgbm.Dataset(valid[0], valid[1], reference=data, params=parameters)
        stop = lightgbm.early_stopping(PATIENCE, verbose=False)
        calls = [*told, stop]
        return lightgbm.train(parameters, data, ROUNDS, valid_sets=[held], callbacks=calls)


class _Told:
    """Says every few seconds how far the trees are; a callback of LightGBM."""

    def __init__(self, label: str) -> None:
        self._label, self._last = label, time.monotonic()

    def __call__(self, state: Any) -> None:
        if time.monotonic() - self._last >= _EVERY:
            self._last = time.monotonic()
            values = [f", validation AUC {found[2]:.4f}" for found in state.evaluation_result_list]
            _LOG.info("%s: %d trees%s", self._label, state.iteration + 1, "".join(values))


def _known(table: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and labels of the rows whose label is known."""
    known = np.isfinite(labels)
    return (table, labels) if known.all() else (table[known], labels[known])


def _library() -> Any:
    """LightGBM, with threads that sleep when they wait.

    The threads of OpenMP spin while they wait for each other: beside another busy process a tree
    then takes six times as long. OpenMP reads this setting when it is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import lightgbm

    return lightgbm


def _threads(rows: int) -> int:
    """LightGBM's `num_threads`: one for few rows, else 0, as many as OpenMP takes."""
    return 0 if rows >= _THREADED else 1


def _told(setting: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in setting.items())
