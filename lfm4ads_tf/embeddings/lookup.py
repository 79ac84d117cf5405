"""Ids of a batch to fields, one gather per treatment of a physical table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from lfm4ads_tf.embeddings import table_shards
from lfm4ads_tf.embeddings.embedded_feature import EmbeddedFeature
from lfm4ads_tf.embeddings.fused_table import FusedTable
from lfm4ads_tf.embeddings.placement.server import on_server
from lfm4ads_tf.graph_checks import graph_assert
from lfm4ads_tf.kernels.lookup import lookup_rows

Bags = Mapping[str, tuple[tf.RaggedTensor, tf.RaggedTensor | None]]


def single_fields(
    fused: FusedTable,
    parts: Sequence[tf.Variable],
    ids: tf.Tensor,
    sets: int,
    training: bool = False,
) -> tf.Tensor:
    """Fields of the single-valued features.

    Args:
        fused: The physical table.
        parts: Its shards.
        ids: (B, F_all) int64, the single-valued features of the whole layer; -1 is missing.
        sets: Sets K per row.
        training: Whether compiled kernels may be used; an exported graph holds none.

    Returns:
        (B, F, K, D) float32 in the order of `fused.single`.
    """
    if fused.columns != list(range(int(ids.shape[1]))):
        ids = tf.gather(ids, fused.columns, axis=1)  # (B, F)
    offsets, sizes = fused.limits(fused.single)
    hashed = [i for i, f in enumerate(fused.single) if fused.config(f).hashing is not None]
    if training and not hashed and len(parts) == 1 and not on_server(parts[0]):
        spread = fused.spread
        values = lookup_rows(
            parts[0], ids, offsets.tolist(), sizes.tolist(), spread.multiplier, spread.shift
        )
        if values is not None:
            return tf.reshape(values, [-1, len(offsets), sets, fused.dim])  # (B, F, K, D)
    lowest, highest = tf.reduce_min(ids, axis=0), tf.reduce_max(ids, axis=0)  # (F,)
    inside = tf.reduce_all((lowest >= -1) & (highest < sizes))
    _assert_inside(inside, fused.single, sizes, lowest, highest)
    if not hashed:
        rows = fused.spread.forward_tensor(tf.where(ids < 0, sizes, ids) + offsets)  # (B, F)
        values = table_shards.read_shards(parts, tf.reshape(rows, [-1]))  # (B*F, K*D)
        return tf.reshape(values, [-1, len(offsets), sets, fused.dim])  # (B, F, K, D)

    plain = [i for i in range(len(fused.single)) if i not in hashed]
    columns = [tf.where(ids[:, i] < 0, sizes[i], ids[:, i]) + offsets[i] for i in plain]
    seconds = []
    for i in hashed:
        config = fused.config(fused.single[i])
        assert config.hashing is not None  # by the choice of `hashed`
        missing = ids[:, i] < 0
        first, second = config.hashing.rows(tf.maximum(ids[:, i], 0))
        # the missing id's row once: the second read gets the weight 0 below
        columns.append(tf.where(missing, np.int64(config.stored_rows), first) + offsets[i])
        seconds.append(second + offsets[i])
    rows = fused.spread.forward_tensor(tf.stack(columns + seconds, axis=1))  # (B, F + H)
    values = table_shards.read_shards(parts, tf.reshape(rows, [-1]))  # ((B (F + H)), K*D)
    values = tf.reshape(values, [-1, len(columns) + len(seconds), sets, fused.dim])
    present = tf.cast(tf.gather(ids, hashed, axis=1) >= 0, values.dtype)  # (B, H)
    second_values = values[:, len(columns) :] * present[:, :, tf.newaxis, tf.newaxis]
    made = tf.concat(
        [values[:, : len(plain)], values[:, len(plain) : len(columns)] + second_values], axis=1
    )  # (B, F, K, D), hashed features last
    order = np.argsort(plain + hashed)
    return made if list(order) == list(range(len(order))) else tf.gather(made, order, axis=1)


def pooled_fields(
    fused: FusedTable, parts: Sequence[tf.Variable], bags: Bags, batch: tf.Tensor, sets: int
) -> tf.Tensor:
    """Weighted sums and means of the bags.

    Args:
        fused: The physical table.
        parts: Its shards.
        bags: Feature -> ids and weights.
        batch: B, () int64.
        sets: Sets K per row.

    Returns:
        (B, F, K, D) float32 in the order of `fused.pooled`; zeros for a mean over weights of 0.
    """
    features = fused.pooled
    ids, feature, segment = _flat(fused, features, bags, batch)
    if any(bags[f.name][1] is not None for f in features):
        weights = tf.concat([_weights(f.name, *bags[f.name]) for f in features], axis=0)  # (N,)
    else:
        weights = tf.ones_like(ids, tf.float32)  # (N,)
    # a dropped id reads its table's row 0 with weight 0: the gradient is exactly zero, which
    # the optimizer leaves alone
    weights = tf.where(ids < 0, 0.0, weights)
    count = len(features)
    rows, value = _rows(fused, features, tf.maximum(ids, 0), feature)
    owner, scale = segment, weights
    if value is not None:
        owner, scale = tf.gather(segment, value), tf.gather(weights, value)
    values = (
        table_shards.read_shards(parts, fused.spread.forward_tensor(rows)) * scale[:, tf.newaxis]
    )
    sums = tf.math.unsorted_segment_sum(values, owner, batch * count)  # (B*F, K*D)
    sums = tf.reshape(sums, [-1, count, sets, fused.dim])  # (B, F, K, D)
    means = [f.combiner == "mean" for f in features]
    if not any(means):
        return sums
    totals = tf.math.unsorted_segment_sum(weights, segment, batch * count)  # (B*F,)
    totals = tf.reshape(totals, [-1, count])  # (B, F)
    totals = tf.where(tf.constant(means), totals, tf.ones_like(totals))
    return tf.math.divide_no_nan(sums, totals[:, :, tf.newaxis, tf.newaxis])


def max_fields(
    fused: FusedTable, parts: Sequence[tf.Variable], bags: Bags, batch: tf.Tensor, sets: int
) -> tf.Tensor:
    """Element-wise maxima of the bags, (B, F, K, D) in the order of `fused.maxed`; 0 if empty.

    Raises:
        ValueError: A bag comes with weights.
    """
    features = fused.maxed
    for f in features:
        if bags[f.name][1] is not None:
            raise ValueError(f"Feature '{f.name}' takes a maximum, which knows no weights.")
    ids, feature, segment = _flat(fused, features, bags, batch)
    offsets, _ = fused.limits(features)
    kept = tf.where(ids >= 0)[:, 0]  # (M,)
    ids, feature, segment = (tf.gather(t, kept) for t in (ids, feature, segment))
    rows = fused.spread.forward_tensor(ids + tf.gather(offsets, feature))
    values = table_shards.read_shards(parts, rows)  # (M, K*D)
    segments = batch * len(features)
    highest = tf.math.unsorted_segment_max(values, segment, segments)  # (B*F, K*D)
    filled = tf.math.unsorted_segment_sum(tf.ones_like(segment), segment, segments) > 0
    highest = tf.where(filled[:, tf.newaxis], highest, 0.0)
    return tf.reshape(highest, [-1, len(features), sets, fused.dim])  # (B, F, K, D)


def _flat(
    fused: FusedTable, features: Sequence[EmbeddedFeature], bags: Bags, batch: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """All values of some bags: id, feature and (example, feature) of each, all (N,)."""
    count = len(features)
    ragged = [bags[f.name][0] for f in features]
    ids = tf.concat([tf.cast(r.flat_values, tf.int64) for r in ragged], axis=0)  # (N,)
    splits = tf.stack([tf.cast(r.row_splits, tf.int64) for r in ragged])  # (F, B + 1)
    # One op per kind however many bags: ends[i] is where list i = feature * B + example ends, and
    # a value's list is the number of ends at or before it.
    ends = tf.cumsum(tf.reshape(splits[:, 1:] - splits[:, :-1], [-1]))  # (F*B,)
    values = tf.size(ids, out_type=tf.int64)
    ended = tf.math.unsorted_segment_sum(tf.ones_like(ends), ends, values + 1)  # (N + 1,)
    owner = tf.cumsum(ended)[:-1]  # (N,)
    feature, example = owner // batch, owner % batch
    _, sizes = fused.limits(features)
    inside = tf.reduce_all((ids >= -1) & (ids < tf.gather(sizes, feature)))
    _assert_inside(inside, features, sizes, tf.reduce_min(ids), tf.reduce_max(ids))
    return ids, feature, example * count + feature  # example-major: no transpose follows


def _rows(
    fused: FusedTable, features: Sequence[EmbeddedFeature], ids: tf.Tensor, feature: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Stacked rows to read, and the value that each belongs to where some values take two reads."""
    offsets, _ = fused.limits(features)
    hashings = [fused.config(f).hashing for f in features]
    if not any(hashings):
        return ids + tf.gather(offsets, feature), None
    plain = tf.where(tf.gather(tf.constant([h is None for h in hashings]), feature))[:, 0]
    rows = [tf.gather(ids, plain) + tf.gather(offsets, tf.gather(feature, plain))]
    values = [plain]
    for i, hashing in enumerate(hashings):
        if hashing is not None:
            mine = tf.where(feature == i)[:, 0]
            for found in hashing.rows(tf.gather(ids, mine)):
                rows.append(found + offsets[i])
                values.append(mine)
    return tf.concat(rows, axis=0), tf.concat(values, axis=0)


def _weights(name: str, ids: tf.RaggedTensor, weights: tf.RaggedTensor | None) -> tf.Tensor:
    """Flat float32 weights of a bag, ones if there are none."""
    if weights is None:
        return tf.ones_like(ids.flat_values, tf.float32)
    same = tf.debugging.assert_equal(
        ids.row_splits, weights.row_splits, message=f"Feature '{name}': ids and weights differ."
    )
    with tf.control_dependencies([same] if same is not None else []):
        return tf.cast(weights.flat_values, tf.float32)


def _assert_inside(
    inside: tf.Tensor,
    features: Sequence[EmbeddedFeature],
    sizes: np.ndarray,
    lowest: tf.Tensor,
    highest: tf.Tensor,
) -> None:
    """Stops the step where an id would read a row of another table."""
    names = [feature.name for feature in features]
    message = f"An embedding id lies outside [-1, rows) of its table. Features {names}, rows:"
    data = [message, tf.constant(sizes), "lowest ids:", lowest, "highest ids:", highest]
    graph_assert(inside, data, summarize=len(names))
