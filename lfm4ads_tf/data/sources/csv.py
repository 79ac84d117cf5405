"""CSV files, plain or gzipped, with a header line."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as arrow_csv

from lfm4ads_tf.data.sources.files import check_columns, check_file, is_gzip, no_rows, open_bytes
from lfm4ads_tf.data.sources.origin import Origin
from lfm4ads_tf.data.sources.text_stream import TextStream
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.text_options import TextOptions

_BLOCK_BYTES = 8 << 20
_PLAIN = TextOptions()


def read_csv(
    path: Path,
    columns: Sequence[str],
    *,
    delimiter: str = ",",
    text: TextOptions = _PLAIN,
    names: Sequence[str] | None = None,
) -> pa.Table:
    """Reads columns of a CSV file as text.

    Args:
        path: The file; gzip is detected from its content. The first line is the header. Lines
            that are wholly empty are skipped and not counted.
        columns: The columns to read, without repetition.
        delimiter: One character.
        text: How the cells are written.
        names: The columns of a file without a header line, in its order.

    Returns:
        A table of the columns in the order asked for, type string; an empty cell is null.

    Raises:
        UserError: The file is missing, empty, without rows, not UTF-8 or truncated, a column is
            missing, a row has another number of fields than the header, or a quoted cell is not
            closed or followed by text.
    """
    header = read_header(path, delimiter=delimiter, text=text, names=names)
    check_columns(path, columns, header)
    try:
        table = _read(path, columns, delimiter, text, pa.string(), names=names)
    except (pa.ArrowException, OSError) as error:
        raise _explain(path, columns, delimiter, text, error, names) from error
    if not table.num_rows:
        raise no_rows(path)
    return table.select(list(columns))


def read_header(
    path: Path,
    *,
    delimiter: str = ",",
    text: TextOptions = _PLAIN,
    names: Sequence[str] | None = None,
) -> list[str]:
    """Reads the column names of a CSV file, or compares the first line with names that are given.

    Args:
        path: The file.
        delimiter: One character.
        text: How the cells are written.
        names: The columns of a file without a header line, in its order.

    Returns:
        The names in the order of the file.

    Raises:
        UserError: The file is missing, empty, not UTF-8 or truncated, or has another number of
            columns than there are names.
    """
    check_file(path)
    try:
        with (
            open_bytes(path) as stream,
            # Undecodable bytes of later rows pass here: the reader of the rows numbers them.
            io.TextIOWrapper(
                io.BufferedReader(TextStream(stream, path, delimiter, text)),
                encoding="utf-8-sig",
                errors="surrogateescape",
                newline="",
            ) as lines,
        ):
            rows = csv.reader(
                lines,
                delimiter=delimiter,
                quoting=csv.QUOTE_MINIMAL if text.quoting == "standard" else csv.QUOTE_NONE,
            )
            header = next((row for row in rows if row), None)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _broken_gzip(path, error) from error
    except (csv.Error, OSError) as error:
        raise UserError(
            f"The header of '{path}' cannot be read.",
            received=error,
            fix="check that the file is a CSV file with a header line.",
        ) from error
    if header is None:
        raise no_rows(path)
    if names is not None:
        if len(names) != len(header):
            raise UserError(
                f"`columns` names {len(names)} columns, but the first line of '{path}' has "
                f"{len(header)}.",
                received=delimiter.join(header)[:200],
                fix="name every column of the file, in its order; leave out `columns` for files "
                "with a header line.",
            )
        if list(names) == header:
            raise UserError(
                f"The first line of '{path}' holds the names of the columns, but `columns` names "
                "them too: files of the log have no header line.",
                received=delimiter.join(header)[:200],
                fix="remove the line, or leave out `columns` where all files have one.",
            )
        return list(names)
    for name in header:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(
                f"The header of '{path}' is not UTF-8 text.",
                received=ascii(name[:80]),
                fix="store the file in UTF-8.",
            ) from error
    return header


def _read(
    path: Path,
    columns: Sequence[str],
    delimiter: str,
    text: TextOptions,
    kind: pa.DataType,
    *,
    threads: bool = True,
    bad_rows: list[arrow_csv.InvalidRow] | None = None,
    names: Sequence[str] | None = None,
) -> pa.Table:
    def on_bad_row(row: arrow_csv.InvalidRow) -> str:
        if bad_rows is not None:
            bad_rows.append(row)
        return "error"

    quoted = text.quoting == "standard"
    with pa.input_stream(str(path), compression="gzip" if is_gzip(path) else None) as raw:
        stream = TextStream(raw, path, delimiter, text)
        try:
            table = arrow_csv.read_csv(
                stream,
                read_options=arrow_csv.ReadOptions(
                    use_threads=threads, block_size=_BLOCK_BYTES, column_names=names
                ),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=delimiter,
                    quote_char='"' if quoted else False,
                    double_quote=quoted,
                    newlines_in_values=text.newlines_in_cells,
                    invalid_row_handler=on_bad_row if bad_rows is not None else None,
                ),
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=list(columns),
                    column_types={name: kind for name in columns},
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            )
        except Exception:
            if stream.failure is not None:
                raise stream.failure from None
            raise
    header = names is None
    if quoted and not text.newlines_in_cells and stream.lines != table.num_rows + header:
        raise UserError(
            f"'{path}' has {stream.lines} lines with text"
            f"{', the header among them,' if header else ''} but {table.num_rows} rows were found "
            "in them.",
            fix="check its quotes; where they are characters of the text, give the file's table "
            "`quoting: none` in the feature spec",
        )
    return table


def _explain(
    path: Path,
    columns: Sequence[str],
    delimiter: str,
    text: TextOptions,
    error: Exception,
    names: Sequence[str] | None,
) -> UserError:
    """Reads a file that failed once more, slowly, to say where it is wrong."""
    if isinstance(error, OSError) and not isinstance(error, pa.ArrowException):
        return _broken_gzip(path, error)
    bad_rows: list[arrow_csv.InvalidRow] = []
    try:
        raw = _read(
            path,
            columns,
            delimiter,
            text,
            pa.binary(),
            threads=False,
            bad_rows=bad_rows,
            names=names,
        )
    except (pa.ArrowException, OSError) as again:
        if bad_rows:
            row = bad_rows[0]
            # Arrow counts the header as row 1.
            ahead = 1 if names is None else 0
            number = "a data row" if row.number is None else f"data row {row.number - ahead}"
            told = "the header has" if names is None else "`columns` names"
            return UserError(
                f"In '{path}', {number} has {row.actual_columns} fields, but {told} "
                f"{row.expected_columns}.",
                received=row.text[:200],
                fix="give every row one field per column; quote fields that hold the delimiter.",
            )
        if "Empty CSV" in str(again):
            return no_rows(path)
        return UserError(
            f"File '{path}' cannot be read as CSV.",
            received=again,
            fix='check the delimiter, and that every opening quote (") is closed.',
        )
    for name in columns:
        base = 0
        for chunk in raw[name].chunks:
            for index, value in enumerate(chunk.to_pylist()):
                try:
                    (value or b"").decode("utf-8")
                except UnicodeDecodeError:
                    origin = Origin(path, name, base)
                    return origin.error(
                        "is not UTF-8 text", index, value[:80], "store the file in UTF-8."
                    )
            base += len(chunk)
    return UserError(f"File '{path}' cannot be read as CSV.", received=error, fix="check it.")


def _broken_gzip(path: Path, error: Exception) -> UserError:
    return UserError(
        f"File '{path}' is truncated or corrupt.",
        received=error,
        fix="copy or download the file again.",
    )
