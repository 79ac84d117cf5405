"""New raw rows, completed to what the encoder reads: side tables, statistics, sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lfm4ads_tf.data.join_checks import warn_few_joined
from lfm4ads_tf.data.list_checks import check_lists
from lfm4ads_tf.data.older_texts import warn_older_texts
from lfm4ads_tf.data.raw import arrays, feature_columns
from lfm4ads_tf.data.row_files import RowFiles
from lfm4ads_tf.data.sources.convert import ColumnType
from lfm4ads_tf.data.sources.places import Places
from lfm4ads_tf.data.state import FrozenState, request_columns
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.file_names import file_name


def read_requests(spec: FeatureSpec, data: Path, path: Path) -> dict[str, pa.Array]:
    """Reads new rows and joins the side tables' columns that they lack.

    Args:
        spec: The feature spec.
        data: `OUT/data`, whose `tables/` holds the side tables of the training run.
        path: CSV, Parquet or TFRecord with the user and item keys and the log's columns; labels
            and time are not needed. A joined key or a vector of columns may be there as it is or
            in its parts. A CSV file has a header line unless the log has none.

    Raises:
        UserError: The file cannot be read or lacks a column.
    """
    warn_older_texts(data)
    files = RowFiles(spec, [path])
    present = files.present
    wanted: dict[str, ColumnType] = {spec.keys.user: "string", spec.keys.item: "string"}
    # Keys stay text, whatever a feature reads them as: tables are joined by text.
    wanted = {**feature_columns(spec), **wanted}
    stored_in = data / "tables"
    sides = {n: pq.read_table(stored_in / f"{file_name(n)}.parquet") for n in spec.tables}
    stored = {c: name for name, table in reversed(sides.items()) for c in table.column_names}
    keys = (spec.keys.user, spec.keys.item)
    missing = [c for c in wanted if c not in present and (c in keys or c not in stored)]
    # Only to tell which rows are of a segment: they may be absent.
    segments = {of.by for of in spec.segments.values()} & {*present, *stored}
    wanted = {**dict.fromkeys(segments, "string"), **wanted}
    if missing:
        raise UserError(
            f"The rows lack the column '{missing[0]}', which the feature spec reads."
            + nearest(missing[0], present),
            received=f"columns {', '.join(present)}",
            fix=f"add it{files.told(missing[0])} (an empty value means missing)",
        )
    table = files.read({c: t for c, t in wanted.items() if c in present})
    rows = arrays(table)
    with Places.of(table).named():
        check_lists(spec, rows)
    for name, side in sides.items():
        config = spec.tables[name]
        key = spec.keys.user if config.owner == "user" else spec.keys.item
        position = pc.index_in(rows[key], value_set=side[config.key].combine_chunks())
        taken = [c for c in side.column_names if c in wanted and c not in rows]
        warn_few_joined(spec, {name: side.select([config.key, *taken])}, rows)
        for column in taken:
            rows[column] = side[column].combine_chunks().take(position)
    return rows


def complete(
    spec: FeatureSpec, data: Path, encoder: Encoder, rows: dict[str, pa.Array]
) -> dict[str, Any]:
    """Adds the moving features as of the end of training: all that the encoder reads."""
    state = FrozenState(data / "state")
    return {**rows, **request_columns(spec, state, rows, encoder)}
