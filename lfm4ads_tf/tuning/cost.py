"""What a training costs, by a fixed table: the plan of a search must not depend on the machine."""

from __future__ import annotations

from dataclasses import dataclass

_START = 2.0
_AGAIN = 0.2
_STEP = 1.0e-3
_ROW = 1.7e-6
_FIELD = 4.0e-8
_WEIGHT = 2.5e-11
_SCORED = 1 / 3


@dataclass(frozen=True)
class Cost:
    """Seconds of a training on two cores, by a fixed table.

        seconds = 2 (a model made before: 0.2) + steps * 1 ms + rows * c + scored rows * c / 3
        c = 1.7 us + 0.04 us * columns + 0.025 ns * dense weights

    The figures were measured on two cores of one server. They need not be right elsewhere: another
    machine makes the same choice in another time, and `search.json` holds both.

    Attributes:
        columns: Encoded columns of a row: single ids, lists and numbers.
        weights: Weights outside of the tables.
    """

    columns: int
    weights: int

    def start(self, again: bool) -> float:
        """Seconds until the first step: the model is made and its step traced, or used again."""
        return _AGAIN if again else _START

    def row(self) -> float:
        """Seconds of one row in training, without its share of a step."""
        return _ROW + _FIELD * self.columns + _WEIGHT * self.weights

    def trained(self, rows: float, batch_size: int) -> float:
        """Seconds of training on some rows."""
        return rows * (self.row() + _STEP / batch_size)

    def scored(self, rows: float) -> float:
        """Seconds of scoring some rows."""
        return rows * self.row() * _SCORED
