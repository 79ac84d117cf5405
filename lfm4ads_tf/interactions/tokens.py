"""Tokens that are made of fields and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.expert_bank import constant
from lfm4ads_tf.interactions.field_group import FieldGroup
from lfm4ads_tf.interactions.token_pieces import token_pieces
from lfm4ads_tf.precision import product
from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.seeding import derive

Sets = Literal["joined", "each"]


@dataclass
class _Plan:
    """Names of what each token reads; and width -> field -> its place in the kernels.

    Beside Keras' attribute tracking, which would make dictionaries parts of checkpoints.
    """

    tokens: list[list[str]] = field(default_factory=list)
    rows: dict[str, dict[str, int]] = field(default_factory=dict)


class FieldTokens(Rebuildable, tf_keras.layers.Layer):
    """x_n = sum over the fields f of group n of W_f e_f, plus b_n: a token of each group.

    It is W_n [e_f : f in group n] + b_n with W_n cut by fields, so that a field keeps its rows
    whichever fields join its group later, and the part of one owner's fields is computed once where
    they are one row that stands for all. Of several sets, `joined` has a field's sets side by side
    in its one group, `each` a token for each set and group, set after set. W_f starts as rows of a
    Glorot-uniform matrix for its group's width; its values depend on seed, name and field alone.

    Args:
        groups: Fields of each token.
        alone: Fields of one set, each with a token of its own behind those of the groups.
        dim: Width D of a token.
        sets: How several sets of embeddings are read.
        seed: Seed of the initial weights.

    """

    def __init__(
        self,
        groups: Sequence[Sequence[str]],
        dim: int,
        *,
        alone: Sequence[str] = (),
        sets: Sets = "joined",
        seed: int = 0,
        name: str = "field_tokens",
    ) -> None:
        super().__init__(name=name)
        self._groups = tuple(tuple(group) for group in groups)
        self._plan = _Plan()
        self.dim = dim
        self.alone = tuple(alone)
        self.sets = sets
        self.seed = seed

    @property
    def groups(self) -> list[list[str]]:
        """Fields of each token; of one set's where each has tokens."""
        return [list(group) for group in self._groups]

    def token_names(self, named: Sequence[str] = ()) -> list[str]:
        """What each token is made of, once it was called; in the order of `call`.

        Args:
            named: Names of the first groups; the others have those of their fields, joined by `+`.
        """
        groups = [*named, *("+".join(group) for group in self._groups[len(named) :])]
        sets = (len(self._plan.tokens) - len(self.alone)) // len(groups)
        of_sets = [_of_set(g, k) if sets > 1 else g for k in range(sets) for g in groups]
        return [*of_sets, *self.alone]

    def call(self, fields: Sequence[FieldGroup]) -> list[tf.Tensor]:
        """Makes the tokens, N of them: as many as groups, times K of `each`.

        Args:
            fields: Embeddings (B, F, K D) by width; a group of one row stands for B equal ones.

        Returns:
            In the order of the tokens, each (n, B, D), or (n, 1, D) of tokens that are of one row.

        Raises:
            ValueError: A field of the groups is not among the inputs.
        """
        views = [self._view(group) for group in fields]
        if not self._plan.rows:
            self._make(views)
        made = []
        for names, values in views:
            # Keras casts tensors that it sees, not those of a group
            part = self._part(names, tf.cast(values, self.compute_dtype))
            made += [] if part is None else [part]
        return token_pieces(tf.convert_to_tensor(self.bias), made)

    def carry(self, target: FieldTokens) -> None:
        """Copies the weights to tokens of the same groups, to which fields may have been added.

        The rows of an added field become zero: its tokens are then what they were, bit by bit, and
        so are all others.

        Args:
            target: Tokens that were called.
        """
        mine, theirs = self._plan.rows, target._plan.rows
        for width, kernel in target.kernels.items():
            values = np.zeros(kernel.shape, np.float32)
            before = self.kernels[width].numpy() if width in self.kernels else None
            for name, place in theirs[width].items():
                if before is not None and name in mine[width]:
                    values[place] = before[mine[width][name]]
            kernel.assign(values)
        target.bias.assign(self.bias)

    def _part(self, names: Sequence[str], values: tf.Tensor) -> tuple[list[int], tf.Tensor] | None:
        """The tokens that read some fields of a width (B, F, w), and what those give them.

        A product for each token: were the tokens one batched product, its size, and with it the
        order of the sums, would depend on other groups' fields, and a token on what joins them.

        Returns:
            N' places of tokens and (N', B, D), or None where no token reads any.
        """
        width, place = int(values.shape[-1]), {name: k for k, name in enumerate(names)}
        read = [[name for name in token if name in place] for token in self._plan.tokens]
        readers = [n for n, found in enumerate(read) if found]
        if not readers:
            return None
        wanted, sizes = [name for found in read for name in found], [len(read[n]) for n in readers]
        rows = self._plan.rows[str(width)]
        kernel = tf.convert_to_tensor(self.kernels[str(width)])
        kernel = tf.gather(kernel, [rows[name] for name in wanted])  # (F', w, D)
        taken = values
        if wanted != list(names):
            taken = tf.gather(values, [place[name] for name in wanted], axis=1)  # (B, F', w)
        made = [
            product(
                tf.reshape(of_fields, [values.shape[0] or -1, size * width]),  # (B, G w)
                tf.reshape(of_kernel, [size * width, self.dim]),
            )
            for size, of_fields, of_kernel in zip(
                sizes, tf.split(taken, sizes, axis=1), tf.split(kernel, sizes), strict=True
            )
        ]
        return readers, tf.stack(made)  # (N', B, D)

    def _view(self, group: FieldGroup) -> tuple[list[str], tf.Tensor]:
        """Names and values (B, F, w) of what is read as one field."""
        if self.sets == "joined" or group.sets == 1:
            return list(group.names), group.values
        names = [_of_set(name, k) for name in group.names for k in range(group.sets)]
        rows = group.values.shape[0] or -1
        return names, tf.reshape(group.values, [rows, len(names), group.width // group.sets])

    def _make(self, views: Sequence[tuple[list[str], tf.Tensor]]) -> None:
        """Makes the weights: those of a width's fields in one variable, a matrix for each."""
        width_of = {name: int(values.shape[-1]) for names, values in views for name in names}
        sets = 1
        if self.sets == "each":
            sets = max(1, sum(name.startswith(f"{self._groups[0][0]}#") for name in width_of))
        read = [
            [_of_set(name, k) if sets > 1 else name for name in group]
            for k in range(sets)
            for group in self._groups
        ]
        self._plan.tokens = [*read, *([name] for name in self.alone)]
        missing = [n for token in self._plan.tokens for n in token if n not in width_of]
        if missing:
            raise ValueError(f"No field '{missing[0]}' is among {sorted(width_of)}.")
        initial: dict[int, list[tf.Tensor]] = {}
        for token in self._plan.tokens:
            fan_in = sum(width_of[name] for name in token)
            for name in token:
                width = width_of[name]
                rows = self._plan.rows.setdefault(str(width), {})
                rows[name] = len(rows)
                limit = float(np.sqrt(6.0 / (fan_in + self.dim)))
                draw = tf_keras.initializers.RandomUniform(
                    -limit, limit, seed=derive(self.seed, f"{self.name}/{name}")
                )
                initial.setdefault(width, []).append(draw((width, self.dim)))
        self.kernels = {
            str(width): self.add_weight(
                name=f"kernel_{width}",
                shape=(len(matrices), width, self.dim),
                initializer=constant(tf.stack(matrices)),
            )
            for width, matrices in initial.items()
        }
        shape = (len(self._plan.tokens), 1, self.dim)
        self.bias = self.add_weight(name="bias", shape=shape, initializer="zeros")


def _of_set(name: str, k: int) -> str:
    """The name of a field's embedding of one set."""
    return f"{name}#{k}"
