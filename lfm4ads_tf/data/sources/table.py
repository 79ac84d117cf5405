"""One function for all raw tables: some columns of some files, typed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, cast, get_args

import pyarrow as pa

from lfm4ads_tf.data.sources.convert import ARROW_TYPES, ColumnType, convert_column
from lfm4ads_tf.data.sources.csv import read_csv, read_header
from lfm4ads_tf.data.sources.files import NoRows, check_file
from lfm4ads_tf.data.sources.list_text import Separators
from lfm4ads_tf.data.sources.markers import take_out_texts, take_out_values
from lfm4ads_tf.data.sources.parquet import parquet_columns, read_parquet
from lfm4ads_tf.data.sources.places import Places
from lfm4ads_tf.data.sources.tfrecord import feature_names, read_tfrecord, sniff_kinds
from lfm4ads_tf.data.sources.times import TIME, alike, convert_times
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.missing_values import MissingValues
from lfm4ads_tf.features.text_options import TextOptions

Format = Literal["csv", "parquet", "tfrecord"]

_PLAIN = TextOptions()
_PARQUET = b"PAR1"

# extension -> (format, delimiter where the extension fixes it)
_EXTENSIONS: dict[str, tuple[Format, str | None]] = {
    ".csv": ("csv", None),
    ".csv.gz": ("csv", None),
    ".tsv": ("csv", "\t"),
    ".tsv.gz": ("csv", "\t"),
    ".parquet": ("parquet", None),
    ".tfrecord": ("tfrecord", None),
    ".tfrecord.gz": ("tfrecord", None),
}


def read_table(
    paths: Sequence[Path],
    columns: Mapping[str, ColumnType],
    *,
    times: Mapping[str, bool] | None = None,
    missing: MissingValues | None = None,
    format: Format | None = None,
    delimiter: str = ",",
    list_separator: str = "|",
    text: TextOptions = _PLAIN,
    names: Sequence[str] | None = None,
    constants: Mapping[str, Sequence[str]] | None = None,
) -> pa.Table:
    r"""Reads typed columns of CSV, Parquet or TFRecord files into one table.

    | type | Arrow type | missing value | accepts |
    |---|---|---|---|
    | string | string | null (empty text too) | any scalar, as its text, see `value_texts` |
    | int | int64 | null | integers; text and floats of integral value such as `720.0` |
    | float | float64 | null (NaN too) | finite numbers, truth values, and their text |
    | strings | list<string> | empty list | lists; text, split at `list_separator` |
    | floats | list<double> | empty list | lists of finite numbers; text, split likewise |

    An empty piece of a list of strings stays an empty string, so that the positions of a list and
    of its weights agree; an empty piece of a list of numbers is an error. Features of a TFRecord
    are lists already and are not split.

    Args:
        paths: The files, in the order in which their rows are concatenated. gzip is detected from
            the content.
        columns: column -> type.
        times: column -> whether numbers are refused, of those that are read as times as well, see
            `convert_times`.
        missing: Values that stand for a missing one.
        format: The format of all files; None takes it from each file's extension (`.csv`, `.tsv`,
            `.parquet`, `.tfrecord`, also with `.gz` where text or records are gzipped).
        delimiter: The delimiter of CSV files; a `.tsv` file uses a tab when this is the default.
        list_separator: Where a text is split into a list.
        text: How the cells of CSV files are written.
        names: The columns of CSV files without a header line, in their order; Parquet and TFRecord
            files have names of their own.
        constants: column -> a text per path, which all rows of the file have there.

    Returns:
        A table of exactly `columns`, in that order, then `TIME + column` of `times`, and then
        `constants`, (rows,); `Places.of` tells which row of which file each one is.

    Raises:
        UserError: There is no path; a file is missing, truncated, corrupt or not UTF-8; no file
            has a row; a column is missing; a row has the wrong number of fields; a value does not
            fit its column (the message names the data row, counted from 1 without the header).
    """
    paths = [Path(path) for path in paths]
    if not paths:
        raise UserError(
            "No file to read.",
            received="an empty list of paths",
            fix="check the file pattern in the feature spec and the folder given by --data-dir.",
        )
    unknown = [kind for kind in columns.values() if kind not in ARROW_TYPES]
    if unknown:
        raise ValueError(f"column type must be one of {get_args(ColumnType)}, not {unknown[0]!r}")
    for name, value in (("delimiter", delimiter), ("list_separator", list_separator)):
        if not value or (name == "delimiter" and len(value) != 1):
            raise UserError(
                f"The {name} cannot be used.",
                received=repr(value),
                fix="give one character, e.g. ',' between columns and '|' inside lists.",
            )
    tables = []
    times = times or {}
    wanted = list(dict.fromkeys([*columns, *times]))
    clocks: dict[str, list[pa.ChunkedArray]] = {name: [] for name in times}
    separators = Separators(list_separator)
    places: list[tuple[Path, int]] = []
    for path, raw in _raw_tables(paths, wanted, format, delimiter, text, names):
        places.append((path, raw.num_rows))
        arrays = []
        for name, kind in columns.items():
            held = raw[name] if missing is None else take_out_texts(raw[name], missing, name, kind)
            held = separators.lists(held, kind, path=path, name=name)
            values = convert_column(held, kind, path=path, name=name, list_separator=list_separator)
            arrays.append(
                values if missing is None else take_out_values(values, missing, name, kind)
            )
        for name, iso in times.items():
            clocks[name].append(convert_times(raw[name], path=path, name=name, iso=iso))
        tables.append(pa.Table.from_arrays(arrays, names=list(columns)))
    table = pa.concat_tables(tables)
    for name, parts in clocks.items():
        read = [path for path, _ in places]
        chunks = [chunk for part in alike(parts, read, name) for chunk in part.chunks]
        table = table.append_column(TIME + name, pa.chunked_array(chunks))
    for name, texts in (constants or {}).items():
        of_file = dict(zip(paths, texts, strict=True))
        filled = [pa.repeat(pa.scalar(of_file[path]), rows) for path, rows in places]
        table = table.append_column(name, pa.chunked_array(filled, pa.string()))
    separators.warn()
    return Places(places).on(table)


def column_names(
    path: Path,
    *,
    format: Format | None = None,
    delimiter: str = ",",
    text: TextOptions = _PLAIN,
    names: Sequence[str] | None = None,
) -> list[str]:
    """Names of the columns of one file, without reading its rows.

    A TFRecord file has no header: the features of its first records stand for it.

    Raises:
        UserError: As `read_table`.
    """
    check_file(path)  # an empty file, such as Spark's _SUCCESS, needs no known format
    kind, file_delimiter = _format_of(path, format, delimiter)
    if kind == "csv":
        return read_header(path, delimiter=file_delimiter, text=text, names=names)
    if kind == "parquet":
        return parquet_columns(path)
    return feature_names(path)


def first_column_names(
    paths: Sequence[Path],
    *,
    format: Format | None = None,
    delimiter: str = ",",
    text: TextOptions = _PLAIN,
    names: Sequence[str] | None = None,
) -> list[str]:
    """Names of the columns of the first of some files that says them.

    Raises:
        UserError: As `read_table`; every file is empty.
    """
    for path in paths[:-1]:
        with suppress(NoRows):
            return column_names(path, format=format, delimiter=delimiter, text=text, names=names)
    return column_names(paths[-1], format=format, delimiter=delimiter, text=text, names=names)


def format_of_rows(path: Path, format: Format | None) -> Format | None:
    """Format of a file of further rows: that of the log's files, where the spec names one.

    A Parquet file is known by its first bytes, so it may stand in for a log of another format.
    """
    if format is None or not path.is_file():
        return format
    with path.open("rb") as stream:
        is_parquet = stream.read(len(_PARQUET)) == _PARQUET
    if is_parquet or format != "parquet":
        return "parquet" if is_parquet else format
    return None


def is_csv(path: Path, *, format: Format | None = None) -> bool:
    """Whether a file is read as CSV.

    Raises:
        UserError: The format is not given and the extension does not tell it.
    """
    return _format_of(path, format, ",")[0] == "csv"


def _raw_tables(
    paths: Sequence[Path],
    columns: Sequence[str],
    format: Format | None,
    delimiter: str,
    text: TextOptions,
    names: Sequence[str] | None,
) -> Iterator[tuple[Path, pa.Table]]:
    """Yields each file that has rows with its columns in their stored types.

    Raises:
        NoRows: No file has any.
    """
    empty: NoRows | None = None
    any_rows = False
    for path, raw in _non_empty(paths, columns, format, delimiter, text, names):
        if isinstance(raw, NoRows):
            empty = empty or raw
        else:
            any_rows = True
            yield path, raw
    if empty is not None and not any_rows:
        raise empty


def _non_empty(
    paths: Sequence[Path],
    columns: Sequence[str],
    format: Format | None,
    delimiter: str,
    text: TextOptions,
    names: Sequence[str] | None,
) -> Iterator[tuple[Path, pa.Table | NoRows]]:
    """Yields each file with its columns, or with what says that it has no row."""
    full = []
    for path in paths:
        try:
            check_file(path)
            full.append(path)
        except NoRows as error:
            yield path, error
    paths = full
    formats = [_format_of(path, format, delimiter) for path in paths]
    records = [path for path, (kind, _) in zip(paths, formats, strict=True) if kind == "tfrecord"]
    kinds = sniff_kinds(records, columns) if records else {}
    for path, (kind, file_delimiter) in zip(paths, formats, strict=True):
        try:
            if kind == "csv":
                raw = read_csv(path, columns, delimiter=file_delimiter, text=text, names=names)
            elif kind == "parquet":
                raw = read_parquet(path, columns)
            else:
                raw = read_tfrecord(path, kinds)
        except NoRows as error:
            yield path, error
        else:
            yield path, raw


def _format_of(path: Path, format: Format | None, delimiter: str) -> tuple[Format, str]:
    name = path.name.lower()
    # The longest extension first: '.csv.gz' before a '.gz' that says nothing.
    for extension in sorted(_EXTENSIONS, key=len, reverse=True):
        if name.endswith(extension):
            found, fixed = _EXTENSIONS[extension]
            use_fixed = fixed is not None and delimiter == "," and format in (None, "csv")
            return format or found, cast(str, fixed) if use_fixed else delimiter
    if format is None:
        raise UserError(
            f"The format of '{path}' is unknown.",
            received=f"extension '{''.join(path.suffixes)}'",
            fix="name the format (csv, parquet or tfrecord) in the feature spec, or use one of "
            "the extensions " + ", ".join(_EXTENSIONS) + ".",
        )
    return format, delimiter
