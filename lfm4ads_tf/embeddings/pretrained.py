"""Fills a table with vectors made elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from lfm4ads_tf.embeddings import table_shards
from lfm4ads_tf.embeddings.config import TablePretrained
from lfm4ads_tf.embeddings.coverage import Coverage
from lfm4ads_tf.embeddings.table import ShardedEmbedding
from lfm4ads_tf.embeddings.vector_file import read_vectors
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.key_match import KeyMatch

_NAMED = 10


def load_pretrained(
    layer: ShardedEmbedding, table: str, keys: Sequence[str | None], source: TablePretrained
) -> Coverage:
    """Writes the vectors of a file into the rows of their keys.

    The file is read in slices; rows whose key the table does not have are passed over unread. A
    vector of the table's width D goes into every set of its row, one of K * D is cut into the K
    sets. Ids without a vector keep their initial values, as does the missing id.

    Args:
        layer: The layer.
        table: One of its logical tables, without `hashing`.
        keys: Raw value of each id, in the order of the ids; None for an id that stands for no
            single value, such as out of vocabulary.
        source: The file, see `read_vectors`.

    Returns:
        Which keys the file does not have.

    Raises:
        UserError: The file cannot be read, a key of the table occurs twice in it, a vector has
            another width or a number that is not finite in the table's storage, fewer keys than
            `min_coverage` are found, or the table has several rows per id. The table may be
            partly written then.
        ValueError: There is no key for some id, or one key for two ids.
    """
    config, fused = layer.layout.table(table), layer.layout.home(table)
    if config.hashing is not None:
        raise UserError(
            f"Table '{table}' has several hashes per id, so no row that a vector belongs to.",
            fix="remove `hashing` or `pretrained` from the table",
        )
    id_of = {key: i for i, key in enumerate(keys) if key is not None}
    named = sum(key is not None for key in keys)
    if len(keys) != config.rows or len(id_of) != named:
        raise ValueError(
            f"Table '{table}' has {config.rows} ids, received {len(keys)} keys, {named} of them "
            f"not None and {len(id_of)} distinct."
        )
    widths = (config.dim, layer.sets * config.dim)
    kept = tf.float32 if config.storage == "int8" else tf.as_dtype(config.storage)
    largest = float(kept.max)
    loaded = np.zeros(config.rows, bool)
    first: pa.Array = pa.array([], pa.string())  # the file's first keys, for messages
    for texts, vectors in read_vectors(source):
        first = first if len(first) else texts
        names = texts.to_pylist()
        wanted = [i for i, name in enumerate(names) if name in id_of]
        if not wanted:
            continue
        ids = np.array([id_of[names[i]] for i in wanted], np.int64)
        _refuse_twice(source, keys, ids, loaded)
        loaded[ids] = True
        values = _matrix(vectors, np.array(wanted), widths, source, table)  # (N, W)
        finite = (np.abs(values) <= largest).all(axis=1)
        if not finite.all():
            raise UserError(
                f"A pretrained vector of '{source.file}' is not finite as {config.storage}.",
                received=f"the vector of key '{keys[ids[np.argmin(finite)]]}'",
                fix="correct the file, or remove the row",
            )
        if values.shape[1] != widths[1]:
            values = np.tile(values, layer.sets)  # (N, K*D), the sets alike
        rows = fused.spread.forward(ids + fused.offsets[table])
        table_shards.scatter_rows(layer.parts(fused.name), rows, values)
    lacking = [key for key, has in zip(keys, loaded, strict=True) if not has and key is not None]
    hint = ""
    if 2 * len(lacking) > named:
        match = KeyMatch.of(pa.array(list(id_of), pa.string()), first)
        hint = match.examples("the table", "the file")
    coverage = Coverage(table, named, len(lacking), tuple(lacking[:_NAMED]), hint)
    if coverage.share < source.min_coverage:
        raise UserError(
            f"'{source.file}' has vectors for too few keys of a table.",
            received=f"{coverage}; a share of {coverage.share:.4g}",
            fix=f"give the missing vectors, or lower min_coverage below {source.min_coverage:g}",
        )
    return coverage


def _refuse_twice(
    source: TablePretrained, keys: Sequence[str | None], ids: np.ndarray, loaded: np.ndarray
) -> None:
    """Refuses ids that were loaded before or occur twice."""
    distinct, counts = np.unique(ids, return_counts=True)
    twice = distinct[(counts > 1) | loaded[distinct]]
    if len(twice):
        raise UserError(
            f"'{source.file}' has several vectors for one key.",
            received=f"key '{keys[twice[0]]}'",
            fix="keep one row per key",
        )


def _matrix(
    vectors: Any,
    wanted: np.ndarray,
    widths: tuple[int, int],
    source: TablePretrained,
    table: str,
) -> np.ndarray:
    """Some rows of vectors as one matrix, (N, W) float32; NaN where a number is missing."""
    if isinstance(vectors, np.ndarray):
        taken = np.asarray(vectors[wanted])
        given_widths = {taken.shape[1]}
    else:
        lists = vectors.take(pa.array(wanted))
        lengths = pc.fill_null(pc.list_value_length(lists), 0)
        given_widths = set(pc.unique(lengths).to_pylist())
        flat = lists.flatten().cast(pa.float64(), safe=False)
        taken = np.asarray(flat.to_numpy(zero_copy_only=False))  # (N * W,)
    if len(given_widths) != 1 or not given_widths <= set(widths):
        accepted = " or ".join(str(width) for width in dict.fromkeys(widths))
        raise UserError(
            f"The vectors of '{source.file}' do not fit into table '{table}'.",
            received=f"{', '.join(str(width) for width in sorted(given_widths))} numbers",
            fix=f"give vectors of {accepted} numbers, or set the table's `dim`",
        )
    with np.errstate(over="ignore"):
        return taken.reshape(len(wanted), -1).astype(np.float32)  # (N, W)
