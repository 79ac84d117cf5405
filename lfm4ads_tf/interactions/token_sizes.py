"""How many tokens a mixer has, and how wide they are."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Self

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.interactions.block_reads import BlockReads
from lfm4ads_tf.interactions.full_mixing import LARGEST
from lfm4ads_tf.interactions.mixer_config import MixerConfig
from lfm4ads_tf.interactions.token_mixing import rank_after_mixing

_LOG = logging.getLogger(__name__)
_TOKENS = 16
"""Tokens of fields where the configuration does not say, as far as there are so many fields."""
_NARROW = 4
"""D / H below which mixing lifts a collapsed input to few dimensions."""


@dataclass(frozen=True)
class TokenSizes:
    """Number and width of a mixer's tokens.

    Attributes:
        count: N.
        heads: H.
        dim: D.
    """

    count: int
    heads: int
    dim: int

    @classmethod
    def of(cls, config: MixerConfig, reads: BlockReads, groups: int | None = None) -> Self:
        """The sizes for what a mixer reads.

        Args:
            config: The mixer.
            reads: What its block reads.
            groups: Groups of fields, beside the sequences that have tokens of their own; where
                absent as many as the configuration asks for.

        Raises:
            UserError: Tokens, width and heads do not go together.
        """
        grouped, sequences = apart(config, reads)
        groups = of_fields(config, len(grouped)) if groups is None else groups
        count = int(config.global_token is not None)
        if config.order == "scalars":  # slices of whatever stands side by side
            count += groups
        else:
            views = reads.sets if config.sets == "each" else 1
            count += (groups + len(sequences)) * views + reads.stored
        count += config.number_tokens if reads.numbers else 0
        count += len(reads.tasks) if config.readout == "task" else 0
        heads = config.heads or count
        sizes = cls(count, heads, config.dim or config.head_dim * heads)
        sizes._refuse(config)
        return sizes

    def tell(self, config: MixerConfig) -> None:
        """Warns of a width at which mixing does little."""
        if config.mixing == "transpose" and self.dim // self.heads < _NARROW:
            _LOG.warning(
                "a mixer has D / H = %d / %d: mixing lifts a collapsed input to %d dimensions at "
                "most; widen the tokens or have fewer of them",
                self.dim,
                self.heads,
                rank_after_mixing(self.dim, self.heads),
            )

    def _refuse(self, config: MixerConfig) -> None:
        """Refuses tokens, width and heads that do not go together."""
        count, heads, dim = self.count, self.heads, self.dim
        if config.sequence_tokens and config.order == "scalars":
            raise UserError(
                "`order: scalars` of a mixer cuts all fields side by side, so that no sequence has "
                "a token of its own.",
                received="sequence_tokens: true, order: scalars",
                fix="leave sequence_tokens out, or take another order",
            )
        if config.sets == "each" and config.order == "scalars":
            raise UserError(
                "`order: scalars` of a mixer cuts all fields side by side, so that no set has "
                "tokens of its own.",
                received="sets: each, order: scalars",
                fix="leave sets out, or take another order",
            )
        told = f"dim: {dim}, {heads} heads, {count} tokens"
        if config.experts == 1 and config.experts_l1:
            raise UserError(
                "`experts_l1` of a mixer weighs the routes to several experts, and there is one.",
                received=f"experts: 1, experts_l1: {config.experts_l1:g}",
                fix="set experts to 2 or more, or leave experts_l1 out",
            )
        if config.decorrelation and count == 1:
            raise UserError(
                "`decorrelation` of a mixer is between tokens, and there is one.",
                received=f"decorrelation: {config.decorrelation:g}, {told}",
                fix="have more tokens, or leave decorrelation out",
            )
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
        if config.mixing == "transpose" and config.norm != "revert" and heads != count:
            raise UserError(
                f"With `norm: {config.norm}` a mixer needs as many heads as it has tokens, so that "
                "mixing keeps their shape.",
                received=told,
                fix=f"leave heads out, or set heads: {count}; or take norm: revert",
            )


def apart(config: MixerConfig, reads: BlockReads) -> tuple[list[str], list[str]]:
    """The fields that groups are made of, and the sequences that have tokens of their own."""
    alone = reads.multi_valued if config.sequence_tokens else ()
    grouped = [name for name in reads.fields if name not in alone]
    return grouped, [name for name in reads.fields if name in alone]


def of_fields(config: MixerConfig, fields: int) -> int:
    """Number of groups of so many fields, where the configuration names none."""
    return config.tokens or min(_TOKENS, fields)
