"""Holds an export's model against what was evaluated, before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from export.merging import TOLERANCES
from lfm4ads_tf.embeddings.table_config import ServedStorage
from lfm4ads_tf.errors import ExportRefused


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        scores: Output -> what the export must give: the evaluation's own scores where there are
            any, and tables are float32; else those of the model with the export's tables.
        rows: Rows that the evaluation had scored.
        largest_difference: Of the model with the export's tables to the trained one.
        tolerance: What it may be.
    """

    scores: dict[str, np.ndarray]
    rows: int
    largest_difference: float
    tolerance: float

    @classmethod
    def of(
        cls,
        trained: Mapping[str, np.ndarray],
        served: Mapping[str, np.ndarray],
        evaluated: Mapping[str, np.ndarray],
        tables: ServedStorage,
    ) -> Evaluation:
        """Compares.

        A probability of smaller tables may be 4 times the tolerance off in log odds, so at most the
        tolerance off, and less where it is close to 0 or 1. Other outputs may be the tolerance off,
        relative where they are above 1.

        Args:
            trained: Output -> values (B, ...) of the trained model.
            served: The same of the model with the export's tables.
            evaluated: Task -> scores (B or fewer,) of the first rows in the run's evaluation, NaN
                where a row was not evaluated.
            tables: Type of the export's tables.

        Raises:
            ExportRefused: The trained model gives NaN, or not the evaluation's scores, or smaller
                tables change them by more than the tolerance.
        """
        for name, values in trained.items():
            bad = np.isnan(values) if values.dtype == np.float32 else np.zeros(values.shape, bool)
            if bad.any():
                row = int(np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))[0])
                raise ExportRefused(
                    f"the trained model gives NaN as '{name}', first for sample {row}: one of its "
                    f"weights is not finite"
                )
        rows = 0
        scores = {name: values.copy() for name, values in served.items()}
        for task, values in evaluated.items():
            known = np.flatnonzero(np.isfinite(values))
            rows = max(rows, len(known))
            difference = np.abs(trained[task][known] - values[known])
            if len(known) and not difference.max() <= TOLERANCES["float32"]:
                worst = known[int(np.argmax(difference))]
                raise ExportRefused(
                    f"the model does not give the scores that it was evaluated by: '{task}' of "
                    f"sample {worst} is {trained[task][worst]:.7g}, in the evaluation "
                    f"{values[worst]:.7g}; its weights or the encoding have changed since"
                )
            if tables == "float32":
                scores[task][known] = values[known]
        largest = 0.0
        for name, values in served.items():
            if values.dtype != np.float32:
                continue
            off, limit = _apart(trained[name], values, name in evaluated, tables)
            largest = max(largest, off)
            if not off <= limit:
                raise ExportRefused(
                    f"{tables} tables change '{name}' too much: by {off:.3g}, at most {limit:g} is "
                    f"allowed; export with larger tables (export.tables)"
                )
        return cls(scores, rows, largest, TOLERANCES[tables])


def _apart(
    trained: np.ndarray, served: np.ndarray, probability: bool, tables: ServedStorage
) -> tuple[float, float]:
    """Largest difference, and the largest that is allowed."""
    exact, found = trained.astype(np.float64), served.astype(np.float64)
    same = exact == found
    if probability and tables != "float32":
        with np.errstate(divide="ignore", invalid="ignore"):
            exact, found = (np.log(p) - np.log1p(-p) for p in (exact, found))
            off = np.abs(exact - found)
        limit = 4 * TOLERANCES[tables]
    else:
        with np.errstate(invalid="ignore"):
            off = np.abs(exact - found) / np.maximum(1.0, np.abs(exact))
        limit = TOLERANCES[tables]
    off = np.where(same, 0.0, off)  # equal infinities pad a list of items
    return (float(off.max()) if off.size else 0.0), limit
