"""Holds an export's model against what was evaluated, before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lfm4ads_tf.embeddings.config import ServedStorage
from lfm4ads_tf.errors import ExportRefused
from lfm4ads_tf.export.merging import TOLERANCES
from lfm4ads_tf.export.rounding import Rounding


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        scores: Output -> what the export must give: the evaluation's own scores where there are
            any, and tables are float32; else those of the model with the export's tables.
        rows: Rows that the evaluation had scored.
        largest_difference: Of the model with the export's tables to the trained one.
        largest_share: The largest one as a share of what is allowed there.
    """

    scores: dict[str, np.ndarray]
    rows: int
    largest_difference: float
    largest_share: float

    @classmethod
    def of(
        cls,
        trained: Mapping[str, np.ndarray],
        served: Mapping[str, np.ndarray],
        evaluated: Mapping[str, np.ndarray],
        tables: ServedStorage,
        roundings: Mapping[str, Rounding],
        magnitudes: Mapping[str, np.ndarray] | None = None,
    ) -> Evaluation:
        """Compares.

        What rounding allows is allowed everywhere. Smaller tables may move an evaluated probability
        by 4 times their tolerance in log odds, so by at most the tolerance, and less where it is
        close to 0 or 1; other outputs by the tolerance times their magnitude.

        Args:
            trained: Output -> values (B, ...) of the trained model.
            served: The same of the model with the export's tables.
            evaluated: Task -> scores (B or fewer,) of the first rows in the run's evaluation, NaN
                where a row was not evaluated.
            tables: Type of the export's tables.
            roundings: Output -> what rounding allows, for the outputs that are numbers.
            magnitudes: Output -> sum of the magnitudes of a value's terms, of a shape that
                broadcasts to the output's, for outputs that are no probability; the largest value
                of the row when absent.

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
            if not len(known):
                continue
            difference = np.abs(trained[task][known].astype(np.float64) - values[known])
            share = difference / roundings[task].allowed(values[known])
            if not share.max() <= 1:
                worst = known[int(np.argmax(share))]
                raise ExportRefused(
                    f"the model does not give the scores that it was evaluated by: '{task}' of "
                    f"sample {worst} is {trained[task][worst]:.7g}, in the evaluation "
                    f"{values[worst]:.7g}; its weights or the encoding have changed since"
                )
            if tables == "float32":
                scores[task][known] = values[known]
        largest = largest_share = 0.0
        for name, values in served.items():
            if values.dtype != np.float32:
                continue
            exact = trained[name].astype(np.float64)
            terms = (magnitudes or {}).get(name)
            in_odds = name in evaluated and tables != "float32"
            if in_odds:
                off, limit = _apart_in_odds(exact, values, roundings[name], tables)
            else:
                off, limit = _apart(exact, values, roundings[name], tables, terms)
            share = np.where(off > 0, off / limit, 0.0)
            largest = max(largest, float(off.max(initial=0.0)))
            largest_share = max(largest_share, float(share.max(initial=0.0)))
            if not share.max(initial=0.0) <= 1:
                worst = np.unravel_index(int(np.argmax(share)), share.shape)
                unit = " in log odds" if in_odds else ""
                raise ExportRefused(
                    f"{tables} tables change '{name}' too much: by {off[worst]:.3g}{unit}, at most "
                    f"{limit[worst]:.3g} is allowed; export with larger tables (export.tables)"
                )
        return cls(scores, rows, largest, largest_share)


def _apart_in_odds(
    exact: np.ndarray, served: np.ndarray, rounding: Rounding, tables: ServedStorage
) -> tuple[np.ndarray, np.ndarray]:
    """Differences of probabilities in log odds, and what each may be."""
    with np.errstate(divide="ignore", invalid="ignore"):
        limit = 4 * TOLERANCES[tables] + rounding.allowed(exact) / (exact * (1 - exact))
        off = np.abs(_log_odds(exact) - _log_odds(served.astype(np.float64)))
    return _without_equal(off, exact, served), limit


def _apart(
    exact: np.ndarray,
    served: np.ndarray,
    rounding: Rounding,
    tables: ServedStorage,
    terms: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Differences, and what each may be, of the shape of the output."""
    if terms is None:
        finite = np.where(np.isfinite(exact), np.abs(exact), 0.0)
        terms = finite.reshape(len(finite), -1).max(axis=1, initial=0.0)  # (B,)
        terms = terms.reshape(-1, *[1] * (exact.ndim - 1))
    if rounding.of == "logit":
        terms = np.ones_like(terms)  # a probability's magnitude
    limit = TOLERANCES[tables] * terms + rounding.allowed(exact)
    with np.errstate(invalid="ignore"):
        off = np.abs(exact - served.astype(np.float64))
    return _without_equal(off, exact, served), np.broadcast_to(limit, off.shape)


def _without_equal(off: np.ndarray, exact: np.ndarray, served: np.ndarray) -> np.ndarray:
    """0 where values are equal, infinities too, which pad a list of items; infinite for NaN."""
    return np.where(exact == served, 0.0, np.where(np.isnan(off), np.inf, off))


def _log_odds(probability: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(probability) - np.log1p(-probability))
