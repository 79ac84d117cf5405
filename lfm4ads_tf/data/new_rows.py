"""Raw rows of later periods than a run's, read and joined as the run's own log was."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.clock import last_period, read_clock, time_columns, without_times
from lfm4ads_tf.data.join_checks import refuse_unjoined, warn_few_joined
from lfm4ads_tf.data.list_checks import check_lists
from lfm4ads_tf.data.older_texts import warn_older_texts
from lfm4ads_tf.data.raw import (
    arrays,
    best_possible_values,
    feature_columns,
    feedback_values,
    read_columns,
    read_log,
    refuse_missing_keys,
    side_tables,
)
from lfm4ads_tf.data.row_files import RowFiles
from lfm4ads_tf.data.sources.convert import ColumnType
from lfm4ads_tf.data.sources.places import Places
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.file_names import file_name

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class NewRows:
    """New rows in the order of their periods and times.

    Attributes:
        columns: Raw column -> Arrow array (N,).
        feedback: Labels, then signals, (N, T + S) float32, NaN where unknown.
        time: In seconds, (N,) float64.
        period: (N,) int32, going on from the earlier rows' periods.
        period_values: Names of the new periods.
        best_possible: (N, T) float32, None where the spec names none.
        tables: The side tables, with the keys of the earlier ones.
    """

    columns: Mapping[str, pa.Array]
    feedback: np.ndarray
    time: np.ndarray
    period: np.ndarray
    period_values: list[str]
    best_possible: np.ndarray | None
    tables: Mapping[str, pa.Table]


def read_files(spec: FeatureSpec, earlier: EncodedCache, paths: list[Path]) -> NewRows:
    """Reads files of new rows in the format of the spec's log.

    Columns of side tables come from the earlier run's tables; for a key that these lack, from the
    file where it has the column, else they are missing.

    Raises:
        UserError: A file cannot be read or lacks a column, or a row is not later than the earlier
            ones.
    """
    tables = _stored_tables(spec, earlier.folder)
    for path in paths:
        if not path.exists():
            raise UserError("There is no such file.", received=str(path), fix="correct --input")
    files = RowFiles(spec, paths)
    present = files.present
    wanted: dict[str, ColumnType] = {spec.keys.user: "string", spec.keys.item: "string"}
    if spec.keys.scenario is not None:
        wanted[spec.keys.scenario] = "string"
    wanted |= {task.label: "float" for task in spec.feedback.values()}
    segments: dict[str, ColumnType] = {rows.by: "string" for rows in spec.segments.values()}
    elsewhere = {c for table in tables.values() for c in table.column_names}
    for column, kind in {**segments, **feature_columns(spec)}.items():
        if column in wanted:
            continue
        if column in elsewhere:
            kind = _type_of(next(t for t in tables.values() if column in t.column_names), column)
        if column in present or column not in elsewhere:
            wanted[column] = kind
    optional = [c for c in spec.best_possible.values() if c in present]
    wanted |= dict.fromkeys(optional, "float")
    times = time_columns(spec, split=False)
    missing = [c for c in [*wanted, *times] if c not in present]
    if missing:
        raise UserError(
            f"The new rows lack the column '{missing[0]}', which the feature spec reads."
            + nearest(missing[0], present),
            received=f"columns {', '.join(present)}",
            fix=f"give rows in the format of the spec's log{files.told(missing[0])}",
        )
    table = files.read(wanted, times=times, complete=True)
    log, places = arrays(table), Places.of(table)
    with places.named():
        refuse_missing_keys(spec, log)
        check_lists(spec, log)
    rows = len(log[spec.keys.user])
    for column in spec.best_possible.values():
        log.setdefault(column, pa.nulls(rows, pa.float64()))
    joined = {n: t for n, t in tables.items() if not {*t.column_names} <= {*present, *_keys(spec)}}
    warn_few_joined(spec, joined, log)
    return _rows(spec, earlier, log, places, tables, whole_log=False)


def read_folder(spec: FeatureSpec, earlier: EncodedCache, folder: Path) -> NewRows:
    """Reads the rows of later periods from a folder with the files that the spec names.

    The log may hold the earlier periods too; their rows are passed over. A side table's rows
    replace the earlier ones of the same key.

    Raises:
        UserError: A file or column is missing, no row is later than the earlier ones, or the log
            has no time and is shuffled: its earlier rows cannot be told from new ones.
    """
    if spec.keys.shuffle is not None:
        raise UserError(
            "The earlier rows of a shuffled log without a time cannot be told from new ones.",
            received=f"keys.shuffle: {spec.keys.shuffle}",
            fix="give the new rows alone, with --input",
        )
    columns = read_columns(spec, folder)
    tables = dict(_stored_tables(spec, earlier.folder))
    given = side_tables(spec, folder, columns)
    for name, table in given.items():
        key, old = spec.tables[name].key, tables[name]
        gone = pc.is_in(old[key], value_set=table[key].combine_chunks())
        kept = old.filter(pc.invert(gone)).select(table.column_names)
        tables[name] = pa.concat_tables([kept, table]).combine_chunks()
    log, places = read_log(spec, folder, columns)
    refuse_unjoined(spec, given, log)
    warn_few_joined(spec, tables, log)
    return _rows(spec, earlier, log, places, tables, whole_log=True)


def _rows(
    spec: FeatureSpec,
    earlier: EncodedCache,
    log: Mapping[str, pa.Array],
    places: Places,
    tables: Mapping[str, pa.Table],
    *,
    whole_log: bool,
) -> NewRows:
    """Orders, joins and labels the rows of later periods."""
    # New rows of a log without a time have their places behind the run's.
    first = 0.0 if whole_log else float(earlier.time.max()) + 1
    with places.named():
        clock = read_clock(spec, log, split=False, first=first)
        feedback = feedback_values(spec, log)
    names: list[str] = earlier.manifest["periods"]
    if spec.period.by is None:
        last = float(earlier.time.max())
    else:
        last = last_period(names, clock, spec.period.by)
    late = clock.values > last
    if not late.all() and (not whole_log or not late.any()):
        place = spec.period.by or spec.keys.time_column or "place in the log"
        raise UserError(
            "There is no new row: all are of periods that the run has."
            if not late.any()
            else "Some new rows are not later than the run's.",
            received=f"{int((~late).sum())} of {len(late)} rows, '{place}' from "
            f"{clock.shown(float(clock.values.min()))}; the run's last is {clock.shown(last)}",
            fix="give rows of later periods alone"
            if not whole_log
            else "give a folder whose log goes on after the run's",
        )
    if not late.all():
        _LOG.info("%d rows of periods that the run has are passed over", int((~late).sum()))
    order = clock.order()
    order = order[late[order]]
    taken = {name: array.take(pa.array(order)) for name, array in without_times(spec, log).items()}
    clock = clock.take(order)
    if spec.period.by is None:
        values, period = [f"{clock.time[0]:.15g}"], np.zeros(len(order), np.int64)
    else:
        values = clock.period_names()
        period = np.unique(clock.values, return_inverse=True)[1]
    best = best_possible_values(spec, taken)
    return NewRows(
        _joined(spec, taken, tables),
        feedback[order],
        clock.time,
        (len(names) + period).astype(np.int32),
        values,
        best,
        tables,
    )


def _joined(
    spec: FeatureSpec, log: dict[str, pa.Array], tables: Mapping[str, pa.Table]
) -> dict[str, pa.Array]:
    """The side tables' columns by key; a key without a row there keeps what the log says."""
    joined = dict(log)
    for name, table in tables.items():
        config = spec.tables[name]
        side = arrays(table)
        keys = log[spec.keys.user if config.owner == "user" else spec.keys.item]
        place = pc.index_in(keys, value_set=side[config.key])
        known = pc.is_valid(place).to_numpy(zero_copy_only=False)
        for column, array in side.items():
            if column not in log:
                joined[column] = array.take(place)
            elif column not in _log_columns(spec):
                at = pc.fill_null(place, 0).to_numpy(zero_copy_only=False).astype(np.int64)
                at = np.where(known, at, len(array) + np.arange(len(keys)))
                both = [array, pc.cast(log[column], array.type)]
                joined[column] = pa.concat_arrays(both).take(pa.array(at))
    return joined


