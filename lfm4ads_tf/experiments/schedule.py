"""What the runner asks of a schedule."""

from __future__ import annotations

from typing import Any, Protocol

from lfm4ads_tf.experiments.public_method import PublicMethod

MetricsEntry = dict[str, Any]


class Schedule(Protocol):
    """Trains the experiment's models one by one; what was trained before is only read.

    An entry is one of `metrics.json`, see docs/evaluation.md.
    """

    name: str

    def prepare(self) -> dict[str, int]:
        """Reads the data; returns the rows of each split."""

    def test_rows(self, tab: str) -> int:
        """Test rows of a tab: its weight in the mean over tabs."""

    def upstream(self, seed: int) -> list[MetricsEntry]:
        """Trains the upstream of a trial and makes its representations."""

    def method(self, seed: int, tab: str, method: PublicMethod) -> list[MetricsEntry]:
        """Trains one downstream model of a trial."""
