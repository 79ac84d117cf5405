"""What every baseline is asked."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from lfm4ads_tf.data.cache import EncodedCache, Refresh

_LOG = logging.getLogger(__name__)
_BLOCK = 262_144


class Baseline(ABC):
    """Probabilities of every task, from the training rows of an encoded cache.

    Auxiliary rows are no training rows: they have no context and not every label. What they tell
    reaches a baseline as it reaches a model's input, by statistics and sequences.

    Args:
        cache: The encoded cache.
        branches: Whether the upstream is told ads from content.
        seed: Seed of what is random.
        quiet: Whether progress is hidden.

    Attributes:
        name: Its method in results.
        package: What must be importable besides the package's own requirements, None for nothing.
        seeded: Whether another seed gives another baseline.
        max_rows: Most training rows that are read, the latest ones; all of them when None.
        facts: What fitting settled, as plain values.
    """

    name: ClassVar[str]
    package: ClassVar[str | None] = None
    seeded: ClassVar[bool] = False
    max_rows: ClassVar[int | None] = None

    def __init__(
        self, cache: EncodedCache, *, branches: bool = False, seed: int = 0, quiet: bool = True
    ) -> None:
        self.cache, self.branches, self.seed, self.quiet = cache, branches, seed, quiet
        self.facts: dict[str, Any] = {}

    @classmethod
    def load(cls) -> None:
        """Imports what fitting needs besides the package's own requirements.

        Raises:
            Exception: Whatever an installation that does not work raises.
        """
        if cls.package is not None:
            import_module(cls.package)

    @abstractmethod
    def fit(self) -> None:
        """Learns from the training rows; only early stopping reads validation labels."""

    @abstractmethod
    def predict(self, rows: np.ndarray, refresh: Refresh = "frozen") -> np.ndarray:
        """Probabilities (R, T) float32 of some rows in ascending order."""

    def train_rates(self) -> np.ndarray:
        """Mean known label of the training rows, (T,) float64."""
        labels = self.cache.labels[self.cache.train_rows]
        return np.asarray(np.nanmean(labels, axis=0, dtype=np.float64))

    def tells_one_class(self, task: str, labels: np.ndarray, rate: float) -> bool:
        """Whether the known labels that are read are of one class; warns that a constant stands in.

        Args:
            task: The task.
            labels: Its known labels among `training_rows`, (M,).
            rate: That of all training rows.
        """
        if len(np.unique(labels)) > 1:
            return False
        _LOG.warning(
            "%s takes the constant rate %.4f for '%s': the %d known labels of the training rows "
            "that it reads are of one class",
            self.name,
            rate,
            task,
            len(labels),
        )
        return True

    def training_rows(self) -> np.ndarray:
        """The training rows in order, (M,): the latest `max_rows`."""
        rows = self.cache.train_rows
        if self.max_rows is None or len(rows) <= self.max_rows:
            return rows
        text = "baseline %s is fitted on the latest %s of %s training rows"
        _LOG.info(text, self.name, f"{self.max_rows:,}", f"{len(rows):,}")
        return rows[-self.max_rows :]

    def in_blocks(self, score: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
        """`score` of some rows (R, T), block after block, so that its tables stay small."""
        if not len(rows):
            return np.zeros((0, len(self.cache.layout.tasks)), np.float32)
        blocks = [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
        return np.concatenate([score(block) for block in blocks])
