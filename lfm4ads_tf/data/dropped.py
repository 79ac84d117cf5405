"""What of the raw rows no model sees: counted, and told in one line per kind."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lfm4ads_tf.features import raw_values
from lfm4ads_tf.features.kinds import IdentityFeature, MultiFeature, NumericFeature
from lfm4ads_tf.features.missing_values import MissingValues
from lfm4ads_tf.features.row_sets import RowSet
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.tables import encoding_of, is_bag, table_of

_LOG = logging.getLogger(__name__)

_SHOWN = 5
"""Features, scenarios or values that a line names."""
_FLOAT_MAX = float(np.finfo(np.float32).max)
_DIGITS = r"^[0-9]{1,18}$"

Parts = Mapping[str, np.ndarray]
"""What rows are called (`train`, `new`) -> their places, (M,) each."""


def tell_dropped(
    spec: FeatureSpec, columns: raw_values.Columns, scenario: np.ndarray, parts: Parts
) -> None:
    """Warns of values and rows that are there and reach no model, with counts.

    One line each for ids outside of their table, numbers that float32 cannot hold, and rows
    without a known scenario. An unseen value of a vocabulary is none of them: it has a row.

    Args:
        spec: The feature spec.
        columns: Raw column -> values of all rows (N,).
        scenario: Index of the scenario, (N,), -1 unknown.
        parts: The rows that are looked at.
    """
    for line in (
        _outside(spec, columns, parts),
        _beyond_float32(spec, columns, parts),
        _scenarios(spec, columns, scenario, parts),
    ):
        if line is not None:
            _LOG.warning(line)


def tell_unlabelled(labels: np.ndarray, parts: Parts) -> None:
    """Warns of rows without any known label: they train nothing and count in no metric.

    Args:
        labels: (N, T), NaN where unknown.
        parts: The rows that are looked at.
    """
    unknown = ~np.isfinite(labels).any(axis=1)
    counts = {name: int(unknown[rows].sum()) for name, rows in parts.items()}
    if any(counts.values()):
        _LOG.warning(
            "rows whose labels are all unknown train nothing and count in no metric: %s",
            _of_parts(counts, parts),
        )


def tell_missing(spec: FeatureSpec, missing: MissingValues, of_auxiliary: MissingValues) -> None:
    """Says what was read as missing, and warns of declared markers that no cell holds."""
    told = [t for t in (missing.told(), of_auxiliary.told()) if t is not None]
    if told:
        _LOG.info("cells read as missing by `missing` and `unknown`: %s", "; ".join(told))
    unmatched = missing.unmatched(of_auxiliary)
    if unmatched:
        _LOG.warning("markers of missing values that are found nowhere: %s", ", ".join(unmatched))


def tell_unknown_numbers(
    spec: FeatureSpec, log: Mapping[str, pa.Array], auxiliary: Mapping[str, pa.Array]
) -> None:
    """Tells labels that are numbers under `unknown`, and warns of what may be amiss with them.

    That is a number that no label holds, and a negative label that it does not name.

    Args:
        spec: The feature spec.
        log, auxiliary: Label column -> numbers of the rows of each table.
    """
    told, unmatched = [], []
    for name, task in spec.feedback.items():
        column = _numbers_of(log[task.label])
        earlier = spec.auxiliary.labels.get(name) if spec.auxiliary is not None else None
        if earlier is not None and earlier in auxiliary:
            column = np.concatenate([column, _numbers_of(auxiliary[earlier])])
        held = int(np.isin(column, task.unknown_numbers).sum())
        if held:
            told.append(f"'{task.label}' ({name}) {held:,}")
        present = np.isin(task.unknown_numbers, column)
        unmatched += [
            f"{number:g} in '{task.label}' ({name})"
            for number, found in zip(task.unknown_numbers, present, strict=True)
            if not found
        ]
        if task.positive_at_least is None or task.positive_at_least <= 0:
            continue
        below = column[(column < 0) & ~np.isin(column, task.unknown_numbers)]
        if len(below):
            _LOG.warning(
                "%d of %d labels in '%s' are below 0 (such as %g) and count as 0 in '%s'; where "
                "they mean unknown, give it `unknown: [%g]`",
                len(below),
                len(column),
                task.label,
                below[0],
                name,
                below[0],
            )
    if told:
        _LOG.info("labels that are a number under `unknown`: %s", ", ".join(told))
    if unmatched:
        _LOG.warning("no label is one of the unknown values %s", ", ".join(unmatched))


def _numbers_of(column: pa.Array) -> np.ndarray:
    """A column of numbers, NaN where missing, (N,) float64."""
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False))


def tell_unmatched(path: str, row_set: RowSet, column: pa.Array) -> None:
    """Warns of values of a set of rows that no row has.

    Args:
        path: Where the set is declared.
        row_set: The set.
        column: Its raw column, (N,).
    """
    held = pc.drop_null(pc.unique(column))
    lacking = [
        str(value)
        for value in row_set.values
        if not RowSet(by=row_set.by, values=[value]).rows(held).any()
    ]
    if lacking:
        _LOG.warning(
            "`%s`: %d of %d values are in no row: %s; '%s' holds %s",
            path,
            len(lacking),
            len(row_set.values),
            _few([f"'{value}'" for value in lacking]),
            row_set.by,
            _few([f"'{value}'" for value in held.slice(0, _SHOWN + 1).to_pylist()], len(held)),
        )


def tell_unscored(cache_scenario: np.ndarray, parts: Parts) -> None:
    """Warns of rows that count in the results over all rows and in no scenario's.

    Args:
        cache_scenario: Index of the scenario, (N,), -1 unknown.
        parts: The rows of each split.
    """
    counts = {name: int((cache_scenario[rows] < 0).sum()) for name, rows in parts.items()}
    if any(counts.values()):
        _LOG.warning(
            "rows of scenarios that training never saw, or without one, count under `all` and in "
            "no scenario's results: %s",
            _of_parts(counts, parts),
        )


def tell_others(
    spec: FeatureSpec,
    scenario: str,
    scenarios: Sequence[str],
    codes: np.ndarray,
    rows: Mapping[str, pa.Array],
) -> None:
    """Warns of rows that are scored by the model of a scenario or segment that is not theirs.

    Args:
        spec: The feature spec.
        scenario: The scenario or segment of the model.
        scenarios: The scenarios that training knows.
        codes: Index of each row's scenario, (N,), -1 unknown.
        rows: Raw columns of the rows; a segment's column may be absent, and nothing tells then.
    """
    if scenario in scenarios:
        mine, column = codes == scenarios.index(scenario), spec.keys.scenario
    else:
        of = spec.segments[scenario]
        mine, column = np.ones(len(codes), bool), of.by
        if column in rows:
            mine = of.rows(rows[column])
    if not mine.all() and column is not None:
        _LOG.warning(
            "%d of %d rows are not of '%s', whose model scores them all the same: %s",
            int((~mine).sum()),
            len(mine),
            scenario,
            _values_of(raw_values.texts(rows[column].filter(pa.array(~mine)))),
        )


def _outside(spec: FeatureSpec, columns: raw_values.Columns, parts: Parts) -> str | None:
    """Ids that are there and not in [0, size)."""
    told = []
    for name, feature in spec.features.items():
        owner = spec.features.get(getattr(feature, "table", None) or name)
        if not isinstance(owner, IdentityFeature):
            continue
        column = feature.raw_columns(name)[0]
        if is_bag(feature):
            if column not in columns or getattr(feature, "events_of", None) is not None:
                continue
            flat, splits = raw_values.lists(raw_values.column_of(columns, column))
            texts = raw_values.texts(flat)
            plain = pc.match_substring_regex(texts, _DIGITS)
            ids = pc.if_else(plain, texts, "-1").cast(pa.int64()).to_numpy(zero_copy_only=False)
            known = pc.not_equal(texts, "").to_numpy(zero_copy_only=False)
        elif encoding_of(spec, name) == "identity":
            held = raw_values.column_of(columns, column)
            ids, known, splits = raw_values.integers(held), _known(held), None
        else:
            continue
        size = owner.size
        wrong = known & ((ids < 0) | (ids >= size))
        counts = {of: int(_chosen(wrong, splits, rows).sum()) for of, rows in parts.items()}
        if any(counts.values()):
            most = int(ids[known].max())
            mend = f"largest {most}: `size: {most + 1}`" if most >= size else "negative or no id"
            if most == size and not (known & (ids == 0)).any():
                mend = f"ids run from 1 to {size}: `size: {size + 1}`"
            table = table_of(spec, name)
            where = f"'{name}'" if table == name else f"'{name}' (table '{table}')"
            told.append(f"{where} {_of_parts(counts)} not in [0, {size}), {mend}")
    return f"ids outside of their table are missing: {_few(told)}" if told else None


def _beyond_float32(spec: FeatureSpec, columns: raw_values.Columns, parts: Parts) -> str | None:
    """Numbers that are there and infinite in float32."""
    told = []
    for name, feature in spec.features.items():
        if isinstance(feature, NumericFeature):
            splits = None
            values = raw_values.numbers(raw_values.column_of(columns, feature.raw_columns(name)[0]))
        elif isinstance(feature, MultiFeature) and feature.weights is not None:
            flat, splits = raw_values.lists(raw_values.column_of(columns, feature.weights))
            values = raw_values.numbers(flat)
        else:
            continue
        with np.errstate(over="ignore"):
            wrong = np.isfinite(values) & ~np.isfinite(values.astype(np.float32))
        if not wrong.any():
            continue
        counts = {of: int(_chosen(wrong, splits, rows).sum()) for of, rows in parts.items()}
        if any(counts.values()):
            told.append(f"'{name}' {_of_parts(counts)} such as {values[wrong][0]:.6g}")
    return (
        f"numbers beyond float32 (above {_FLOAT_MAX:.3g}) are missing: {_few(told)}; name what "
        "stands for a missing value under `missing`, or scale the column"
        if told
        else None
    )


def _scenarios(
    spec: FeatureSpec, columns: raw_values.Columns, scenario: np.ndarray, parts: Parts
) -> str | None:
    """Rows without a scenario, or of one that training never saw."""
    if spec.keys.scenario is None:
        return None
    unknown = scenario < 0
    counts = {name: int(unknown[rows].sum()) for name, rows in parts.items()}
    if not any(counts.values()):
        return None
    every = np.unique(np.concatenate([rows[unknown[rows]] for rows in parts.values()]))
    column = raw_values.column_of(columns, spec.keys.scenario)
    values = raw_values.texts(column).take(pa.array(every))
    return (
        "rows without a scenario that training knows are in no scenario: "
        f"{_of_parts(counts, parts)}; {_values_of(values)}"
    )


def _values_of(texts: pa.Array) -> str:
    """The most frequent values of a column with how many rows each has."""
    found = pc.value_counts(texts)
    counts, values = found.field("counts").to_pylist(), found.field("values").to_pylist()
    order = sorted(range(len(values)), key=lambda k: (-counts[k], not values[k], values[k]))
    return _few(
        [f"'{values[k]}' {counts[k]:,}" if values[k] else f"none {counts[k]:,}" for k in order]
    )


def _known(column: object) -> np.ndarray:
    """Whether each value of a column of single values is there, (N,) bool."""
    if isinstance(column, pa.Array):
        valid = pc.is_valid(column)
        if pa.types.is_floating(column.type):
            valid = pc.and_(valid, pc.invert(pc.fill_null(pc.is_nan(column), True)))
        return np.asarray(valid.to_numpy(zero_copy_only=False), bool)
    values = np.asarray(column)
    return ~np.isnan(values) if values.dtype.kind == "f" else np.ones(len(values), bool)


def _chosen(values: np.ndarray, splits: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
    """Values of some rows; with row splits a row has several."""
    if splits is None:
        return values[rows]
    row = np.repeat(np.arange(len(splits) - 1), np.diff(splits))  # (M,)
    return values[np.isin(row, rows)]


def _of_parts(counts: Mapping[str, int], parts: Parts | None = None) -> str:
    """`40 train, 3 of 152 test rows`, without the parts that have none."""
    told = [
        f"{count:,} of {len(parts[name]):,} {name}" if parts is not None else f"{count:,} {name}"
        for name, count in counts.items()
        if count
    ]
    return ", ".join(told) + (" rows" if parts is not None else "")


def _few(named: Sequence[str], total: int | None = None) -> str:
    """The first few of many."""
    total = len(named) if total is None else total
    more = total - _SHOWN
    return ", ".join(named[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
