"""Splits and periods of a log in time order."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.moments import moment_text
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.split import SplitByColumn

TRAIN, VALID, TEST, AUXILIARY = 0, 1, 2, 3
SPLITS = {"train": TRAIN, "valid": VALID, "test": TEST}


def assign_split(
    spec: FeatureSpec,
    column: np.ndarray | None,
    time: np.ndarray,
    scenario: pa.Array | None,
) -> np.ndarray:
    """Split of each row.

    Args:
        spec: The feature spec.
        column: Values of the split column (N,), None for a split by fractions.
        time: Event times (N,), sorted.
        scenario: Scenario values (N,), None without a scenario key.

    Returns:
        (N,) int8 of `TRAIN`, `VALID`, `TEST`.

    Raises:
        UserError: A split is empty.
    """
    if isinstance(spec.split, SplitByColumn):
        values = np.asarray(column)
        split = np.full(len(values), TEST, np.int8)
        train_until, valid_until = spec.split.bounds
        split[values < valid_until] = VALID
        split[values < train_until] = TRAIN
        low, high = (
            moment_text(float(v)) if spec.split.dated else f"{v:.15g}"
            for v in (values.min(), values.max())
        )
        found = f"values of '{spec.split.by}' from {low} to {high}"
    else:
        codes = _codes(scenario if spec.split.per == "scenario" else None, len(time))
        split = np.empty(len(time), np.int8)
        train, valid, _ = spec.split.fractions
        for code in np.unique(codes):
            rows = np.flatnonzero(codes == code)
            cuts = np.round(np.cumsum([train, valid]) * len(rows)).astype(int)
            split[rows[: cuts[0]]] = TRAIN
            split[rows[cuts[0] : cuts[1]]] = VALID
            split[rows[cuts[1] :]] = TEST
        found = f"{len(time)} rows"
    for name, code in SPLITS.items():
        if not (split == code).any():
            raise UserError(
                f"The {name} split is empty.",
                received=found,
                fix="correct `split` in the feature spec, or with --set split.<key>=<value>",
            )
    return split


def assign_periods(
    column: np.ndarray | None,
    blocks: int | None,
    time: np.ndarray,
    scenario: pa.Array | None,
) -> tuple[np.ndarray, list[str]]:
    """Period of each row: the rank of its value, or its block of time.

    Blocks begin where each scenario's own rows, in time order, are cut into equally many. A
    period is a function of time alone, so the past of a row is the same for all scenarios.

    Args:
        column: Values of the period column (N,); None for blocks.
        blocks: Number of blocks per scenario, None for a column.
        time: Event times (N,), sorted.
        scenario: Scenario values (N,), None without a scenario key.

    Returns:
        (N,) int32, and the name of each period: the column's value, or the block's first time.
    """
    if column is not None:
        values, period = np.unique(column, return_inverse=True)
        return period.astype(np.int32), [f"{v:.15g}" for v in values]
    codes = _codes(scenario, len(time))
    starts = [time[:1]]
    for code in np.unique(codes):
        own = time[codes == code]
        starts.append(own[(np.arange(blocks or 1) * len(own)) // (blocks or 1)])
    edges = np.unique(np.concatenate(starts))
    period = np.searchsorted(edges, time, side="right") - 1
    used, period = np.unique(period, return_inverse=True)
    return period.astype(np.int32), [f"{edges[k]:.15g}" for k in used]


def _codes(scenario: pa.Array | None, rows: int) -> np.ndarray:
    """Scenario of each row as a number, (N,) int64."""
    if scenario is None:
        return np.zeros(rows, np.int64)
    return np.asarray(scenario.dictionary_encode("encode").indices.to_numpy(zero_copy_only=False))
