"""A stack of blocks that mix tokens, as an interaction layer."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Literal, Self

import tensorflow as tf
import tf_keras
from pydantic import Field

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.interactions.columns import Carried, Columns, same_columns
from lfm4ads_tf.interactions.config import LayerConfig
from lfm4ads_tf.interactions.expert_bank import ExpertBank, constant
from lfm4ads_tf.interactions.full_mixing import LARGEST
from lfm4ads_tf.interactions.global_token import GlobalToken, Pool
from lfm4ads_tf.interactions.inputs import BlockInputs
from lfm4ads_tf.interactions.layer import InteractionLayer
from lfm4ads_tf.interactions.mixer_block import MixerBlock, Mixing, Norm
from lfm4ads_tf.interactions.number_tokens import NumberTokens
from lfm4ads_tf.interactions.sliced_tokens import SlicedTokens
from lfm4ads_tf.interactions.token_groups import check_semantic, permuted, runs
from lfm4ads_tf.interactions.token_mixing import rank_after_mixing
from lfm4ads_tf.interactions.token_network import Network
from lfm4ads_tf.interactions.token_norm import TokenNorm
from lfm4ads_tf.interactions.token_ranks import token_ranks
from lfm4ads_tf.interactions.tokens import FieldTokens, Sets
from lfm4ads_tf.precision import dense
from lfm4ads_tf.rebuildable import made_like
from lfm4ads_tf.seeding import derive, glorot

_LOG = logging.getLogger(__name__)
_NARROW = 4
"""D / H below which mixing lifts a collapsed input to few dimensions."""
Order = Literal["spec", "semantic", "permuted", "scalars"]


class MixerConfig(LayerConfig):
    """A mixer of tokens.

    Attributes:
        tokens: Tokens that are made of fields; of `semantic` as many as there are groups, and of
            `sets: each` as many for every set.
        dim: Width D of a token.
        depth: Number of blocks L.
        order: Which fields make a token. `spec`: runs of their order. `semantic`: `groups`.
            `permuted`: runs of an order that a seed draws. `scalars`: equal slices of all fields
            side by side.
        groups: Name -> fields, read by `semantic` alone.
        permutation: Seed of the order of `permuted`, apart from the seed of the weights.
        sets: How several sets of embeddings are read: side by side (`joined`), or with tokens for
            each of them.
        number_tokens: Tokens that are made of the numbers; 0 leaves the numbers to other layers.
        global_token: What the token of all fields is made by; none when absent.
        heads: H; as many as there are tokens when absent.
        norm, mixing, network, expansion: See `MixerBlock` and `TokenNetwork`.
        readout: `mean` over the tokens; `flatten`: a linear layer of width D over all of them; or
            `task`: a learned token of each task joins X_0, and the task reads what has become of it
            and the mean.
        read_units: Hidden units over what each task reads; read by `task` alone.
    """

    type: Literal["mixer"] = "mixer"
    tokens: int = Field(default=16, ge=1)
    dim: int = Field(default=64, ge=1)
    depth: int = Field(default=2, ge=1)
    order: Order = "spec"
    groups: dict[str, list[str]] = {}
    permutation: int = Field(default=0, ge=0)
    sets: Sets = "joined"
    number_tokens: int = Field(default=1, ge=0)
    global_token: Pool | None = None
    heads: int | None = Field(default=None, ge=1)
    norm: Norm = "post"
    mixing: Mixing = "transpose"
    network: Network = "gelu"
    expansion: float = Field(default=4, gt=0)
    readout: Literal["mean", "flatten", "task"] = "mean"
    read_units: list[Annotated[int, Field(ge=1)]] = []


class Mixer(InteractionLayer):
    """X_0 = [global token; tokens of fields, of numbers, of tasks], X_l = MixerBlock_l(X_{l-1}).

        mean:     y = mean over the tokens of X_L                                  (B, D)
        flatten:  y = V vec(X_L) + c                                               (B, D)
        task:     y_t = Tower_t([token t of X_L; mean over the tokens of X_L])     (B, h) each

    With `norm: pre` and `revert` a last normalisation stands before it. It reads fields and
    numbers, and nothing of the stream: towers without units keep the fields as they are.

    Args:
        config: See `MixerConfig`.
        seed: Seed of the initial weights.

    Raises:
        UserError: Tokens, width and heads do not go together, or groups and fields do not; told
            once the number of tokens is known, at the first call.

    Source: RankMixer (arXiv 2507.15551), RankUp (arXiv 2604.17878); see docs/models/mixer.md for
    what is stated and what is ours.
    """

    Config = MixerConfig
    shares_rows = True
    names_weights = False  # its parts have names of their own

    def __init__(self, config: MixerConfig, *, seed: int = 0, name: str | None = None) -> None:
        super().__init__(name=name)
        self.config = config
        self.seed = seed
        self.number_tokens = None
        self.global_token = None
        if config.number_tokens:
            self.number_tokens = NumberTokens(
                config.number_tokens, config.dim, seed=seed, name=f"{self.name}_numbers"
            )
        if config.global_token is not None:
            self.global_token = GlobalToken(
                config.global_token, config.dim, seed=seed, name=f"{self.name}_global"
            )
        self.last = None
        if config.readout == "flatten":
            self.last = tf_keras.layers.Dense(
                config.dim,
                kernel_initializer=glorot(seed, f"{self.name}/flatten"),
                name=f"{self.name}_flatten",
            )
        self.task_tokens: tf.Variable | None = None
        self.task_towers: ExpertBank | None = None
        self.last_norm = None
        if config.norm != "post":
            self.last_norm = TokenNorm(name=f"{self.name}_last_norm")
        self.field_tokens: FieldTokens | SlicedTokens | None = None  # made for the first fields
        self.blocks: list[MixerBlock] = []

    @classmethod
    def create(cls, config: MixerConfig, *, seed: int, name: str) -> Self:
        """See `InteractionLayer`."""
        return cls(config, seed=seed, name=name)

    @classmethod
    def activation_names(cls, config: MixerConfig, name: str) -> list[str]:
        """`tokens` and `mixer_1` ... `mixer_L`, means over the tokens; of another name likewise."""
        start = "" if name == "mixer" else f"{name}_"
        return [f"{start}tokens", *(f"{name}_{k}" for k in range(1, config.depth + 1))]

    def interact(
        self, stream: tf.Tensor, inputs: BlockInputs, *, training: bool = False
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Mixes the tokens; of the stream the number of rows is read."""
        tokens = self.tokens(inputs, tf.shape(stream)[0])
        means = [tf.reduce_mean(tokens, axis=0)]
        for block in self.blocks:
            tokens = block(tokens)
            means.append(tf.reduce_mean(tokens, axis=0))  # (B, D)
        named = dict(zip(self.activation_names(self.config, self.name), means, strict=True))
        if self.last_norm is not None:
            tokens = self.last_norm(tokens)
        if self.last is not None:
            width = int(tokens.shape[0]) * self.config.dim
            flat = tf.reshape(tf.transpose(tokens, [1, 0, 2]), [-1, width])  # (B, N D)
            return named, dense(self.last, flat)
        mean = tf.reduce_mean(tokens, axis=0)  # (B, D)
        if self.config.readout == "mean":
            return named, mean
        count = len(self.tasks)
        read = tf.concat([tokens[-count:], tf.tile(mean[tf.newaxis], [count, 1, 1])], axis=-1)
        of_tasks = tf.unstack(read)  # T of (B, 2 D)
        if self.config.read_units:
            of_tasks = tf.unstack(self._towers()(read, training=training), axis=1)
        names = self.task_names(self.config, self.name, self.tasks)
        named |= dict(zip(names, of_tasks, strict=True))
        return named, tf.concat(of_tasks, axis=-1)  # (B, T h)

    @classmethod
    def task_names(cls, config: MixerConfig, name: str, tasks: Sequence[str]) -> list[str]:
        """`task_<t>` with `readout: task`; of another name than `mixer` behind it."""
        start = "" if name == "mixer" else f"{name}_"
        return [f"{start}task_{task}" for task in tasks] if config.readout == "task" else []

    def tokens(self, inputs: BlockInputs, rows: tf.Tensor) -> tf.Tensor:
        """X_0, token by token (N, B, D).

        Args:
            inputs: What the block reads.
            rows: B, ().

        Raises:
            UserError: See the class.
        """
        parts = []
        if self.global_token is not None:
            parts.append(self.global_token([group.values for group in inputs.fields])[tf.newaxis])
        parts.append(self._of_fields(inputs))
        if self.number_tokens is not None and inputs.numbers:
            parts.append(self.number_tokens(dict(inputs.numbers)))
        if self.config.readout == "task":
            parts.append(self._of_tasks())
        whole = [_of_rows(part, rows) for part in parts]
        tokens = whole[0] if len(whole) == 1 else tf.concat(whole, axis=0)  # (N, B, D)
        if not self.blocks:
            self._make_blocks(int(tokens.shape[0]))
        return tokens

    def observed(self, stream: tf.Tensor, inputs: BlockInputs) -> Mapping[str, tf.Tensor]:
        """`token_ranks` of the tokens, and behind the mixing and the networks of each block."""
        tokens = self.tokens(inputs, tf.shape(stream)[0])
        places = {"tokens": tokens}
        for k, block in enumerate(self.blocks, start=1):
            tokens = block(tokens, lambda place, at, k=k: places.update({f"{place}_{k}": at}))
        return {
            f"{place}/{name}": rank
            for place, at in places.items()
            for name, rank in token_ranks(at).items()
        }

    def carry(
        self, target: Self, columns: Columns, names: Collection[str], carried: Carried
    ) -> Columns:
        """Copies all weights between mixers of the same tokens.

        Raises:
            UserError: The other one's fields make other tokens.
        """
        if names:
            self._refuse_other_tokens(target)
            for mine, theirs in zip(self.variables, target.variables, strict=True):
                theirs.assign(mine)
            for name in names:
                carried.add(name, target)
        return same_columns(self.name, self.output_dim)

    def _of_tasks(self) -> tf.Tensor:
        """The tasks' learned tokens, (T, 1, D)."""
        if self.task_tokens is None:
            if not self.tasks:
                raise ValueError("The readout `task` needs the tasks.")
            if len(self.tasks) == 1:
                _LOG.warning("the mixer '%s' has a token of one task alone", self.name)
            names = [f"{self.name}/task_{task}" for task in self.tasks]
            draws = [
                tf_keras.initializers.RandomNormal(stddev=0.02, seed=derive(self.seed, name))
                for name in names
            ]
            initial = tf.stack([draw((1, self.config.dim)) for draw in draws])
            self.task_tokens = self.add_weight(
                name=f"{self.name}_task_tokens",
                shape=initial.shape,
                initializer=constant(initial),
            )
        return tf.cast(self.task_tokens, self.compute_dtype)

    def _towers(self) -> ExpertBank:
        """Towers of the tasks, one each."""
        if self.task_towers is None:
            with made_like(self):
                self.task_towers = ExpertBank(
                    range(len(self.tasks)),
                    self.config.read_units,
                    seed=self.seed,
                    name=f"{self.name}_towers",
                )
        return self.task_towers

    def _of_fields(self, inputs: BlockInputs) -> tf.Tensor:
        """Tokens of the fields, (N, B, D)."""
        config = self.config
        if config.order == "scalars":
            whole = inputs.whole(tf.shape(inputs.user)[0])
            flat = [tf.reshape(g.values, [-1, len(g.names) * g.width]) for g in whole.fields]
            if self.field_tokens is None:
                with made_like(self):
                    self.field_tokens = SlicedTokens(
                        config.tokens, config.dim, seed=self.seed, name=f"{self.name}_fields"
                    )
            return self.field_tokens(tf.concat(flat, axis=-1))
        if self.field_tokens is None:
            fields = [name for group in inputs.fields for name in group.names]
            with made_like(self):
                self.field_tokens = FieldTokens(
                    self._groups(fields),
                    config.dim,
                    sets=config.sets,
                    seed=self.seed,
                    name=f"{self.name}_fields",
                )
        return self.field_tokens(inputs.fields)

    def _groups(self, fields: Sequence[str]) -> list[list[str]]:
        """Fields of each token."""
        config = self.config
        if config.order == "semantic":
            check_semantic(config.groups, fields)
            return [list(group) for group in config.groups.values()]
        if config.order == "permuted":
            return permuted(fields, config.tokens, config.permutation)
        return runs(fields, config.tokens)

    def _make_blocks(self, count: int) -> None:
        """Makes the blocks for a number of tokens N."""
        config = self.config
        heads = config.heads or count
        self._refuse(count, heads)
        if config.mixing == "transpose" and config.dim // heads < _NARROW:
            _LOG.warning(
                "the mixer '%s' has D / H = %d / %d: mixing lifts a collapsed input to %d "
                "dimensions at most; widen `dim` or have fewer tokens",
                self.name,
                config.dim,
                heads,
                rank_after_mixing(config.dim, heads),
            )
        with made_like(self):
            self.blocks = [
                MixerBlock(
                    heads,
                    norm=config.norm,
                    mixing=config.mixing,
                    network=config.network,
                    expansion=config.expansion,
                    seed=self.seed,
                    name=f"{self.name}_block_{k}",
                )
                for k in range(1, config.depth + 1)
            ]

    def _refuse(self, count: int, heads: int) -> None:
        """Refuses tokens, width and heads that do not go together."""
        config = self.config
        if config.mixing == "full" and (count * config.dim) ** 2 > LARGEST:
            raise UserError(
                f"`mixing: full` of the mixer '{self.name}' would have more than "
                f"{LARGEST:,} weights in each block.",
                received=f"{count} tokens of width {config.dim}: {(count * config.dim) ** 2:,}",
                fix="lower `tokens` or `dim`, or take another mixing",
            )
        if config.norm == "revert" and config.mixing != "transpose":
            raise UserError(
                f"`norm: revert` of the mixer '{self.name}' takes `mixing: transpose` back.",
                received=f"mixing: {config.mixing}",
                fix="take norm: pre or post with it",
            )
        if config.mixing not in ("transpose", "attention"):
            return
        if config.dim % heads:
            lower = config.dim - config.dim % heads
            near = lower + heads if lower == 0 or config.dim - lower > heads / 2 else lower
            raise UserError(
                f"The width of the tokens of the mixer '{self.name}' is no multiple of its heads.",
                received=f"dim: {config.dim}, {heads} heads, {count} tokens",
                fix=f"set dim: {near}, the nearest width that is",
            )
        if config.mixing == "transpose" and config.norm != "revert" and heads != count:
            raise UserError(
                f"With `norm: {config.norm}` the mixer '{self.name}' needs as many heads as it "
                "has tokens, so that mixing keeps their shape.",
                received=f"heads: {heads}, {count} tokens",
                fix=f"leave heads out, or set heads: {count}; or take norm: revert",
            )

    def _refuse_other_tokens(self, target: Self) -> None:
        """Refuses to carry weights to tokens of other fields."""
        mine, theirs = (getattr(layer.field_tokens, "groups", None) for layer in (self, target))
        shapes = [[tuple(v.shape) for v in layer.variables] for layer in (self, target)]
        if mine != theirs or shapes[0] != shapes[1]:
            raise UserError(
                f"The weights of the mixer '{self.name}' cannot be carried over: its fields make "
                "other tokens there.",
                received=f"{mine} and {theirs}",
                fix="use order: semantic with the same fields and towers without units, or copy "
                "up to a layer before it",
            )


def _of_rows(tokens: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Tokens of one row as of `rows` equal ones, (N, B, D)."""
    if tokens.shape[1] != 1:
        return tokens
    return tf.tile(tokens, [1, rows, 1])
