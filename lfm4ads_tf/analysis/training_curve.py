"""What one training run recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Point = tuple[float, float]


@dataclass(frozen=True)
class TrainingCurve:
    """The curves of one model.

    Attributes:
        stage: `upstream`, `downstream` or `retrieval`.
        scenario: The downstream's scenario, `all` for the other stages.
        method: The method as in results.
        seed: The seed.
        validation: (step, value) per validated phase; of the chain, per scored one: the next
            period after each period, validation at its end.
        loss: (step, training loss).
    """

    stage: str
    scenario: str
    method: str
    seed: int
    validation: Sequence[Point] = ()
    loss: Sequence[Point] = ()

    @classmethod
    def from_results(
        cls, stage: str, stored: Mapping[str, Any], loss: Sequence[Point]
    ) -> TrainingCurve | None:
        """Reads a `results.json`.

        Args:
            stage: Its stage.
            stored: Its content.
            loss: The loss curve of the same training.

        Returns:
            The curves, None when the file names no result.
        """
        if not stored["entries"]:
            return None
        first = stored["entries"][0]
        return cls(
            stage=stage,
            scenario=first["scenario"] if stage == "downstream" else "all",
            method=first["method"],
            seed=first["seed"],
            validation=[
                (h["step"], h["value"]) for h in stored["history"] or stored.get("curve", [])
            ],
            loss=loss,
        )
