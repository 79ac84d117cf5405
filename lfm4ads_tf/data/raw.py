"""The raw tables of a spec, joined, in time order, with labels, split and periods."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lfm4ads_tf.data.clock import read_clock, tell_order, time_columns, without_times
from lfm4ads_tf.data.dropped import tell_missing, tell_unknown_numbers
from lfm4ads_tf.data.first_period import join_first
from lfm4ads_tf.data.join_checks import refuse_unjoined, warn_few_joined
from lfm4ads_tf.data.list_checks import check_lists
from lfm4ads_tf.data.log_files import log_constants, log_files, refuse_twice
from lfm4ads_tf.data.made_columns import Made, made_of_log, made_of_table, read_made
from lfm4ads_tf.data.sources.convert import ColumnType
from lfm4ads_tf.data.sources.files import check_columns
from lfm4ads_tf.data.sources.places import ROW, BadRow, Places
from lfm4ads_tf.data.sources.table import first_column_names, is_csv
from lfm4ads_tf.data.sources.times import TIME, time_numbers
from lfm4ads_tf.data.splits import AUXILIARY, assign_periods, assign_split
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.kinds import SequenceFeature, StatisticFeature
from lfm4ads_tf.features.missing_values import MissingValues
from lfm4ads_tf.features.name_checks import RESERVED_SCENARIOS, refuse_scenario
from lfm4ads_tf.features.owner_checks import check_table_owners
from lfm4ads_tf.features.raw_types import raw_types
from lfm4ads_tf.features.source_columns import columns_read
from lfm4ads_tf.features.spec import AuxiliaryTable, FeatureSpec, LogTable, SideTable

_LOG = logging.getLogger(__name__)

COLUMN_TYPES: dict[str, ColumnType] = {
    "text": "string",
    "integer": "int",
    "number": "float",
    "texts": "strings",
    "numbers": "floats",
    "vector": "floats",
}
"""Kind of a raw column -> type that a file is read as."""


@dataclass(frozen=True)
class RawData:
    """All rows of a data set: auxiliary rows first, then the log by period and time.

    Attributes:
        columns: Raw column that a feature, a label or a set of rows reads, or a key -> Arrow array
            (N,).
        labels: (N, T) float32, NaN where unknown.
        signals: (N, S) float32, likewise.
        time: Event time in seconds, (N,) float64; auxiliary rows carry the log's first time.
        split: (N,) int8, see `splits`.
        period: (N,) int32; -1 for auxiliary rows.
        period_values: Value of the period column per period, or the block's number.
        tables: The side tables' columns that are read, keys included.
        best_possible: (N, T) float32 true probabilities, NaN where unknown; None without them.
    """

    columns: Mapping[str, pa.Array]
    labels: np.ndarray
    signals: np.ndarray
    time: np.ndarray
    split: np.ndarray
    period: np.ndarray
    period_values: list[str]
    best_possible: np.ndarray | None
    tables: Mapping[str, pa.Table]

    @property
    def rows(self) -> int:
        """Number of rows N."""
        return len(self.split)


def source_files(folder: Path, patterns: list[str]) -> list[Path]:
    """Files of a folder that match a table's patterns, sorted within each pattern.

    Raises:
        UserError: A pattern matches nothing, or a file is matched twice.
    """
    paths: list[Path] = []
    for pattern in patterns:
        matches = sorted(folder.glob(pattern))
        if not matches:
            raise UserError(
                f"No file matches '{pattern}' in the data folder.",
                received=str(folder),
                fix="correct --data-dir, or the table's `files` in the feature spec",
            )
        paths += matches
    refuse_twice(paths, patterns)
    return paths


def all_source_files(spec: FeatureSpec, folder: Path) -> list[Path]:
    """Every file that the spec reads from the folder, in a fixed order."""
    files = source_files(folder, spec.log.patterns)
    for table in spec.tables.values():
        files += source_files(folder, table.files)
    auxiliary = _auxiliary_files(spec, folder)
    return files + (auxiliary or [])


def load_raw(spec: FeatureSpec, folder: Path) -> RawData:
    """Reads and joins the tables of a spec.

    Raises:
        UserError: A file or column is missing, a value does not fit its column, a label is not
            binary, or a split is empty.
    """
    columns = read_columns(spec, folder)
    missing, of_auxiliary = MissingValues(spec), MissingValues(spec, auxiliary=True)
    log, places = read_log(spec, folder, columns, missing)
    _refuse_reserved(spec, log)
    with places.named():
        clock = read_clock(spec, log)
        feedback = feedback_values(spec, log)
    tell_order(spec, len(clock.time))
    order = clock.order()
    feedback = feedback[order]
    log = without_times(spec, log)
    log = {name: array.take(pa.array(order)) for name, array in log.items()}
    clock = clock.take(order)
    time = clock.time
    scenario = log[spec.keys.scenario] if spec.keys.scenario else None
    split = assign_split(spec, clock.split, time, scenario)
    period, period_values = assign_periods(clock.period, spec.period.blocks, time, scenario)
    if clock.period is not None:
        period_values = clock.period_names()
    best = best_possible_values(spec, log)

    keys = {key: log[key] for key in (spec.keys.user, spec.keys.item)}
    auxiliary = _read_auxiliary(spec, folder, of_auxiliary)
    tell_unknown_numbers(spec, log, {} if auxiliary is None else auxiliary[1])
    if auxiliary is not None:
        earlier, labels = auxiliary
        extra = len(earlier[spec.keys.user])
        log = {
            name: pa.concat_arrays([earlier.get(name, pa.nulls(extra, a.type)), a])
            for name, a in log.items()
        }
        feedback = np.concatenate([_auxiliary_labels(spec, labels, extra), feedback])
        time = np.concatenate([np.full(extra, time.min()), time])
        split = np.concatenate([np.full(extra, AUXILIARY, np.int8), split])
        period = np.concatenate([np.full(extra, -1, np.int32), period])
        if best is not None:
            best = np.concatenate([np.full((extra, best.shape[1]), np.nan, np.float32), best])
    tables = side_tables(spec, folder, columns, missing)
    tell_missing(spec, missing, of_auxiliary)
    refuse_unjoined(spec, tables, keys)
    warn_few_joined(spec, tables, keys)
    log = _join(spec, tables, log)
    period, period_values = join_first(spec, log, split, period, period_values)
    tasks, signals = np.split(feedback, [len(spec.tasks)], axis=1)
    return RawData(log, tasks, signals, time, split, period, period_values, best, tables)


def read_columns(spec: FeatureSpec, folder: Path) -> dict[str, dict[str, ColumnType]]:
    """Which columns are read from which table, with their types.

    Returns:
        Table (`log` or a key of `spec.tables`) -> column -> type; what is read as a time alone, see
        `time_columns`, is not among them. A column that several tables have is taken from the
        first side table that has it, except for keys and log columns that the spec names itself.

    Raises:
        UserError: A column is in no table, or an owner check fails.
    """
    tables: dict[str, LogTable | SideTable] = {"log": spec.log, **spec.tables}
    headers = table_headers(spec, folder)
    first = source_files(folder, spec.log.patterns)[0]
    _refuse_ambiguous(spec, first, headers["log"])
    made = {"log": made_of_log(spec), **{name: made_of_table(spec, name) for name in spec.tables}}
    for name, of in made.items():
        path = source_files(folder, _patterns_of(spec, name))[0]
        check_columns(path, [c for parts in of.joined.values() for c in parts], headers[name])
        of.refuse_held(path, headers[name])
        headers[name] = of.extended(headers[name])
    if isinstance(spec.log.files, dict):
        headers["log"] = [*headers["log"], str(spec.keys.scenario)]
    keys = [spec.keys.user, spec.keys.item, spec.keys.time_column, spec.keys.scenario]
    check_columns(first, [key for key in keys if key is not None], headers["log"])
    check_table_owners(spec, headers)
    wanted: dict[str, dict[str, ColumnType]] = {name: {} for name in tables}
    log = wanted["log"]
    log[spec.keys.user] = "string"
    log[spec.keys.item] = "string"
    if spec.keys.scenario is not None:
        log[spec.keys.scenario] = "string"
    for task in spec.feedback.values():
        log[task.label] = "float"
    for column in spec.best_possible.values():
        log[column] = "float"
    for name, table in spec.tables.items():
        wanted[name][table.key] = "string"
    log_columns = {*log, *time_columns(spec), *spec.keys.user_parts, *spec.keys.item_parts}
    named = {*spec.log.user_columns, *spec.log.item_columns} & set(headers["log"])
    segments: dict[str, ColumnType] = {of.by: "string" for of in spec.segments.values()}
    for column, kind in {**segments, **feature_columns(spec)}.items():
        if column in log_columns or column in named:
            owner = "log"
        else:
            owner = next((t for t in spec.tables if column in headers[t]), "log")
        if column not in headers[owner] and column not in log_columns:
            known = [c for header in headers.values() for c in header]
            raise UserError(
                f"No table has the column '{column}', which the feature spec reads."
                + nearest(column, known),
                received=f"columns {', '.join(sorted(set(known)))}",
                fix="correct the feature's `column`, or the `by` of `ads` or of a segment; or add "
                "the column to a table",
            )
        known_kind = wanted[owner].setdefault(column, kind)
        if kind != known_kind:
            wanted[owner][column] = "string" if "string" in (kind, known_kind) else "float"
    check_columns(first, list(dict.fromkeys([*log, *log_columns])), headers["log"])
    return wanted


def table_headers(spec: FeatureSpec, folder: Path) -> dict[str, list[str]]:
    """Table (`log` or a key of `spec.tables`) -> the columns of its first file.

    Raises:
        UserError: A file is missing, or has another number of columns than the spec names.
    """
    headers = {}
    tables: dict[str, LogTable | SideTable] = {"log": spec.log, **spec.tables}
    for name, table in tables.items():
        paths = source_files(folder, _patterns_of(spec, name))
        _refuse_names(name, table, paths)
        headers[name] = first_column_names(
            paths,
            format=table.format,
            delimiter=table.delimiter,
            text=table,
            names=table.columns,
        )
    return headers


def _patterns_of(spec: FeatureSpec, name: str) -> list[str]:
    """The patterns of a table's files."""
    return spec.log.patterns if name == "log" else spec.tables[name].files


