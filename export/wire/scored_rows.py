"""Files of raw rows in, files of scores out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from lfm4ads_tf.data.raw import COLUMN_TYPES
from lfm4ads_tf.data.row_files import RowFiles
from lfm4ads_tf.data.sources.convert import ColumnType
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.export.request_schema import RequestSchema
from lfm4ads_tf.features.raw_types import raw_types
from lfm4ads_tf.features.request_name import EXCLUDE
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.files import staged_file


def read_rows(path: Path, spec: FeatureSpec, schema: RequestSchema) -> pa.Table:
    """The columns that a model reads, of a file of raw rows; others are left where they are.

    Args:
        path: CSV, Parquet or TFRecord.
        spec: Says how a CSV file separates columns and the values of a list.
        schema: What the model reads.

    Raises:
        UserError: The file cannot be read, or lacks a column.
    """
    if not path.exists():
        raise UserError("There is no such file.", received=path, fix="correct --input")
    rows = RowFiles(spec, [path])
    present = rows.present
    wanted: dict[str, ColumnType] = {
        c: COLUMN_TYPES[raw_type.kind] for c, raw_type in schema.columns.items()
    }
    wanted |= dict.fromkeys(schema.representations, "floats")
    if EXCLUDE not in present and EXCLUDE not in raw_types(spec):
        wanted.pop(EXCLUDE, None)  # the model's own, which a row may leave out
    missing = [c for c in wanted if c not in present]
    if missing:
        raise UserError(
            f"The rows lack the column '{missing[0]}', which the model reads."
            + nearest(missing[0], present),
            received=f"columns {', '.join(present)}",
            fix=f"add it{rows.told(missing[0])} (an empty value means missing); statistics, event "
            "sequences and representations are columns of a request too",
        )
    if not wanted:  # a retrieval by a stored representation alone always reads one
        raise UserError("The model reads no column.", received=path)
    return rows.read(wanted)


def write_scores(outputs: Mapping[str, np.ndarray], path: Path | None) -> None:
    """Writes one row per row: `row` (from 0) and a column per output.

    Args:
        outputs: Name -> (N,) or (N, k).
        path: `.csv`, in which lists are joined by `|`, or `.parquet`; None prints CSV.

    Raises:
        UserError: The extension is another, or the file cannot be written.
    """
    kind = ".csv" if path is None else path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise UserError(
            "The format of --output is unknown.",
            received=repr(str(path)),
            fix="end its name with .csv or .parquet",
        )
    count = len(next(iter(outputs.values())))
    columns: dict[str, pa.Array] = {"row": pa.array(np.arange(count))}
    for name, values in outputs.items():
        if values.ndim == 1:
            columns[name] = pa.array(values)
        elif kind == ".parquet":
            columns[name] = pa.array(values.tolist(), pa.list_(_type_of(values)))
        else:
            columns[name] = pa.array(["|".join(map(str, row)) for row in values.tolist()])
    table = pa.table(columns)
    if path is None:
        pa_csv.write_csv(table, sys.stdout.buffer)
        return
    with staged_file(path) as staging:
        if kind == ".parquet":
            pq.write_table(table, staging)
        else:
            pa_csv.write_csv(table, staging)


def _type_of(values: np.ndarray) -> pa.DataType:
    return pa.string() if values.dtype == object else pa.from_numpy_dtype(values.dtype)
