"""The tokens that a mixer starts from."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.interactions.expert_bank import constant
from lfm4ads_tf.interactions.full_mixing import LARGEST
from lfm4ads_tf.interactions.global_token import GlobalToken
from lfm4ads_tf.interactions.inputs import BlockInputs
from lfm4ads_tf.interactions.mixer_config import MixerConfig
from lfm4ads_tf.interactions.number_tokens import NumberTokens
from lfm4ads_tf.interactions.sliced_tokens import SlicedTokens
from lfm4ads_tf.interactions.token_groups import check_semantic, permuted, runs
from lfm4ads_tf.interactions.token_mixing import rank_after_mixing
from lfm4ads_tf.interactions.tokens import FieldTokens
from lfm4ads_tf.rebuildable import Rebuildable, made_like
from lfm4ads_tf.seeding import derive

_LOG = logging.getLogger(__name__)
_NARROW = 4
"""D / H below which mixing lifts a collapsed input to few dimensions."""
_TOKENS = 16
"""Tokens of fields where the configuration does not say, as far as there are so many fields."""


class InputTokens(Rebuildable, tf_keras.layers.Layer):
    """X_0 = [global token; tokens of fields; tokens of numbers; a learned token of each task].

    Each part is there where the configuration asks for it and there is something to make it of. How
    many tokens that makes, and with them the heads and the width, is known once it was called.

    Args:
        config: See `MixerConfig`.
        tasks: The tasks, read by the readout `task`.
        seed: Seed of the initial weights.

    Attributes:
        count: Number of tokens N.
        heads: H.
        dim: Width D.

    Raises:
        UserError: Tokens, width and heads do not go together, or groups and fields do not; told at
            the first call.
    """

    def __init__(
        self,
        config: MixerConfig,
        *,
        tasks: Sequence[str] = (),
        seed: int = 0,
        name: str = "input_tokens",
    ) -> None:
        super().__init__(name=name)
        self.config = config
        self.tasks = tuple(tasks)
        self.seed = seed
        self.count = self.heads = self.dim = 0
        self.fields: FieldTokens | SlicedTokens | None = None
        self.numbers: NumberTokens | None = None
        self.all_fields: GlobalToken | None = None
        self.of_tasks: tf.Variable | None = None

    @property
    def groups(self) -> list[list[str]] | None:
        """Fields of each token; None where fields are cut."""
        return self.fields.groups if isinstance(self.fields, FieldTokens) else None

    def call(self, inputs: BlockInputs) -> tf.Tensor:
        """Makes the tokens.

        Args:
            inputs: What the block reads; of fields and numbers one row may stand for B equal ones.

        Returns:
            Token by token, (N, B, D), or (N, 1, D) where all of them are of one row.
        """
        if self.fields is None:
            self._make(inputs)
        parts: list[tf.Tensor] = []
        if self.all_fields is not None:
            parts.append(self.all_fields([group.values for group in inputs.fields])[tf.newaxis])
        of_fields = self.fields
        if isinstance(of_fields, SlicedTokens):
            whole = inputs.whole(tf.shape(inputs.origin())[0]).fields
            flat = [tf.reshape(g.values, [-1, len(g.names) * g.width]) for g in whole]
            parts.append(of_fields(tf.concat(flat, axis=-1)))
        elif of_fields is not None:
            parts.append(of_fields(inputs.fields))
        if self.numbers is not None:
            parts.append(self.numbers(dict(inputs.numbers)))
        if self.of_tasks is not None:
            parts.append(tf.cast(self.of_tasks, self.compute_dtype))
        if len(parts) == 1:
            return parts[0]
        rows = tf.reduce_max([tf.shape(part)[1] for part in parts])
        return tf.concat([_of_rows(part, rows) for part in parts], axis=0)

    def _make(self, inputs: BlockInputs) -> None:
        """Makes the parts for what there is."""
        config, name = self.config, self.name
        fields = [each for group in inputs.fields for each in group.names]
        groups = self._groups(fields)
        sets = inputs.fields[0].sets if config.sets == "each" else 1
        of_tasks = len(self.tasks) if config.readout == "task" else 0
        of_numbers = config.number_tokens if inputs.numbers else 0
        of_all = int(config.global_token is not None)
        self.count = of_all + sets * len(groups) + of_numbers + of_tasks
        self.heads = config.heads or self.count
        self.dim = config.dim or config.head_dim * self.heads
        self._refuse()
        with made_like(self):
            if config.order == "scalars":
                self.fields = SlicedTokens(
                    len(groups), self.dim, seed=self.seed, name=f"{name}_fields"
                )
            else:
                self.fields = FieldTokens(
                    groups, self.dim, sets=config.sets, seed=self.seed, name=f"{name}_fields"
                )
            if of_numbers:
                self.numbers = NumberTokens(
                    of_numbers, self.dim, seed=self.seed, name=f"{name}_numbers"
                )
            if config.global_token is not None:
                self.all_fields = GlobalToken(
                    config.global_token, self.dim, seed=self.seed, name=f"{name}_global"
                )
        if of_tasks:
            self.of_tasks = self._task_tokens()

    def _groups(self, fields: Sequence[str]) -> list[list[str]]:
        """Fields of each token."""
        config = self.config
        if config.order == "semantic":
            check_semantic(config.groups, fields)
            return [list(group) for group in config.groups.values()]
        count = config.tokens or min(_TOKENS, len(fields))
        if config.order == "permuted":
            return permuted(fields, count, config.permutation)
        return runs(fields, count)

    def _task_tokens(self) -> tf.Variable:
        """A learned token of each task, (T, 1, D)."""
        if len(self.tasks) == 1:
            _LOG.warning("'%s' has a token of one task alone", self.name)
        draws = [
            tf_keras.initializers.RandomNormal(
                stddev=0.02, seed=derive(self.seed, f"{self.name}/task_{task}")
            )
            for task in self.tasks
        ]
        initial = tf.stack([draw((1, self.dim)) for draw in draws])
        return self.add_weight(name="tasks", shape=initial.shape, initializer=constant(initial))

    def _refuse(self) -> None:
        """Refuses tokens, width and heads that do not go together, and tells a narrow width."""
        config, count, heads, dim = self.config, self.count, self.heads, self.dim
        told = f"dim: {dim}, {heads} heads, {count} tokens"
        if config.mixing == "full" and (count * dim) ** 2 > LARGEST:
            raise UserError(
                f"`mixing: full` of a mixer would have more than {LARGEST:,} weights a block.",
                received=f"{told}: {(count * dim) ** 2:,} weights",
                fix="lower `tokens` or `dim`, or take another mixing",
            )
        if config.norm == "revert" and config.mixing != "transpose":
            raise UserError(
                "`norm: revert` of a mixer takes `mixing: transpose` back.",
                received=f"mixing: {config.mixing}",
                fix="take norm: pre or post with it",
            )
        if config.mixing not in ("transpose", "attention"):
            return
        if dim % heads:
            lower = dim - dim % heads
            near = lower + heads if lower == 0 or dim - lower > heads / 2 else lower
            raise UserError(
                "The width of the tokens of a mixer is no multiple of its heads.",
                received=told,
                fix=f"set dim: {near}, the nearest width that is; or leave dim out",
            )
        if config.mixing != "transpose":
            return
        if config.norm != "revert" and heads != count:
            raise UserError(
                f"With `norm: {config.norm}` a mixer needs as many heads as it has tokens, so that "
                "mixing keeps their shape.",
                received=told,
                fix=f"leave heads out, or set heads: {count}; or take norm: revert",
            )
        if dim // heads < _NARROW:
            _LOG.warning(
                "a mixer has D / H = %d / %d: mixing lifts a collapsed input to %d dimensions at "
                "most; widen the tokens or have fewer of them",
                dim,
                heads,
                rank_after_mixing(dim, heads),
            )


def _of_rows(tokens: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Tokens of one row as of `rows` equal ones, (N, B, D)."""
    return tokens if tokens.shape[1] != 1 else tf.tile(tokens, [1, rows, 1])
