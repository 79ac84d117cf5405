"""Row-sparse updates: by compiled kernels where they are built, else by TensorFlow's own ops."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from lfm4ads_tf.kernels.library import library
from lfm4ads_tf.optim.rules.rule import RowRule


def update_rows(
    rule: RowRule,
    table: tf.Variable,
    slots: Sequence[tf.Variable],
    gradient: tf.IndexedSlices,
    learning_rate: tf.Tensor,
    *,
    sets: int,
    l2: float = 0.0,
) -> None:
    """Sums a gradient's duplicates and applies a rule to the touched rows and sets, in place.

    A set of a row whose summed gradient is all zero keeps its weights and slots bit by bit.

    Args:
        rule: The update rule.
        table: (rows, K * D), float32, bfloat16 or float16.
        slots: The rule's slots, (rows, K * D) or (rows, K) float32.
        gradient: Rows (N,) and values (N, K * D) float32, rows repeated as they come.
        learning_rate: () float32.
        sets: Sets K per row.
        l2: Adds l2 * w to the gradient of the touched rows and sets.
    """
    ops, options = library(), rule.compiled_options
    if ops is None or options is None:
        _update_with_stock_ops(rule, table, slots, gradient, learning_rate, sets, l2)
        return
    ops.lfm4ads_update_rows(
        table=table.handle,
        slots=[slot.handle for slot in slots],
        indices=tf.cast(gradient.indices, tf.int64),
        values=gradient.values,
        learning_rate=learning_rate,
        sets=sets,
        per_element=[slot.per_element for slot in rule.slots],
        rule=rule.name,
        options=list(options),
        l2=l2,
    )


def _update_with_stock_ops(
    rule: RowRule,
    table: tf.Variable,
    slots: Sequence[tf.Variable],
    gradient: tf.IndexedSlices,
    learning_rate: tf.Tensor,
    sets: int,
    l2: float,
) -> None:
    rows, summed = sum_duplicates(gradient)

    def by_set(values: tf.Tensor) -> tf.Tensor:
        width = int(values.shape[1]) // sets
        return tf.reshape(tf.cast(values, tf.float32), [-1, sets, width])  # (U, K, D)

    summed = by_set(summed)
    touched = tf.reduce_any(summed != 0.0, axis=-1, keepdims=True)  # (U, K, 1)
    weights = by_set(tf.gather(table, rows))
    states = tuple(by_set(tf.gather(slot, rows)) for slot in slots)
    pull = summed + l2 * weights if l2 else summed
    after, new_states = rule.update(weights, states, pull, learning_rate)
    for variable, old, new in zip(
        (table, *slots), (weights, *states), (after, *new_states), strict=True
    ):
        kept = tf.where(touched, new, old)
        flat = tf.reshape(kept, [-1, variable.shape[1]])  # (U, K*D)
        variable.scatter_update(tf.IndexedSlices(tf.cast(flat, variable.dtype), rows))


def sum_duplicates(gradient: tf.IndexedSlices) -> tuple[tf.Tensor, tf.Tensor]:
    """Distinct rows (U,) of a gradient and their summed values (U, width)."""
    ops = library()
    if ops is not None:
        indices = tf.cast(gradient.indices, tf.int64)
        return ops.lfm4ads_sum_duplicates(indices=indices, values=gradient.values)
    rows, index = tf.unique(gradient.indices)
    return rows, tf.math.unsorted_segment_sum(gradient.values, index, tf.size(rows))
