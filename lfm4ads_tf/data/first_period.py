"""The first period: as many periods of the training rows as its numbers need."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lfm4ads_tf.data.splits import TEST, TRAIN, VALID
from lfm4ads_tf.features import raw_values
from lfm4ads_tf.features.kinds import NumericFeature
from lfm4ads_tf.features.spec import FeatureSpec

_LOG = logging.getLogger(__name__)

LEAST_VALUES = 30  # a deviation of 30 values is within a quarter of the true one, mostly
LEAST_PER_BUCKET = 10
LEAST_OTHERS = 10  # values that differ from the most frequent one


@dataclass(frozen=True)
class Spread:
    """What some rows hold of a number.

    Attributes:
        known: Finite values.
        distinct: Different ones.
        mode: The most frequent value, the least of them on a tie; NaN without a value.
        of_mode: How often it occurs.
        least, most: Smallest and largest value; NaN without one.
    """

    known: int
    distinct: int
    mode: float
    of_mode: int
    least: float
    most: float

    def suffices(self, buckets: int | None) -> bool:
        """Whether moments, or boundaries of that many buckets, can be taken from the values.

        More rows never turn yes into no.
        """
        return self.known >= _least_values(buckets) and self.known - self.of_mode >= LEAST_OTHERS


def _least_values(buckets: int | None) -> int:
    return max(LEAST_VALUES, LEAST_PER_BUCKET * (buckets or 0))


def spread_of(values: np.ndarray) -> Spread:
    """The spread of numbers (N,), not finite in float32 is missing."""
    with np.errstate(over="ignore"):
        known = values.astype(np.float32)
    known = known[np.isfinite(known)]
    if not len(known):
        return Spread(0, 0, np.nan, 0, np.nan, np.nan)
    distinct, counts = np.unique(known, return_counts=True)
    mode = int(counts.argmax())
    return Spread(
        len(known),
        len(distinct),
        float(distinct[mode]),
        int(counts[mode]),
        float(distinct[0]),
        float(distinct[-1]),
    )


def join_first(
    spec: FeatureSpec,
    columns: Mapping[str, pa.Array],
    split: np.ndarray,
    period: np.ndarray,
    names: list[str],
) -> tuple[np.ndarray, list[str]]:
    """Joins the first periods of the training rows until every fitted number varies in them.

    Means, deviations and boundaries come from the first period of the training rows. A feature
    suffices in some rows with at least 30 finite values (10 per bucket for `transform: buckets`),
    10 of them unlike the most frequent one. The first k periods count as one, k the smallest
    number for which all features suffice that do so within `period.first_at_most` periods; the
    others are told and do not make it longer. A period with valid or test rows is not joined
    unless the first one has some.

    Deleting the rows of all periods behind the joined ones leaves k as it is, and so does changing
    them when all features suffice; rows behind `first_at_most` periods and labels never matter.

    Args:
        spec: The feature spec.
        columns: Raw column -> values of all rows (N,).
        split: (N,), see `lfm4ads_tf.data.splits`.
        period: (N,) int32, ranks; -1 for auxiliary rows.
        names: Name of each period.

    Returns:
        The periods (N,) int32 and their names, the joined ones as one: it has the name of its
        first, or of its last where the log ends with it.
    """
    train = split == TRAIN
    ranks = np.unique(period[train])
    free = _candidates(ranks, split, period)
    candidates = free[: spec.period.first_at_most]
    more = "raise period.first_at_most, " if len(free) > len(candidates) else ""
    rows = np.flatnonzero(train & (period <= candidates[-1]))
    within = period[rows]
    needed = 1
    longest: tuple[str, Spread] | None = None
    short: list[_Number] = []
    for number in _fitted_numbers(spec, columns):
        values = number.of(rows)
        enough = _needed(values, within, candidates, number.buckets)
        if enough is None:
            short.append(number)
        elif enough > needed:
            needed = enough
            longest = (number.name, spread_of(values[within == candidates[0]]))
    until = int(candidates[needed - 1])
    for number in short:
        first, rest = (
            number.of(np.flatnonzero(train & m)) for m in (period <= until, period > until)
        )
        _tell_short(number, spread_of(first), spread_of(rest), needed, len(candidates), more)
    if longest is None:
        return period, names
    _LOG.info(
        "the first %d of %d training periods (%d rows, %s to %s) count as one first period: '%s' "
        "has %s in the first alone",
        needed,
        len(ranks),
        int((within <= until).sum()),
        names[candidates[0]],
        names[until],
        longest[0],
        _described(longest[1]),
    )
    if needed == len(ranks):
        _LOG.warning(
            "the first period holds all %d training periods: no training row has representations "
            "of an earlier one. Shorter periods, or period.first_at_most=1, leave some",
            needed,
        )
    return _renumbered(period, names, int(candidates[0]), until)


@dataclass(frozen=True)
class _Number:
    """A feature whose moments or boundaries are fitted.

    Attributes:
        name, column: The feature and its raw column.
        values: The column's values of all rows (N,).
        buckets: Buckets that are fitted, None for moments.
    """

    name: str
    column: str
    values: pa.Array
    buckets: int | None

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Numbers of some rows, (rows,) float64."""
        return raw_values.numbers(self.values.take(pa.array(rows)))