def _refuse_names(
    name: str, table: LogTable | SideTable | AuxiliaryTable, paths: list[Path]
) -> None:
    """Names of columns are for files that have none of their own."""
    for path in paths if table.columns is not None else ():
        if not is_csv(path, format=table.format):
            raise UserError(
                f"`columns` names the columns of CSV files without a header line, but a file of "
                f"'{name}' is no CSV file.",
                received=path,
                fix="leave out `columns`: the file has names of its own",
            )


def _refuse_ambiguous(spec: FeatureSpec, path: Path, header: list[str]) -> None:
    """No column of the log is called as what stands for none of them."""
    if spec.keys.time_column is None and spec.keys.time in header:
        raise UserError(
            f"`keys.time: {spec.keys.time}` means a log without a time, but '{path}' has a column "
            f"'{spec.keys.time}'.",
            fix="rename the column in the file",
        )
    if isinstance(spec.log.files, dict) and spec.keys.scenario in header:
        raise UserError(
            f"`log.files` gives the scenario '{spec.keys.scenario}' of each file, but '{path}' has "
            "a column of this name.",
            received=f"columns {', '.join(header)}",
            fix="give another name in `keys.scenario`, or list the files without names",
        )


def feature_columns(spec: FeatureSpec) -> dict[str, ColumnType]:
    """Raw columns of the features and of the statistics' keys -> type."""
    types = {c: t.kind for c, t in raw_types(spec).items()}
    for name, feature in spec.features.items():
        if isinstance(feature, StatisticFeature):
            for column in feature.raw_columns(name):
                types.pop(column, None)
            for column in columns_read(spec, name):
                types.setdefault(column, "text")
        elif isinstance(feature, SequenceFeature) and feature.events_of is not None:
            types.pop(name, None)
    return {column: COLUMN_TYPES[kind] for column, kind in types.items()}


