"""The state of the moving features at the end of training, joined to new rows by key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lfm4ads_tf.data.statistics import count_and_rate
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.kinds import SequenceFeature, StatisticFeature
from lfm4ads_tf.features.offline import encode_columns
from lfm4ads_tf.features.source_columns import key_aliases
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.value_texts import value_texts
from lfm4ads_tf.file_names import file_name

NEWEST = "newest"
"""Folder, within that of the state at the end of training, of the state after all rows."""
_SEPARATOR = "\x1f"


class FrozenState:
    """Statistics and event sequences at the end of training.

    Args:
        folder: What `write_statistic` and `write_sequence` wrote.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def statistic(
        self, name: str, feature: StatisticFeature, keys: list[pa.Array]
    ) -> dict[str, np.ndarray]:
        """The request columns of a statistic for some rows.

        Args:
            name: The feature.
            feature: Its declaration.
            keys: Text of each key, (B,) each, null where missing.

        Returns:
            Raw column -> (B,) float32.
        """
        table = pq.read_table(self._folder / f"{file_name(name)}.parquet")
        prior = json.loads(table.schema.metadata[b"statistic"])["prior"]
        joined = join_keys(keys)
        position = pc.index_in(joined, value_set=table["key"].combine_chunks())
        found = pc.fill_null(position, -1).to_numpy(zero_copy_only=False)
        known = (found >= 0) & ~pc.is_null(joined).to_numpy(zero_copy_only=False)
        n = np.where(known, table["n"].to_numpy()[found] if len(table) else 0, 0)
        s = np.where(known, table["s"].to_numpy()[found] if len(table) else 0, 0)
        values = dict(
            zip(("count", "rate"), count_and_rate(n, s, prior, feature.smoothing).T, strict=True)
        )
        return {c: values[c.rpartition(".")[2]] for c in feature.raw_columns(name)}

    def sequence(self, name: str, users: pa.Array) -> pa.ListArray:
        """The item keys of an event sequence for some users, (B,) lists of text."""
        table = pq.read_table(self._folder / f"{file_name(name)}.parquet")
        position = pc.index_in(users, value_set=table["user"].combine_chunks())
        taken = table["items"].combine_chunks().take(position)
        return pc.fill_null(taken, pa.scalar([], pa.list_(pa.string())))


def write_statistic(
    folder: Path, name: str, keys: list[pa.Array], n: np.ndarray, s: np.ndarray, prior: float
) -> None:
    """Writes a statistic's state: one row per key with its events n and positives s."""
    table = pa.table({"key": join_keys(keys), "n": n, "s": s})
    metadata = {b"statistic": json.dumps({"prior": prior}).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), folder / f"{file_name(name)}.parquet")


def write_sequence(folder: Path, name: str, users: pa.Array, items: pa.ListArray) -> None:
    """Writes an event sequence's state: one row per user with its last items."""
    pq.write_table(pa.table({"user": users, "items": items}), folder / f"{file_name(name)}.parquet")


def join_keys(keys: list[pa.Array]) -> pa.Array:
    """One text per row from several; null where any is."""
    if len(keys) == 1:
        return keys[0]
    return pc.binary_join_element_wise(*keys, _SEPARATOR, null_handling="emit_null")


def placeholder_columns(spec: FeatureSpec, rows: int) -> dict[str, Any]:
    """The moving features' request columns before they are known: zeros and empty lists."""
    columns: dict[str, Any] = {}
    for name, feature in spec.features.items():
        if isinstance(feature, StatisticFeature):
            columns.update(dict.fromkeys(feature.raw_columns(name), np.zeros(rows, np.float32)))
        elif isinstance(feature, SequenceFeature) and feature.events_of is not None:
            columns[name] = (np.array([], object), np.zeros(rows + 1, np.int64))
    return columns


def request_columns(
    spec: FeatureSpec, state: FrozenState, columns: Mapping[str, pa.Array], encoder: Encoder
) -> dict[str, Any]:
    """The moving features' request columns as of the end of training.

    Args:
        spec: The feature spec.
        state: The state at the end of training.
        columns: Raw columns (B,), keys included.
        encoder: Gives the ids of features that are keys of statistics.
    """
    rows = len(columns[spec.keys.user])
    encoded = encode_columns(encoder, {**columns, **placeholder_columns(spec, rows)})
    ids = {f.name: encoded["ids"][:, k] for k, f in enumerate(encoder.layout.single)}
    added: dict[str, Any] = {}
    for name, feature in spec.features.items():
        if isinstance(feature, StatisticFeature):
            keys = [statistic_key(spec, key, columns, ids) for key in feature.keys]
            added.update(state.statistic(name, feature, keys))
        elif isinstance(feature, SequenceFeature) and feature.events_of is not None:
            added[name] = state.sequence(name, columns[spec.keys.user])
    return added


def statistic_key(
    spec: FeatureSpec,
    key: str,
    columns: Mapping[str, pa.Array],
    feature_ids: Mapping[str, np.ndarray],
) -> pa.Array:
    """Text of one key of a statistic, null where missing."""
    if key in feature_ids:
        ids = feature_ids[key]
        return pc.cast(pa.array(ids, mask=ids < 0), pa.string())
    column = columns[key_aliases(spec).get(key, key)]
    texts = column if pa.types.is_string(column.type) else _texts(column)
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def _texts(column: pa.Array) -> pa.Array:
    """Texts of a column that was read as numbers.

    A 32-bit float of the file is a 64-bit one here; it gets the text that its file meant.
    """
    texts = value_texts(column)
    if column.type != pa.float64():
        return texts
    single = column.cast(pa.float32(), safe=False)
    same = pc.equal(single.cast(pa.float64()), column)
    return pc.if_else(same, value_texts(single), texts)