def _fitted_numbers(spec: FeatureSpec, columns: Mapping[str, pa.Array]) -> Iterator[_Number]:
    """The numbers that are fitted; a column that is not there is named by the fitting."""
    for name, feature in spec.features.items():
        if isinstance(feature, NumericFeature) and feature.is_fitted:
            (column,) = feature.raw_columns(name)
            buckets = None if feature.is_dense else feature.buckets
            if column in columns:
                yield _Number(name, column, columns[column], buckets)


def _candidates(ranks: np.ndarray, split: np.ndarray, period: np.ndarray) -> np.ndarray:
    """The training periods that may be joined: no held-out row comes in between."""
    held_out = np.unique(period[np.isin(split, (VALID, TEST))])
    behind = held_out[held_out > ranks[0]]
    if ranks[0] in held_out or not len(behind):
        return ranks
    return ranks[ranks < behind[0]]


def _needed(
    values: np.ndarray, period: np.ndarray, candidates: np.ndarray, buckets: int | None
) -> int | None:
    """The smallest number of periods whose values suffice, None if all candidates' do not."""
    for k, last in enumerate(candidates.tolist(), start=1):
        if spread_of(values[period <= last]).suffices(buckets):
            return k
    return None


def _renumbered(
    period: np.ndarray, names: list[str], first: int, last: int
) -> tuple[np.ndarray, list[str]]:
    """Periods first to last as one."""
    joined = np.where(period > first, np.maximum(period - (last - first), first), period)
    # `refresh` takes rows as new that are later than the last name.
    name = names[last] if last == len(names) - 1 else names[first]
    return joined.astype(period.dtype), [*names[:first], name, *names[last + 1 :]]


def _described(of: Spread) -> str:
    """The values of a number in a few words."""
    if of.distinct <= 1:
        return f"one value ({of.mode:.6g}) in {of.known} rows" if of.known else "no value"
    return f"{of.known} values, {of.of_mode} of them {of.mode:.6g} ({of.distinct} different)"


def _tell_short(
    number: _Number, first: Spread, rest: Spread, joined: int, tried: int, more: str
) -> None:
    """Says that a number has too little spread where it is fitted.

    Args:
        number: The feature.
        first, rest: Its values in the first period and in the later training rows.
        joined: Periods that count as the first one.
        tried: Periods that could have.
        more: How more of them could, empty where they cannot.
    """
    later = f"{rest.known} from {rest.least:.6g} to {rest.most:.6g}" if rest.known else "none"
    constant = first.distinct == 1 and (not rest.known or rest.least == rest.most == first.mode)
    _LOG.warning(
        "feature '%s' is fitted on little: column '%s' has %s in the first %s; it needs %d values, "
        "%d of them unlike the most frequent one, and does not have them in the first %d. Values "
        "of the later training rows: %s. %s",
        number.name,
        number.column,
        _described(first),
        "training period" if joined == 1 else f"{joined} training periods",
        _least_values(number.buckets),
        LEAST_OTHERS,
        tried,
        later,
        "It is constant: remove it"
        if constant
        else f"Give `transform: buckets` with `boundaries` of your own, {more}or remove it",
    )