def read_log(
    spec: FeatureSpec,
    folder: Path,
    columns: Mapping[str, Mapping[str, ColumnType]],
    missing: MissingValues | None = None,
) -> tuple[dict[str, pa.Array], Places]:
    """The log's columns in the order of its files, and where its rows come from."""
    files = log_files(spec, folder, source_files)
    constants = log_constants(spec, files)
    table = read_made(
        made_of_log(spec),
        [path for path, _ in files],
        {c: kind for c, kind in columns["log"].items() if c not in constants},
        times=time_columns(spec),
        missing=missing or MissingValues(spec),
        format=spec.log.format,
        delimiter=spec.log.delimiter,
        list_separator=spec.log.list_separator,
        text=spec.log,
        names=spec.log.columns,
        constants=constants,
    )
    log, places = arrays(table), Places.of(table)
    with places.named():
        refuse_missing_keys(spec, log)
        check_lists(spec, log)
    return log, places


def _refuse_reserved(spec: FeatureSpec, log: Mapping[str, pa.Array]) -> None:
    """No scenario of the log may be called as results or settings of ours are."""
    column = spec.keys.scenario
    if column is None:
        return
    for name in RESERVED_SCENARIOS:
        count = pc.sum(pc.equal(log[column], name)).as_py() or 0
        if count:
            refuse_scenario(
                name,
                f"{count} rows with '{name}' in column '{column}' of the log",
                "give these rows another value there; or, where they are all rows, remove "
                "`scenario` from `keys`",
            )


