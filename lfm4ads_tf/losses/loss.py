"""What a loss over the tasks is."""

from __future__ import annotations

from typing import Any, Protocol

import tensorflow as tf


class Loss(Protocol):
    """Labels and logits of a batch -> a scalar.

    A function or a callable object; the names of its options are those of its parameters after the
    first four, so that unknown ones are refused before training.
    """

    def __call__(
        self,
        labels: tf.Tensor,
        logits: tf.Tensor,
        task_weights: tf.Tensor,
        row_weights: tf.Tensor | None = None,
        /,
        **options: Any,
    ) -> tf.Tensor:
        """The loss of a batch.

        Args:
            labels: (B, T) of 0 and 1, NaN where unknown.
            logits: (B, T).
            task_weights: (T,).
            row_weights: (B,) or (B, T) factors of the rows' terms; None is 1 for all.
            **options: Of the loss.

        Returns:
            () float32.
        """