def _log_columns(spec: FeatureSpec) -> set[str]:
    """Columns that are the log's own wherever else they occur."""
    keys = {spec.keys.user, spec.keys.item, spec.keys.time_column, spec.keys.scenario}
    keys |= {spec.period.by, *spec.keys.user_parts, *spec.keys.item_parts}
    labels = {task.label for task in spec.feedback.values()}
    return {c for c in keys if c} | labels | {*spec.log.user_columns, *spec.log.item_columns}


def _stored_tables(spec: FeatureSpec, data: Path) -> dict[str, pa.Table]:
    """The side tables as the earlier rows were joined with them."""
    warn_older_texts(data)
    return {n: pq.read_table(data / "tables" / f"{file_name(n)}.parquet") for n in spec.tables}


def _keys(spec: FeatureSpec) -> set[str]:
    """The key columns of the side tables."""
    return {table.key for table in spec.tables.values()}


def _type_of(table: pa.Table, column: str) -> ColumnType:
    """How a column of the log is read that a side table has too."""
    of = table.schema.field(column).type
    if pa.types.is_list(of) or pa.types.is_large_list(of):
        return "strings" if pa.types.is_string(of.value_type) else "floats"
    if pa.types.is_string(of):
        return "string"
    return "int" if pa.types.is_integer(of) else "float"