def refuse_missing_keys(spec: FeatureSpec, rows: Mapping[str, pa.Array]) -> None:
    """Every row needs a user and an item."""
    for key in (spec.keys.user, spec.keys.item):
        if rows[key].null_count:
            raise BadRow(
                f"The key column '{key}' is empty in {ROW}.",
                row=pc.index(pc.is_null(rows[key]), True).as_py(),
                fix="remove the rows without a user or item, or give them a key",
            )


def side_tables(
    spec: FeatureSpec,
    folder: Path,
    columns: Mapping[str, Mapping[str, ColumnType]],
    missing: MissingValues | None = None,
) -> dict[str, pa.Table]:
    """The side tables, one row per key."""
    tables = {}
    for name, table in spec.tables.items():
        side = read_made(
            made_of_table(spec, name),
            source_files(folder, table.files),
            columns[name],
            complete=False,
            missing=missing or MissingValues(spec),
            format=table.format,
            delimiter=table.delimiter,
            list_separator=table.list_separator,
            text=table,
            names=table.columns,
        )
        with Places.of(side).named():
            check_lists(spec, arrays(side))
        side = side.replace_schema_metadata(None)
        if side[table.key].null_count:
            _LOG.warning(
                "%d of %d rows of table '%s' have no '%s' and are dropped",
                side[table.key].null_count,
                len(side),
                name,
                table.key,
            )
        side = side.filter(pc.is_valid(side[table.key]))  # no row of the log asks for the others
        keys = side[table.key]
        if pc.count_distinct(keys).as_py() != len(keys):
            counts = pc.value_counts(keys)
            twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")[0]
            raise UserError(
                f"Table '{name}' has more than one row per '{table.key}'.",
                received=f"{twice} more than once",
                fix="keep one row per key",
            )
        tables[name] = side
    return tables


def _join(
    spec: FeatureSpec, tables: Mapping[str, pa.Table], log: dict[str, pa.Array]
) -> dict[str, pa.Array]:
    """Adds the side tables' columns by key; a key without a row there gets missing values."""
    joined = dict(log)
    for name, table in tables.items():
        config = spec.tables[name]
        side = arrays(table)
        positions = pc.index_in(
            log[spec.keys.user if config.owner == "user" else spec.keys.item],
            value_set=side[config.key],
        )
        for column, array in side.items():
            if column not in log:  # the log has the key too, unless it goes by another name there
                joined[column] = array.take(positions)
    return joined


