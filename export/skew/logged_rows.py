"""Logged raw rows as the server was asked for them, and as training would have read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lfm4ads_tf.data.raw import arrays
from lfm4ads_tf.data.requests import complete, read_requests
from lfm4ads_tf.data.row_files import RowFiles
from lfm4ads_tf.data.sources.convert import ColumnType
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features import raw_values
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.kinds import StatisticFeature
from lfm4ads_tf.features.skew import is_moving
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.file_names import file_name


@dataclass(frozen=True)
class LoggedRows:
    """Rows of a log, R of them.

    Attributes:
        numbers: Their places in the file, from 0, (R,).
        plain: Raw columns as `read_requests` reads them: the log's own, and those of side tables
            that the log lacks.
        moving: Columns of moving features that the log holds: a statistic's `f.count` and
            `f.rate`, the item keys of a sequence of events.
        tables: Columns of side tables that the log holds too, as the training run's tables have
            them; a key without a row there keeps the log's value.
        vectors: Representations that the log holds, name -> (R, d) float32.
    """

    numbers: np.ndarray
    plain: Mapping[str, pa.Array]
    moving: Mapping[str, pa.Array]
    tables: Mapping[str, pa.Array]
    vectors: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, places: np.ndarray) -> LoggedRows:
        """Some of the rows, in order."""
        at = pa.array(places)

        def taken(columns: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
            return {name: column.take(at) for name, column in columns.items()}

        return replace(
            self,
            numbers=self.numbers[places],
            plain=taken(self.plain),
            moving=taken(self.moving),
            tables=taken(self.tables),
            vectors={name: values[places] for name, values in self.vectors.items()},
        )

    def offline(self, spec: FeatureSpec, data: Path, encoder: Encoder) -> dict[str, Any]:
        """What the encoder reads, as training would have: tables and moving features its own.

        Args:
            spec: The feature spec.
            data: `OUT/data`.
            encoder: The run's encoder.
        """
        return complete(spec, data, encoder, {**self.plain, **self.tables})

    def served(self, offline: Mapping[str, Any]) -> dict[str, Any]:
        """What the server was asked with: `offline` where the log holds nothing else."""
        return {**offline, **self.plain, **self.moving}


def read_logged_rows(
    spec: FeatureSpec, data: Path, path: Path, representations: Mapping[str, int]
) -> LoggedRows:
    """Reads a log.

    Args:
        spec: The feature spec.
        data: `OUT/data`.
        path: CSV, Parquet or TFRecord, see `read_requests`; it may hold moving columns and
            representations as well.
        representations: Name -> width of those that the model's requests hold.

    Raises:
        UserError: The file cannot be read, lacks a column, or holds a vector of another width.
    """
    plain = read_requests(spec, data, path)
    files = RowFiles(spec, [path])
    present = files.present
    kinds: dict[str, ColumnType] = {}
    for name, feature in spec.features.items():
        if isinstance(feature, StatisticFeature):
            kinds.update(dict.fromkeys(feature.raw_columns(name), "float"))
        elif is_moving(feature):
            kinds[name] = "strings"
    moving = _read(files, {c: k for c, k in kinds.items() if c in present})
    stored = _read(files, {n: "floats" for n in representations if n in present})
    vectors = {n: raw_values.vectors(v, representations[n], n) for n, v in stored.items()}
    rows = len(plain[spec.keys.user])
    if not rows:
        raise UserError("The log holds no row.", received=str(path), fix="give a log with rows")
    tables = _of_tables(spec, data, plain, present)
    return LoggedRows(np.arange(rows), plain, moving, tables, vectors)


def _read(files: RowFiles, columns: Mapping[str, ColumnType]) -> Mapping[str, pa.Array]:
    return arrays(files.read(columns, markers=False)) if columns else {}


def _of_tables(
    spec: FeatureSpec, data: Path, rows: Mapping[str, pa.Array], present: Iterable[str]
) -> dict[str, pa.Array]:
    """The side tables' columns that the log holds too, by the rows' keys."""
    keys = spec.keys
    log_columns = {keys.user, keys.item, keys.time_column, keys.scenario}
    log_columns |= {*keys.user_parts, *keys.item_parts}
    log_columns |= {*spec.log.user_columns, *spec.log.item_columns}
    columns: dict[str, pa.Array] = {}
    for name, config in spec.tables.items():
        table = pq.read_table(data / "tables" / f"{file_name(name)}.parquet")
        key = rows[keys.user if config.owner == "user" else keys.item]
        position = pc.index_in(key, value_set=table[config.key].combine_chunks())
        known = pc.is_valid(position).to_numpy(zero_copy_only=False)
        at = pc.fill_null(position, 0).to_numpy(zero_copy_only=False).astype(np.int64)
        for column in table.column_names:
            if column not in present or column not in rows or column in log_columns:
                continue
            logged = rows[column]
            stored = table[column].combine_chunks()
            if isinstance(stored, pa.ChunkedArray):
                stored = stored.combine_chunks()
            both = pa.concat_arrays([stored.cast(logged.type), logged])
            places = np.where(known, at, len(stored) + np.arange(len(logged)))
            columns.setdefault(column, both.take(pa.array(places)))
    return columns
