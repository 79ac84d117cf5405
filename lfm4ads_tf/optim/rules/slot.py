"""The description of one optimizer slot."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Slot:
    """One state tensor that a rule keeps beside the weights of a table.

    Args:
        name: Name within its rule, for example "accumulator"; part of a checkpoint's path.
        per_element: True keeps one float per element, K * D a row; False one float per row and
            set, K a row.
        initial: Value of every float before its row's first touch.
    """

    name: str
    per_element: bool
    initial: float
