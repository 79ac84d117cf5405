"""The state of the moving features, continued with the events of one more period."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lfm4ads_tf.data.state import (
    join_keys,
    placeholder_columns,
    statistic_key,
    write_sequence,
    write_statistic,
)
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.kinds import SequenceFeature, StatisticFeature
from lfm4ads_tf.features.offline import encode_columns
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.file_names import file_name


def advance_state(
    folder: Path,
    spec: FeatureSpec,
    columns: Mapping[str, pa.Array],
    feedback: np.ndarray,
    encoder: Encoder,
) -> None:
    """Adds events to the state that `write_statistic` and `write_sequence` wrote.

    Args:
        folder: Where the state is; its files are replaced.
        spec: The feature spec.
        columns: Raw columns of the events, in time order (N,).
        feedback: Labels, then signals, (N, T + S), NaN where unknown.
        encoder: Gives the ids of features that are keys of statistics.
    """
    place = {name: k for k, name in enumerate(spec.feedback)}
    rows = len(columns[spec.keys.user])
    encoded = encode_columns(encoder, {**columns, **placeholder_columns(spec, rows)})
    ids = {f.name: encoded["ids"][:, k] for k, f in enumerate(encoder.layout.single)}
    for name, feature in spec.features.items():
        if isinstance(feature, StatisticFeature) and feature.events != "auxiliary":
            keys = [statistic_key(spec, key, columns, ids) for key in feature.keys]
            _add_counts(folder, name, join_keys(keys), feedback[:, place[feature.task]])
        elif isinstance(feature, SequenceFeature) and feature.events_of is not None:
            positive = pa.array(feedback[:, place[feature.events_of]] == 1)
            users = columns[spec.keys.user].filter(positive)
            items = columns[spec.keys.item].filter(positive)
            _add_items(folder, name, users, items, feature.max_length)


def _add_counts(folder: Path, name: str, keys: pa.Array, labels: np.ndarray) -> None:
    old = pq.read_table(folder / f"{file_name(name)}.parquet")
    known = np.isfinite(labels) & pc.is_valid(keys).to_numpy(zero_copy_only=False)
    new = keys.filter(pa.array(known))
    every = pa.concat_arrays([old["key"].combine_chunks(), pc.cast(new, old["key"].type)])
    codes = every.dictionary_encode()
    index = codes.indices.to_numpy(zero_copy_only=False)
    size = len(codes.dictionary)
    n = np.concatenate([old["n"].to_numpy(), np.ones(len(new), np.int64)])
    s = np.concatenate([old["s"].to_numpy(), labels[known].astype(np.float64)])
    # Sums of whole numbers below 2^53 are exact.
    n = np.bincount(index, n, minlength=size).astype(np.int64)
    s = np.bincount(index, s, minlength=size)
    total = int(n.sum())
    prior = float(s.sum() / total) if total else 0.5
    write_statistic(folder, name, [codes.dictionary], n, s, prior)


def _add_items(folder: Path, name: str, users: pa.Array, items: pa.Array, most: int) -> None:
    old = pq.read_table(folder / f"{file_name(name)}.parquet")
    lists = old["items"].combine_chunks()
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    keys = old["user"].combine_chunks()
    fresh = users.filter(pc.invert(pc.is_in(users, value_set=keys))).unique()
    keys = pa.concat_arrays([keys, fresh])
    flat = pa.concat_arrays([lists.flatten(), items])
    owner = pc.index_in(users, value_set=keys).to_numpy(zero_copy_only=False)
    owner = np.concatenate([np.repeat(np.arange(len(lengths)), lengths), owner]).astype(np.int64)
    order = np.argsort(owner, kind="stable")  # each user's items in time order
    counts = np.bincount(owner, minlength=len(keys))
    ends = np.cumsum(counts)
    kept = order[np.arange(len(order)) >= np.repeat(ends - most, counts)]
    splits = np.concatenate([[0], np.cumsum(np.minimum(counts, most))])
    taken = pa.ListArray.from_arrays(pa.array(splits, pa.int32()), flat.take(pa.array(kept)))
    write_sequence(folder, name, keys, taken)
