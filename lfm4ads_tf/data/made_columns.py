"""Columns that a table is read with but does not hold: joined keys, and vectors of columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lfm4ads_tf.data.sources.convert import ColumnType
from lfm4ads_tf.data.sources.origin import Origin
from lfm4ads_tf.data.sources.places import Places
from lfm4ads_tf.data.sources.table import read_table
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.joined_keys import joined_texts
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.vector_columns import settled_vectors


@dataclass(frozen=True)
class Made:
    """What is made of the columns of a table.

    Attributes:
        joined: Key -> columns whose texts it joins.
        vectors: Column of vectors -> columns with one number each.
    """

    joined: Mapping[str, Sequence[str]]
    vectors: Mapping[str, Sequence[str]]

    def beside(self, header: Collection[str]) -> Made:
        """Without what a file holds itself, as a log of requests does."""
        return Made(
            {k: v for k, v in self.joined.items() if k not in header},
            {k: v for k, v in self.vectors.items() if k not in header},
        )

    def extended(self, header: Sequence[str]) -> list[str]:
        """The columns of a file, and behind them what can be made of them."""
        made = {**self.joined, **self.vectors}
        return [*header, *(n for n, of in made.items() if n not in header and {*of} <= {*header})]

    def told(self, column: str) -> str:
        """What a column is made of, for a message; nothing for a column that is not made."""
        of = {**self.joined, **self.vectors}.get(column, ())
        return f", or all of {', '.join(of)}, of which it is made" if of else ""

    def refuse_held(self, path: Path, header: Collection[str]) -> None:
        """Refuses a column that is called as one that is made.

        Raises:
            UserError: The file holds such a column.
        """
        for name, of in {**self.joined, **self.vectors}.items():
            if name in header and {*of} <= {*header}:
                raise UserError(
                    f"The column '{name}' would stand for two things: '{path}' holds it, and the "
                    "feature spec makes it of others.",
                    received=f"{len(of)} columns, {', '.join(of[:5])}{', ...' * (len(of) > 5)}",
                    fix="rename the column in the file, or name it alone in the feature spec",
                )


def made_of_log(spec: FeatureSpec) -> Made:
    """What is made of the columns of the log, and of rows that are like it."""
    return Made(spec.keys.joined, settled_vectors(spec))


def made_of_table(spec: FeatureSpec, name: str) -> Made:
    """What is made of the columns of a side table."""
    table = spec.tables[name]
    joined = {table.key: table.key_parts} if table.key_parts else {}
    return Made(joined, settled_vectors(spec))


def read_made(
    made: Made,
    paths: Sequence[Path],
    columns: Mapping[str, ColumnType],
    *,
    complete: bool = True,
    times: Mapping[str, bool] | None = None,
    **options: Any,
) -> pa.Table:
    """Reads typed columns of a table, some of them made of others.

    Args:
        made: What is made.
        paths, columns, times, options: See `read_table`.
        complete: Whether every row must have all parts of a joined key; where it must not, a row
            that lacks one has no key.

    Returns:
        What `read_table` gives, with a joined key as text and a vector as a list of numbers, in
        which a missing number is 0.

    Raises:
        UserError: As `read_table`; or a part of a key is missing, its file and row are named.
    """
    joined = {name: sources for name, sources in made.joined.items() if name in columns}
    vectors = {name: sources for name, sources in made.vectors.items() if name in columns}
    if not joined and not vectors:
        return read_table(paths, columns, times=times, **options)
    plain: dict[str, ColumnType] = {
        c: kind for c, kind in columns.items() if c not in joined and c not in vectors
    }
    parts: dict[str, ColumnType] = {c: "string" for sources in joined.values() for c in sources}
    table = read_table(paths, {**plain, **parts}, times=times, **options)
    unwanted = parts.keys() - plain.keys()
    arrays = {name: table[name] for name in table.column_names if name not in unwanted}
    for name, sources in joined.items():
        for source in sources if complete else ():
            if table[source].null_count:
                raise _missing_part(name, source, table[source], Places.of(table))
        arrays[name] = pa.chunked_array(
            [joined_texts([_whole(table[source]) for source in sources])]
        )
    if vectors:
        # Read apart: another feature may read one of the columns as text.
        options.pop("constants", None)
        numbers: dict[str, ColumnType] = {
            c: "float" for sources in vectors.values() for c in sources
        }
        held = read_table(paths, numbers, **options)
        for name, sources in vectors.items():
            arrays[name] = pa.chunked_array([_vectors([held[c] for c in sources])])
    rest = [name for name in arrays if name not in columns]
    made_of = pa.table({name: arrays[name] for name in [*columns, *rest]})
    return made_of.replace_schema_metadata(table.schema.metadata)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    array = column.combine_chunks()
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _vectors(columns: Sequence[pa.ChunkedArray]) -> pa.Array:
    """One list per row of the numbers of some columns, (N,) lists of N numbers each."""
    numbers = np.stack(
        [pc.fill_null(_whole(c), 0.0).to_numpy(zero_copy_only=False) for c in columns], axis=1
    )  # (N, size)
    offsets = np.arange(len(numbers) + 1, dtype=np.int32) * len(columns)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(numbers.reshape(-1)))


def _missing_part(key: str, part: str, values: pa.ChunkedArray, places: Places) -> UserError:
    """The error for the first row that lacks a part of its key."""
    path, row = places.find(pc.index(pc.is_null(values), True).as_py())
    return Origin(path, part).error(
        f"is a part of the key '{key}' and is empty",
        row,
        None,
        "fill it in, or remove the rows without a user or item",
    )
