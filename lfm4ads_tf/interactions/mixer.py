"""A stack of blocks that mix tokens, as an interaction layer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Self

import tensorflow as tf
import tf_keras

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.interactions.block_reads import BlockReads
from lfm4ads_tf.interactions.columns import Carried, Columns, same_columns
from lfm4ads_tf.interactions.expert_bank import ExpertBank
from lfm4ads_tf.interactions.input_tokens import InputTokens, settled_groups
from lfm4ads_tf.interactions.inputs import BlockInputs
from lfm4ads_tf.interactions.layer import InteractionLayer
from lfm4ads_tf.interactions.mixer_block import MixerBlock
from lfm4ads_tf.interactions.mixer_config import MixerConfig
from lfm4ads_tf.interactions.token_norm import TokenNorm
from lfm4ads_tf.interactions.token_pieces import of_rows
from lfm4ads_tf.interactions.token_ranks import token_ranks
from lfm4ads_tf.interactions.token_sizes import TokenSizes
from lfm4ads_tf.interactions.tokens import FieldTokens
from lfm4ads_tf.precision import dense
from lfm4ads_tf.rebuildable import made_like
from lfm4ads_tf.seeding import glorot


class Mixer(InteractionLayer):
    """X_0 = InputTokens(fields, numbers, tasks), X_l = MixerBlock_l(X_{l-1}) for l = 1 ... L.

        mean:     y = mean over the tokens of X_L                                  (B, D)
        flatten:  y = V vec(X_L) + c                                               (B, D)
        task:     y_t = Tower_t([token t of X_L; mean over the tokens of X_L])     (B, h) each

    With `norm: pre` and `revert` a last normalisation stands before it. It reads fields and
    numbers, and nothing of the stream: towers without units keep the fields as they are.

    Args:
        config: See `MixerConfig`.
        seed: Seed of the initial weights.

    Raises:
        UserError: See `InputTokens`.

    Source: RankMixer (arXiv 2507.15551), RankUp (arXiv 2604.17878); docs/models/mixer.md tells what
    is stated and what is ours.
    """

    Config = MixerConfig
    shares_rows = True
    reads_stream = False
    names_weights = False  # its parts have names of their own

    def __init__(self, config: MixerConfig, *, seed: int = 0, name: str | None = None) -> None:
        super().__init__(name=name)
        self.config = config
        self.seed = seed
        self.input_tokens: InputTokens | None = None  # the block tells the tasks later
        self.blocks: list[MixerBlock] = []
        self.last_norm: TokenNorm | None = None
        self.flat: tf_keras.layers.Dense | None = None
        self.task_towers: ExpertBank | None = None

    @classmethod
    def create(cls, config: MixerConfig, *, seed: int, name: str) -> Self:
        """See `InteractionLayer`."""
        return cls(config, seed=seed, name=name)

    @classmethod
    def settled(cls, config: MixerConfig, reads: BlockReads) -> MixerConfig:
        """See `InteractionLayer`; which fields make which token."""
        groups = settled_groups(config, reads.fields)
        TokenSizes.of(config, reads, len(groups) or None)
        return config.model_copy(update={"groups": groups})

    @classmethod
    def activation_names(cls, config: MixerConfig, name: str) -> list[str]:
        """`tokens` and `mixer_1` ... `mixer_L`, means over the tokens; of another name likewise."""
        return [f"{_before(name)}tokens", *(f"{name}_{k}" for k in range(1, config.depth + 1))]

    @classmethod
    def task_names(cls, config: MixerConfig, name: str, tasks: Sequence[str]) -> list[str]:
        """`task_<t>` with `readout: task`."""
        if config.readout != "task":
            return []
        return [f"{_before(name)}task_{task}" for task in tasks]

    def interact(
        self, stream: tf.Tensor, inputs: BlockInputs, *, training: bool = False
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Mixes the tokens; of the stream the number of rows is read."""
        tokens = self.tokens(inputs, tf.shape(stream)[0])
        means = [tf.reduce_mean(tokens, axis=0)]
        for block in self.blocks:
            tokens = block(tokens, training=training)
            means.append(tf.reduce_mean(tokens, axis=0))  # (B, D)
        named = dict(zip(self.activation_names(self.config, self.name), means, strict=True))
        if self.last_norm is not None:
            tokens = self.last_norm(tokens)
        if self.flat is not None:
            width = int(tokens.shape[0]) * int(tokens.shape[2])
            read = tf.reshape(tf.transpose(tokens, [1, 0, 2]), [-1, width])  # (B, N D)
            return named, dense(self.flat, read)
        mean = tf.reduce_mean(tokens, axis=0)  # (B, D)
        if self.config.readout == "mean":
            return named, mean
        of_tasks = self._of_tasks(tokens, mean, training)
        names = self.task_names(self.config, self.name, self.tasks)
        named |= dict(zip(names, of_tasks, strict=True))
        return named, tf.concat(of_tasks, axis=-1)  # (B, T h)

    def tokens(self, inputs: BlockInputs, rows: tf.Tensor) -> tf.Tensor:
        """X_0, token by token (N, B, D).

        Args:
            inputs: What the block reads.
            rows: B, ().

        Raises:
            UserError: See `InputTokens`.
            ValueError: The readout is of tasks, and there are none.
        """
        if self.input_tokens is None:
            if self.config.readout == "task" and not self.tasks:
                raise ValueError("The readout `task` needs the tasks.")
            with made_like(self):
                self.input_tokens = InputTokens(
                    self.config, tasks=self.tasks, seed=self.seed, name=self.name
                )
        tokens = self.input_tokens(inputs)
        if not self.blocks:
            self._make_blocks()
        return of_rows(tokens, rows)

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
        """Copies all weights between mixers of the same tokens; fields may be added to groups.

        Raises:
            UserError: The other one's fields make other tokens.
        """
        if names:
            pairs = self._pairs(target)
            for mine, theirs in pairs:
                theirs.assign(mine)
            for name in names:
                carried.add(name, target)
        return same_columns(self.name, self.output_dim)

    def _of_tasks(self, tokens: tf.Tensor, mean: tf.Tensor, training: bool) -> list[tf.Tensor]:
        """What each task's logits read, T of (B, h); the tasks' tokens are the last ones."""
        count = len(self.tasks)
        read = tf.concat([tokens[-count:], tf.tile(mean[tf.newaxis], [count, 1, 1])], axis=-1)
        if self.task_towers is None:
            return tf.unstack(read)  # T of (B, 2 D)
        return tf.unstack(self.task_towers(read, training=training), axis=1)

    def _make_blocks(self) -> None:
        """Makes what stands behind the tokens, for as many as there are."""
        config, sizes = self.config, self.input_tokens.sizes if self.input_tokens else None
        assert sizes is not None  # made by who calls
        with made_like(self):
            self.blocks = [
                MixerBlock(
                    sizes.heads,
                    norm=config.norm,
                    mixing=config.mixing,
                    network=config.network,
                    expansion=config.expansion,
                    seed=self.seed,
                    name=f"{self.name}_block_{k}",
                )
                for k in range(1, config.depth + 1)
            ]
            if config.norm != "post":
                self.last_norm = TokenNorm(name=f"{self.name}_last_norm")
            if config.readout == "flatten":
                self.flat = tf_keras.layers.Dense(
                    sizes.dim,
                    kernel_initializer=glorot(self.seed, f"{self.name}/flatten"),
                    name=f"{self.name}_flatten",
                )
            if config.readout == "task" and config.read_units:
                self.task_towers = ExpertBank(
                    range(len(self.tasks)),
                    config.read_units,
                    seed=self.seed,
                    name=f"{self.name}_towers",
                )

    def _pairs(self, target: Self) -> list[tuple[tf.Variable, tf.Variable]]:
        """Weights of both beside those of the fields, which are carried over.

        Raises:
            UserError: The other one's tokens are made of other fields, or of another shape.
        """
        ours, others = self.input_tokens, target.input_tokens
        fields = [each.fields if each is not None else None for each in (ours, others)]
        of_fields = {id(v) for each in fields if each is not None for v in each.variables}
        rest = [[v for v in m.variables if id(v) not in of_fields] for m in (self, target)]
        shapes = [[tuple(v.shape) for v in variables] for variables in rest]
        mine, theirs = fields
        alike = shapes[0] == shapes[1] and type(mine) is type(theirs)
        if isinstance(mine, FieldTokens) and isinstance(theirs, FieldTokens):
            alike = alike and _extends(theirs.groups, mine.groups)
            if alike:
                mine.carry(theirs)
        elif alike and mine is not None and theirs is not None:
            alike = mine.kernel.shape == theirs.kernel.shape
            rest = [[*rest[0], *mine.variables], [*rest[1], *theirs.variables]]
        if not alike:
            groups = [each.groups if isinstance(each, FieldTokens) else None for each in fields]
            raise UserError(
                f"The weights of the mixer '{self.name}' cannot be carried over: its fields make "
                "other tokens there.",
                received=f"{groups[0]} and {groups[1]}",
                fix="use order: semantic with the same fields and towers without units, or copy "
                "up to a layer before it",
            )
        return list(zip(*rest, strict=True))


def _extends(groups: Sequence[Sequence[str]], others: Sequence[Sequence[str]]) -> bool:
    """Whether each group begins with the fields of the other one at its place."""
    return len(groups) == len(others) and all(
        list(group[: len(other)]) == list(other)
        for group, other in zip(groups, others, strict=True)
    )


def _before(name: str) -> str:
    """What stands before the names of activations that are not named by their number."""
    return "" if name == "mixer" else f"{name}_"
