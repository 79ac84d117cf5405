"""Row-sparse updates: by compiled kernels where they are built, else by TensorFlow's own ops."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from lfm4ads_tf.embeddings.placement.server import on_server
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

    Where the table lies on a parameter server, the duplicates are summed before they are sent,
    and several workers may move a row at once: the compiled op takes one update after the other.
    Without it the worker reads the rows and sends differences, which the server adds: none is
    lost, though a rule whose slots do not add up, such as Adam's, may start from values that
    another worker has moved meanwhile. A table of 16 bits adds a difference rounded to 16 bits.

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
    indices, values = tf.cast(gradient.indices, tf.int64), gradient.values
    if on_server(table):  # here, so that a row is sent once; the op sums what it is given
        indices, values = sum_duplicates(gradient)
    ops.lfm4ads_update_rows(
        table=table.handle,
        slots=[slot.handle for slot in slots],
        indices=indices,
        values=values,
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
        if on_server(variable):
            _add_difference(variable, rows, old, new, touched)
            continue
        kept = tf.where(touched, new, old)
        flat = tf.reshape(kept, [-1, variable.shape[1]])  # (U, K*D)
        variable.scatter_update(tf.IndexedSlices(tf.cast(flat, variable.dtype), rows))


def _add_difference(
    variable: tf.Variable, rows: tf.Tensor, old: tf.Tensor, new: tf.Tensor, touched: tf.Tensor
) -> None:
    """Moves rows of a server by new - old, whatever others have added since `old` was read.

    Args:
        variable: (rows, K * D), on a server.
        rows: Distinct rows, (U,).
        old, new: Their values as they were read and as they are wanted, (U, K, D) float32.
        touched: Which sets are moved, (U, K, 1).
    """
    # as it would be stored, so that a table of 16 bits is rounded as on one machine
    stored = tf.cast(tf.cast(new, variable.dtype), tf.float32)
    # -0 and not 0: only -0 + -0 is -0, and an untouched set keeps its bits
    difference = tf.where(touched, stored - old, -0.0)
    flat = tf.reshape(difference, [-1, variable.shape[1]])  # (U, K*D)
    # this op locks the variable; `scatter_add` shares the lock and may lose an addition
    tf.raw_ops.ResourceScatterNdAdd(
        ref=variable.handle,
        indices=rows[:, tf.newaxis],
        updates=tf.cast(flat, variable.dtype),
        use_locking=True,
    )


def sum_duplicates(gradient: tf.IndexedSlices) -> tuple[tf.Tensor, tf.Tensor]:
    """Distinct rows (U,) of a gradient and their summed values (U, width)."""
    ops = library()
    if ops is not None:
        indices = tf.cast(gradient.indices, tf.int64)
        return ops.lfm4ads_sum_duplicates(indices=indices, values=gradient.values)
    rows, index = tf.unique(gradient.indices)
    return rows, tf.math.unsorted_segment_sum(gradient.values, index, tf.size(rows))
