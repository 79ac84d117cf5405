"""When the rows of a log happened: the columns that order, split and part it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lfm4ads_tf.data.sources.convert import parse_float
from lfm4ads_tf.data.sources.places import ROW, BadRow
from lfm4ads_tf.data.sources.times import TIME, is_calendar, time_numbers
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.moments import moment_of, moment_text
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.split import SplitByColumn

_LOG = logging.getLogger(__name__)

_SANE = (315_532_800.0, 4_102_444_800.0)  # 1980 and 2100, in seconds
_DAYS = (19_800_101.0, 21_001_231.0)  # the same written as YYYYMMDD
_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9, "iso": 1.0}


@dataclass(frozen=True)
class Clock:
    """The times of some rows.

    Attributes:
        time: Event time in seconds since the epoch, (N,) float64.
        period: Values of the period column, (N,) float64; None for blocks.
        split: Values that the split compares, in the scale of its bounds, (N,) float64; None for
            a split by fractions, or where they were not read.
        dated: Whether the values that order the rows, those of the period column where there is
            one, are dates or times (in seconds) rather than numbers.
    """

    time: np.ndarray
    period: np.ndarray | None
    split: np.ndarray | None
    dated: bool

    @property
    def values(self) -> np.ndarray:
        """What tells an earlier row from a later one: the period column, else the time."""
        return self.time if self.period is None else self.period

    def order(self) -> np.ndarray:
        """The rows by period column, where there is one, and time, (N,); ties keep their order."""
        order = np.argsort(self.time, kind="stable")
        if self.period is not None:
            # A clock that disagrees with the period's column must not reorder the periods.
            order = order[np.argsort(self.period[order], kind="stable")]
        return np.asarray(order)

    def take(self, rows: np.ndarray) -> Clock:
        """Some of the rows."""
        period = None if self.period is None else self.period[rows]
        split = None if self.split is None else self.split[rows]
        return Clock(self.time[rows], period, split, self.dated)

    def shown(self, value: float) -> str:
        """A value of `values` as text: a date or time, or a number."""
        return moment_text(value) if self.dated else f"{value:.15g}"

    def period_names(self) -> list[str]:
        """Names of the distinct values of the period column, in order."""
        values = np.unique(self.values)
        return [self.shown(float(value)) for value in values]


def time_columns(spec: FeatureSpec, *, split: bool = True) -> dict[str, bool]:
    """Columns of the log that are read as times -> whether numbers are refused.

    Args:
        spec: The feature spec.
        split: Whether the column that splits is read.
    """
    columns = {}
    if spec.keys.time_column is not None:
        columns[spec.keys.time_column] = spec.keys.time_unit == "iso"
    if split and isinstance(spec.split, SplitByColumn):
        columns.setdefault(spec.split.by, False)
    if spec.period.by is not None:
        columns.setdefault(spec.period.by, False)
    return columns


def read_clock(
    spec: FeatureSpec, log: Mapping[str, pa.Array], *, split: bool = True, first: float = 0.0
) -> Clock:
    """The times of rows of the log.

    The time of a row of a log without one is its place: in the files, or in an order that
    `keys.shuffle` seeds.

    Args:
        spec: The feature spec.
        log: Column -> values (N,); those of `time_columns` under `TIME + column`, as
            `convert_times` gives them.
        split: Whether the rows are to be split.
        first: Place of the first row of a log without a time.

    Raises:
        UserError: A row has no time, or a bound of the split is a date and its column holds
            numbers, or the other way round.
    """
    column = spec.keys.time_column
    if column is None:
        time = first + _places(len(log[spec.keys.user]), spec.keys.shuffle)
        values = None
        if split and isinstance(spec.split, SplitByColumn):
            values = _split_values(spec.split, log, time, None)
        return Clock(time, None, values, dated=False)
    time = _complete(log, column)
    dated = is_calendar(log[TIME + column])
    if not dated:
        _warn_unit(spec, time)
        unit = spec.keys.time_unit
        # A double holds nanoseconds since 1970 to 256 of them: they are rounded to microseconds.
        time = np.round(time / 1e3) / 1e6 if unit == "ns" else time / _PER_SECOND[unit]
    period = None
    if spec.period.by is not None:
        period = _complete(log, spec.period.by)
        dated = is_calendar(log[TIME + spec.period.by])
    values = None
    if split and isinstance(spec.split, SplitByColumn):
        values = _split_values(spec.split, log, time, column)
    return Clock(time, period, values, dated)


def tell_order(spec: FeatureSpec, rows: int) -> None:
    """Says how the rows of a log without a time are ordered, and what their results are worth."""
    if spec.keys.time_column is None:
        _LOG.warning("the log has no time: %d rows %s", rows, untimed_note(spec))


def untimed_note(spec: FeatureSpec) -> str:
    """What holds of the rows of a log without a time."""
    order = (
        "are ordered by their place in the files"
        if spec.keys.shuffle is None
        else f"are in an order shuffled by the seed {spec.keys.shuffle}"
    )
    return (
        f"{order}, and their place stands for their time. Statistics, sequences, periods and a "
        "split by fractions go by this order, so the results are not point in time in the sense "
        "of real time"
    )


def order_facts(spec: FeatureSpec) -> dict[str, str]:
    """What `metrics.json` says of the order of a log without a time; nothing of one with a time."""
    return {"untimed": untimed_note(spec)} if spec.keys.time_column is None else {}


def _places(rows: int, seed: int | None) -> np.ndarray:
    """Place of each row, in the order of the files or in a shuffled one, (rows,) float64."""
    if seed is None:
        return np.arange(rows, dtype=np.float64)
    return np.random.default_rng(seed).permutation(rows).astype(np.float64)


def without_times(spec: FeatureSpec, log: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    """The columns as the features read them, without those of `time_columns`."""
    times = {TIME + column for column in time_columns(spec)}
    return {name: array for name, array in log.items() if name not in times}


def last_period(names: list[str], clock: Clock, column: str) -> float:
    """Value of the last of a run's periods, in the scale of new rows' period column.

    Args:
        names: The run's periods, as `Clock.period_names` gave them.
        clock: Of the new rows.
        column: The period column, for the message.

    Raises:
        UserError: The run's periods are numbers and the new ones dates, or the other way round.
    """
    number = parse_float(names[-1])
    last = moment_of(names[-1]) if clock.dated and number is None else number
    if last is None or clock.dated == (number is not None):
        found = ["numbers", "dates or times"]
        raise UserError(
            f"The column '{column}' holds {found[clock.dated]}, but the run's periods are "
            f"{found[number is None]}.",
            received=f"'{column}' from {clock.shown(float(clock.values.min()))}; the run's last "
            f"period is {names[-1]}",
            fix="write the column as the run's log has it",
        )
    return last


def _complete(log: Mapping[str, pa.Array], column: str) -> np.ndarray:
    """A column of times as numbers, of which none is missing."""
    values = time_numbers(log[TIME + column])
    if np.isnan(values).any():
        raise BadRow(
            f"The column '{column}' orders the log and must have a value in every row.",
            row=int(np.argmax(np.isnan(values))),
            received=f"{int(np.isnan(values).sum())} rows without one, the first is {ROW}",
            fix="fill it in, or remove the rows",
        )
    return values


def _split_values(
    split: SplitByColumn, log: Mapping[str, pa.Array], time: np.ndarray, key: str | None
) -> np.ndarray:
    """Values of the split column in the scale of the bounds."""
    values, dated = _complete(log, split.by), is_calendar(log[TIME + split.by])
    if dated == split.dated:
        return values
    if split.dated and split.by == key:
        return time  # numbers since 1970 of a known unit
    low, high = float(values.min()), float(values.max())
    if dated:
        raise UserError(
            f"`split` compares the column '{split.by}', which holds dates or times, with numbers.",
            received=f"train_until: {split.train_until:.15g}, valid_until: "
            f"{split.valid_until:.15g}; '{split.by}' from {moment_text(low)} to "
            f"{moment_text(high)}",
            fix="give dates or times, such as `train_until: 2026-01-06`",
        )
    raise UserError(
        f"`split` compares the column '{split.by}', which holds numbers, with dates.",
        received=f"train_until: {split.train_until}, valid_until: {split.valid_until}; "
        f"'{split.by}' from {low:.15g} to {high:.15g}",
        fix=f"give numbers as '{split.by}' has them, or split by a column of dates or times",
    )


def _warn_unit(spec: FeatureSpec, time: np.ndarray) -> None:
    """Says where the times make sense in another unit only."""
    low, high = float(time.min()), float(time.max())
    unit, column = spec.keys.time_unit, spec.keys.time_column

    def sane(of: str) -> bool:
        per_second = _PER_SECOND[of]
        return _SANE[0] <= low / per_second and high / per_second <= _SANE[1]

    if sane(unit):
        return
    fits = [of for of in ("s", "ms", "us", "ns") if sane(of)]
    if fits:
        _LOG.warning(
            "the times of '%s' (%.15g to %.15g) lie outside of the years 1980 to 2100 when they "
            "are read with `keys.time_unit: %s`, but inside with `%s`: is that the unit?",
            column,
            low,
            high,
            unit,
            fits[0],
        )
    elif unit == "s" and _DAYS[0] <= low and high <= _DAYS[1]:
        _LOG.warning(
            "the times of '%s' (%.15g to %.15g) look like dates, but are read as seconds since "
            "1970: write them in ISO 8601 (2026-01-05T10:00:00)",
            column,
            low,
            high,
        )