def _read_auxiliary(
    spec: FeatureSpec, folder: Path, missing: MissingValues
) -> tuple[dict[str, pa.Array], dict[str, pa.Array]] | None:
    """Auxiliary rows in order, None when there are none.

    Returns:
        Their keys under the log's column names, and their labels under the auxiliary table's own:
        a label there may have the name of a column of the log.
    """
    files = _auxiliary_files(spec, folder)
    if spec.auxiliary is None:
        return None
    table = spec.auxiliary
    if files is None:
        _LOG.info("no auxiliary rows: no file matches %s", ", ".join(table.files))
        return None
    wanted: dict[str, ColumnType] = {spec.keys.user: "string", spec.keys.item: "string"}
    wanted |= dict.fromkeys(table.labels.values(), "float")
    _refuse_names("auxiliary", table, files)
    read = read_made(
        Made(spec.keys.joined, {}),
        files,
        wanted,
        times={table.order: False},
        missing=missing,
        format=table.format,
        delimiter=table.delimiter,
        text=table,
        names=table.columns,
    )
    raw = arrays(read)
    with Places.of(read).named():
        refuse_missing_keys(spec, raw)
        _auxiliary_labels(spec, raw, read.num_rows)  # refuses what is no label
    order = np.argsort(time_numbers(raw[TIME + table.order]), kind="stable")
    places = pa.array(order)
    columns = {key: raw[key].take(places) for key in (spec.keys.user, spec.keys.item)}
    if spec.keys.scenario is not None:
        columns[spec.keys.scenario] = pa.array([table.scenario] * len(order), pa.string())
    return columns, {column: raw[column].take(places) for column in table.labels.values()}


def _auxiliary_files(spec: FeatureSpec, folder: Path) -> list[Path] | None:
    table: AuxiliaryTable | None = spec.auxiliary
    if table is None:
        return None
    if table.optional and not [f for p in table.files for f in folder.glob(p)]:
        return None
    return source_files(folder, table.files)


def _auxiliary_labels(spec: FeatureSpec, rows: Mapping[str, pa.Array], count: int) -> np.ndarray:
    labels = np.full((count, len(spec.feedback)), np.nan, np.float32)
    known = spec.auxiliary.labels if spec.auxiliary else {}
    for k, (name, task) in enumerate(spec.feedback.items()):
        if name in known:
            labels[:, k] = _label(rows[known[name]], task, name, known[name])
    return labels


def feedback_values(spec: FeatureSpec, log: Mapping[str, pa.Array]) -> np.ndarray:
    """Labels of the tasks, then the signals, (N, T + S) float32, NaN where unknown."""
    return np.stack([_label(log[t.label], t, n) for n, t in spec.feedback.items()], axis=1)


def _label(column: pa.Array, task: Any, name: str, own: str | None = None) -> np.ndarray:
    label = own or task.label
    values = floats(column)
    if task.unknown_numbers:
        values = np.where(np.isin(values, task.unknown_numbers), np.nan, values)
    if task.positive_at_least is not None:
        binary = (values >= task.positive_at_least).astype(np.float32)
        return np.where(np.isnan(values), np.nan, binary).astype(np.float32)
    wrong = ~(np.isnan(values) | (values == 0) | (values == 1))
    if wrong.any():
        raise BadRow(
            f"The label column '{label}' of task '{name}' must hold 0, 1 or nothing.",
            row=int(np.argmax(wrong)),
            received=f"{values[wrong][0]:g}, in {int(wrong.sum())} of {len(values)} rows, the "
            f"first is {ROW}",
            fix=f"where that means unknown, say so: `{name}: {{label: {task.label}, unknown: "
            f"[{values[wrong][0]:g}]}}`; where it is a grade, declare a threshold: "
            f"`{name}: {{label: {task.label}, positive_at_least: ...}}`",
        )
    return values.astype(np.float32)


def best_possible_values(spec: FeatureSpec, log: Mapping[str, pa.Array]) -> np.ndarray | None:
    """True probabilities (N, T), None where the spec names none."""
    if not spec.best_possible:
        return None
    rows = len(log[spec.keys.user])
    nothing = np.full(rows, np.nan, np.float32)
    columns = [
        floats(log[spec.best_possible[t]]).astype(np.float32)
        if t in spec.best_possible
        else nothing
        for t in spec.tasks
    ]
    return np.stack(columns, axis=1)


def floats(array: pa.Array) -> np.ndarray:
    """(N,) float64, NaN where missing."""
    return np.asarray(pc.cast(array, pa.float64()).to_numpy(zero_copy_only=False))


def arrays(table: pa.Table) -> dict[str, pa.Array]:
    """Columns as single arrays."""
    out = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        out[name] = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return out
