"""The labels that an upstream is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from lfm4ads_tf.data.cache import EncodedCache


class TrainingLabels(Mapping[str, np.ndarray]):
    """Task -> labels of the training rows (N,), NaN where unknown, read when asked for.

    Args:
        cache: The encoded data.
    """

    def __init__(self, cache: EncodedCache) -> None:
        self._cache = cache

    def __getitem__(self, task: str) -> np.ndarray:
        """The labels of a task."""
        if task not in self._cache.layout.tasks:
            raise KeyError(task)
        column = self._cache.layout.tasks.index(task)
        labels: np.ndarray = self._cache.labels[self._cache.train_rows, column]
        return labels

    def __iter__(self) -> Iterator[str]:
        """The tasks."""
        return iter(self._cache.layout.tasks)

    def __len__(self) -> int:
        """Number of tasks."""
        return len(self._cache.layout.tasks)
