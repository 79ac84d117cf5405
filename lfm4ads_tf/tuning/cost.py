"""What a training costs, by a fixed table: the plan of a search must not depend on the machine."""

from __future__ import annotations

from dataclasses import dataclass

_START = 5.0
_AGAIN = 0.5
_STEP = 2.5e-3
_ROW = 4.0e-6
_FIELD = 1.0e-7
_WEIGHT = 6.0e-11
_SCORED = 1 / 3


@dataclass(frozen=True)
class Cost:
    """Seconds of a training on two cores, by a fixed table.

        seconds = 5 (a model made before: 0.5) + steps * 2.5 ms + rows * c + scored rows * c / 3
        c = 4 us + 0.1 us * columns + 0.06 ns * dense weights

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
