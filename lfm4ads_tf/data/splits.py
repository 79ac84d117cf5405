"""Splits and periods of a log in time order."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.moments import moment_text
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.split import SplitByColumn

_LOG = logging.getLogger(__name__)

TRAIN, VALID, TEST, AUXILIARY = 0, 1, 2, 3
SMALL_GROUP = 0.02
"""Share of all rows below which a group of scenarios gets no periods of its own."""
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
        received = f"values of '{spec.split.by}' from {low} to {high}"
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
        received = f"{len(time)} rows"
    for name, code in SPLITS.items():
        if not (split == code).any():
            raise UserError(
                f"The {name} split is empty.",
                received=received,
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

    Scenarios whose time ranges overlap form a group, and one with fewer than 2 % of all rows goes
    with its neighbour in time. A group's rows, in time order, are cut into blocks of equally
    many; one that ties in time left with fewer than n / (2 blocks) of the group's n rows is
    joined with its neighbour. Groups do not overlap, so a period is a function of time alone, and
    the past of a row is the same for all scenarios.

    Args:
        column: Values of the period column (N,); None for blocks.
        blocks: Number of blocks per group, None for a column.
        time: Event times (N,), sorted.
        scenario: Scenario values (N,), None without a scenario key.

    Returns:
        (N,) int32, and the name of each period: the column's value, or the block's first time.
    """
    if column is not None:
        values, period = np.unique(column, return_inverse=True)
        return period.astype(np.int32), [f"{v:.15g}" for v in values]
    count = blocks or 1
    starts = []
    for rows in np.split(np.arange(len(time)), _groups(_codes(scenario, len(time)), time)):
        edges, sizes = _equal_blocks(time[rows], count)
        starts.append(edges)
        if len(sizes) < min(count, len(rows)):
            _LOG.info(
                "periods: rows of one time are not cut apart, so %d rows make %d blocks of %d to "
                "%d rows instead of %d equal ones",
                len(rows),
                len(sizes),
                sizes.min(),
                sizes.max(),
                count,
            )
    edges = np.concatenate(starts)
    period = np.searchsorted(edges, time, side="right") - 1
    return period.astype(np.int32), [f"{edge:.15g}" for edge in edges]


def _groups(codes: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Where each group of scenarios but the first begins, as a place in the sorted rows.

    Args:
        codes: Scenario of each row, (N,).
        time: Event times (N,), sorted.
    """
    _, first = np.unique(codes, return_index=True)
    _, reverse = np.unique(codes[::-1], return_index=True)
    last = len(codes) - 1 - reverse
    order = np.argsort(time[first], kind="stable")
    begins, ends = time[first][order], np.maximum.accumulate(time[last][order])
    apart = np.append(True, begins[1:] > ends[:-1])
    # The groups do not overlap and rows are sorted, so a group is a stretch of rows.
    starts = np.searchsorted(time, begins[apart], side="left")
    return starts[_large(starts, len(time), SMALL_GROUP * len(time))][1:]


def _equal_blocks(time: np.ndarray, blocks: int) -> tuple[np.ndarray, np.ndarray]:
    """First time and number of rows of each block of a group.

    Args:
        time: The group's event times (n,), sorted.
        blocks: Blocks of equally many rows, before ties in time and small blocks are joined.
    """
    edges = np.unique(time[(np.arange(blocks) * len(time)) // blocks])
    starts = np.searchsorted(time, edges)
    kept = _large(starts, len(time), len(time) / (2 * blocks))
    return edges[kept], np.diff(np.append(starts[kept], len(time)))


def _large(starts: np.ndarray, rows: int, least: float) -> np.ndarray:
    """Which stretches of rows begin one of at least so many: a small one is joined.

    A small stretch is joined with those behind it, the last one with the one before.

    Args:
        starts: First row of each stretch, increasing from 0, (M,).
        rows: Rows of all stretches.
        least: Rows that a stretch needs, at most `rows`.

    Returns:
        Places in `starts`, increasing from 0.
    """
    ends = np.append(starts[1:], rows)
    kept = [0]
    for place, end in enumerate(ends[:-1].tolist()):
        if end - starts[kept[-1]] >= least:
            kept.append(place + 1)
    if len(kept) > 1 and rows - starts[kept[-1]] < least:
        kept.pop()
    return np.asarray(kept)


def _codes(scenario: pa.Array | None, rows: int) -> np.ndarray:
    """Scenario of each row as a number, (N,) int64."""
    if scenario is None:
        return np.zeros(rows, np.int64)
    return np.asarray(scenario.dictionary_encode("encode").indices.to_numpy(zero_copy_only=False))
