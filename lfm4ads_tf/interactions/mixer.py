"""A stack of blocks that mix tokens, as an interaction layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
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
from lfm4ads_tf.interactions.observed_tokens import ObservedTokens
from lfm4ads_tf.interactions.route_shares import route_shares
from lfm4ads_tf.interactions.token_correlation import token_correlation
from lfm4ads_tf.interactions.token_norm import TokenNorm
from lfm4ads_tf.interactions.token_pieces import of_rows
from lfm4ads_tf.interactions.token_sizes import TokenSizes, apart
from lfm4ads_tf.interactions.tokens import FieldTokens
from lfm4ads_tf.precision import dense
from lfm4ads_tf.rebuildable import made_like
from lfm4ads_tf.seeding import glorot


class Mixer(InteractionLayer):
    """X_0 = InputTokens(fields, numbers, tasks), X_l = MixerBlock_l(X_{l-1}) for l = 1 ... L.

        mean:     y = mean over the tokens of X_L                                  (B, D)
        flatten:  y = V vec(X_L) + c                                               (B, D)
        task:     y_t = Tower_t([token t of X_L; mean over the tokens of X_L])     (B, h) each

    With `norm: pre` and `revert` a last normalisation stands before the read-out. A mixer reads
    fields and numbers, and nothing of the stream: towers without units keep fields as they are.

    A row adds to the loss, where they have a weight,

        experts_l1 * sum over blocks, tokens and experts of G  +  decorrelation * d(X_L)

    with the routes G of `TokenNetwork` and d of `token_correlation`, X_L before the last norm.

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
        groups = settled_groups(config, reads)
        TokenSizes.of(config, reads, len(groups) or None)
        return config.model_copy(update={"groups": groups})

    @classmethod
    def refitted(
        cls,
        config: MixerConfig,
        before: BlockReads,
        reads: BlockReads,
        *,
        carried: bool,
        whose: str,
    ) -> MixerConfig:
        """See `InteractionLayer`; weights are of tokens, so that those have to stay what they are.

        With `order: semantic` a group may lose some of its fields; where nothing is carried over,
        other orders draw their groups anew.
        """
        lost = [name for name in before.fields if name not in reads.fields]
        more = [name for name in reads.fields if name not in before.fields]
        of_numbers = [n for n in before.numbers if n not in reads.numbers]
        kept = {
            group: [name for name in names if name in reads.fields]
            for group, names in config.groups.items()
        }
        semantic = config.order == "semantic"
        if not carried:
            named = [name for names in config.groups.values() for name in names]
            fits = {*named} == {*apart(config, reads)[0]}
            groups = {group: names for group, names in kept.items() if names} if semantic else {}
            free = config if fits else config.model_copy(update={"groups": groups})
            cls.settled(free, reads)  # refuses what does not fit
            return free
        if reads.stored:
            raise UserError(
                "The upstream's mixer has no token for what a method joins to its fields, so its "
                "weights cannot be copied beside that.",
                received=f"{whose}: {reads.stored} further tokens",
                fix="use feature/gate_fields/<representations> with it, or copy up to a layer "
                "before the mixer",
            )
        alone = apart(config, before)[1] != apart(config, reads)[1]
        if more or (lost and (not semantic or alone or not all(kept.values()))):
            raise UserError(
                "The upstream's mixer would make other tokens of other fields, so its weights "
                "cannot be copied.",
                received=f"{whose}: not on both sides: {', '.join([*lost, *more])}",
                fix="use order: semantic with towers without units in the upstream, each group "
                "keeping a field; or read what it reads, see downstream.module_inputs and omit",
            )
        if config.number_tokens and of_numbers:
            raise UserError(
                "The upstream's mixer makes tokens of numbers that are not read here, so its "
                "weights cannot be copied.",
                received=f"{whose}: without {', '.join(of_numbers)}",
                fix="read them, see downstream.module_inputs and omit; or set number_tokens: 0 in "
                "the upstream's mixer",
            )
        return config.model_copy(update={"groups": kept}) if lost else config

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
        tokens, means = self._mixed(inputs, tf.shape(stream)[0], training)
        return self._read_out(tokens, means, training)

    def interact_penalised(
        self, stream: tf.Tensor, inputs: BlockInputs, *, training: bool = False
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor, Mapping[str, tf.Tensor]]:
        """See `InteractionLayer`; `experts_l1` and `decorrelation`, where they have a weight."""
        penalties: dict[str, tf.Tensor] = {}
        routes: list[tf.Tensor] = []  # of each network, (N, B, e)
        tokens, means = self._mixed(
            inputs, tf.shape(stream)[0], training, lambda _, of_network: routes.append(of_network)
        )
        if self.config.routes_weight:
            sums = [tf.reduce_sum(of_network, axis=[0, 2]) for of_network in routes]  # (B,) each
            penalties["experts_l1"] = self.config.routes_weight * tf.add_n(sums)
        if self.config.decorrelation:
            penalties["decorrelation"] = self.config.decorrelation * token_correlation(tokens)
        return (*self._read_out(tokens, means, training), penalties)

    def _mixed(
        self,
        inputs: BlockInputs,
        rows: tf.Tensor,
        training: bool,
        routed: Callable[[str, tf.Tensor], None] = lambda *_: None,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """X_L (N, B, D), and the mean over the tokens of X_0 ... X_L, (B, D) each."""
        tokens = self.tokens(inputs, rows)
        means = [tf.reduce_mean(tokens, axis=0)]
        for block in self.blocks:
            tokens = block(tokens, training=training, routed=routed)
            means.append(tf.reduce_mean(tokens, axis=0))
        return tokens, means

    def _read_out(
        self, tokens: tf.Tensor, means: list[tf.Tensor], training: bool
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """What `interact` gives, of X_L (N, B, D) and the means (B, D)."""
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

    @property
    def field_groups(self) -> Mapping[str, Sequence[str]]:
        """See `InteractionLayer`; of `scalars` all fields in the order in which they are cut."""
        made = self.input_tokens
        if made is None or made.fields is None:
            return {}
        if not isinstance(made.fields, FieldTokens):
            return {"scalars": list(made.names)}
        groups = made.fields.groups
        names = list(self.config.groups) or [f"token_{n + 1}" for n in range(len(groups))]
        sequences = [group[0] for group in groups[len(self.config.groups) or len(groups) :]]
        return dict(zip([*names, *sequences], groups, strict=True))

    def observed(
        self, stream: tf.Tensor, inputs: BlockInputs
    ) -> Mapping[str, tf.Tensor | ObservedTokens]:
        """The tokens, and what they are behind the mixing and the networks of each block.

        With several experts `route_shares` of each block's networks too.
        """
        tokens = self.tokens(inputs, tf.shape(stream)[0])
        assert self.input_tokens is not None  # `tokens` made them
        names = self.input_tokens.token_names
        tasks = self.tasks if self.config.readout == "task" else ()
        places, routes = {"tokens": tokens}, {}
        for k, block in enumerate(self.blocks, start=1):
            tokens = block(
                tokens,
                lambda place, at, k=k: places.update({f"{place}_{k}": at}),
                routed=lambda network, of_it, k=k: routes.update({f"{network}_{k}": of_it}),
            )
        observed: dict[str, tf.Tensor | ObservedTokens] = {
            place: ObservedTokens(at, names, tuple(tasks)) for place, at in places.items()
        }
        for network, of_it in routes.items():
            for name, share in route_shares(of_it).items():
                observed[f"routes/{name}_{network.removeprefix('network_')}"] = share
        return observed

    def carry(
        self, target: Self, columns: Columns, names: Collection[str], carried: Carried
    ) -> Columns:
        """Copies all weights between mixers of the same tokens.

        Fields may have been added to groups. With `order: semantic` a group may have lost some.

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
                    experts=config.experts,
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
        assert ours is not None and others is not None  # both were called
        fields = [ours.fields, others.fields]
        apart_ones = [each for each in (*fields, ours.all_fields, others.all_fields) if each]
        of_fields = {id(v) for each in apart_ones for v in each.variables}
        rest = [[v for v in m.variables if id(v) not in of_fields] for m in (self, target)]
        shapes = [[tuple(v.shape) for v in variables] for variables in rest]
        mine, theirs = fields
        alike = shapes[0] == shapes[1] and type(mine) is type(theirs)
        if isinstance(mine, FieldTokens) and isinstance(theirs, FieldTokens):
            semantic = self.config.order == target.config.order == "semantic"
            same = _share if semantic else _extends
            alike = alike and same(theirs.groups, mine.groups)
            if alike:
                mine.carry(theirs)
        elif alike and mine is not None and theirs is not None:
            alike = ours.names == others.names and mine.kernel.shape == theirs.kernel.shape
            rest = [[*rest[0], *mine.variables], [*rest[1], *theirs.variables]]
        if alike and ours.all_fields is not None and others.all_fields is not None:
            ours.all_fields.carry(others.all_fields)
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


def _share(groups: Sequence[Sequence[str]], others: Sequence[Sequence[str]]) -> bool:
    """Whether groups at one place share fields, and those at two places none."""
    return len(groups) == len(others) and all(
        bool({*group} & {*other}) == (n == m)
        for n, group in enumerate(groups)
        for m, other in enumerate(others)
    )


def _before(name: str) -> str:
    """What stands before the names of activations that are not named by their number."""
    return "" if name == "mixer" else f"{name}_"
