"""Tokens that are equal slices of all fields together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.expert_bank import constant, stacked_glorot
from lfm4ads_tf.interactions.field_group import FieldGroup
from lfm4ads_tf.interactions.token_pieces import token_pieces, token_products
from lfm4ads_tf.rebuildable import Rebuildable


class SlicedTokens(Rebuildable, tf_keras.layers.Layer):
    """x_n = W_n e[n w : (n + 1) w] + b_n with e all fields side by side, zeros behind the end.

    Slices go through the fields, wherever those begin: the loose form, for comparison. Of fields of
    one row that stands for all, what they give is computed once.

    Args:
        count: Number of tokens N; w is the width of e divided by N, rounded up.
        dim: Width D of a token.
        seed: Seed of the initial weights.

    Source: RankMixer (arXiv 2507.15551), tokenisation as it is printed.
    """

    def __init__(self, count: int, dim: int, *, seed: int = 0, name: str = "sliced_tokens") -> None:
        super().__init__(name=name)
        self.count = count
        self.dim = dim
        self.seed = seed
        self.kernel: Any = None  # (N, w, D), once e was seen

    def call(self, fields: Sequence[FieldGroup]) -> list[tf.Tensor]:
        """Makes the tokens.

        Args:
            fields: Embeddings (B, F, K D) of the fields that stand side by side in e, those of a
                width and number of sets together; a group of one row stands for B equal ones.

        Returns:
            In the order of the tokens, each (n, B, D), or (n, 1, D) of tokens that are of one row.
        """
        kinds = [(group.width, group.sets) for group in fields]
        columns: dict[int, range] = {}  # group -> its columns of e
        end = 0
        # by width: the order does not depend on who holds which of them apart
        for g in sorted(range(len(fields)), key=lambda g: (kinds[g][0], kinds.index(kinds[g]))):
            columns[g] = range(end, end + len(fields[g].names) * fields[g].width)
            end = columns[g].stop
        if self.kernel is None:
            self._make(end)
        parts = []
        for one_row in (True, False):
            alike = [g for g in columns if (fields[g].values.shape[0] == 1) == one_row]
            if alike:
                places = [column for g in alike for column in columns[g]]
                flat = [tf.reshape(fields[g].values, [-1, len(columns[g])]) for g in alike]
                # Keras casts tensors that it sees, not those of a group
                values = tf.cast(tf.concat(flat, axis=-1), self.compute_dtype)  # (B, c)
                parts.append(self._part(values, places, 1 if one_row else None))
        return token_pieces(tf.convert_to_tensor(self.bias), parts)

    def _part(
        self, values: tf.Tensor, columns: Sequence[int], rows: int | None
    ) -> tuple[list[int], tf.Tensor]:
        """The tokens that read some columns of e, (B, c), and what those give them, (N', B, D)."""
        width = int(self.kernel.shape[1])
        readers = sorted({column // width for column in columns})
        source = {column: k for k, column in enumerate(columns)}
        # what other columns give is given by others; behind the end there is nothing
        lacking = len(columns)
        taken = [source.get(n * width + k, lacking) for n in readers for k in range(width)]
        if taken[:lacking] == [*range(lacking)]:
            filled = tf.pad(values, [[0, 0], [0, len(taken) - lacking]])
        else:
            filled = tf.gather(tf.pad(values, [[0, 0], [0, 1]]), taken, axis=1)
        slices = tf.transpose(tf.reshape(filled, [-1, len(readers), width]), [1, 0, 2])
        slices.set_shape([None, rows, None])  # (N', B, w)
        kernel = tf.convert_to_tensor(self.kernel)
        if len(readers) < self.count:
            kernel = tf.gather(kernel, readers)
        return readers, token_products(slices, kernel)

    def _make(self, columns: int) -> None:
        """Makes the weights for the width of all fields."""
        width = -(-columns // self.count)
        names = [f"{self.name}/token_{n}" for n in range(self.count)]
        initial = stacked_glorot(self.seed, names, (width, self.dim))
        self.kernel = self.add_weight(
            name="kernel", shape=initial.shape, initializer=constant(initial)
        )
        shape = (self.count, 1, self.dim)
        self.bias = self.add_weight(name="bias", shape=shape, initializer="zeros")
