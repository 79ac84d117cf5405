"""The tokens that a mixer starts from."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.interactions.block_reads import BlockReads
from lfm4ads_tf.interactions.expert_bank import constant
from lfm4ads_tf.interactions.field_group import FieldGroup
from lfm4ads_tf.interactions.global_token import GlobalToken
from lfm4ads_tf.interactions.inputs import BlockInputs
from lfm4ads_tf.interactions.mixer_config import MixerConfig
from lfm4ads_tf.interactions.number_tokens import NumberTokens
from lfm4ads_tf.interactions.sliced_tokens import SlicedTokens
from lfm4ads_tf.interactions.token_groups import check_groups, extended, permuted, runs
from lfm4ads_tf.interactions.token_pieces import joined_tokens
from lfm4ads_tf.interactions.token_sizes import TokenSizes, apart, of_fields
from lfm4ads_tf.interactions.tokens import FieldTokens
from lfm4ads_tf.rebuildable import Rebuildable, made_like
from lfm4ads_tf.seeding import derive

_LOG = logging.getLogger(__name__)


class InputTokens(Rebuildable, tf_keras.layers.Layer):
    """X_0 = [global token; tokens of fields; tokens of numbers; a learned token of each task].

    With `sequence_tokens` a multi-valued feature has a token of its own behind those of the groups,
    of each set where those are apart. Stored representations that stand beside the fields have a
    token each, behind those of the fields; `scalars` cuts them too. Each part is there where the
    configuration asks for it and there is something to make it of. How many tokens that makes, and
    with them heads and width, is known once it was called.

    Args:
        config: See `MixerConfig`.
        tasks: The tasks, read by the readout `task`.
        seed: Seed of the initial weights.

    Attributes:
        sizes: Number and width of the tokens.
        names: The features' fields, in the order in which they are read.

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
        self.sizes: TokenSizes | None = None
        self.names: tuple[str, ...] = ()
        self.fields: FieldTokens | SlicedTokens | None = None
        self.numbers: NumberTokens | None = None
        self.all_fields: GlobalToken | None = None
        self.of_tasks: tf.Variable | None = None

    @property
    def token_names(self) -> tuple[str, ...]:
        """What each token is made of, once it was called; in the order of `call`.

        Fields are joined by `+`, behind `#` stands the set that they are of; a named group has its
        name.
        """
        names = ["global"] if self.all_fields is not None else []
        if isinstance(self.fields, SlicedTokens):
            names += [f"slice_{n}" for n in range(1, self.fields.count + 1)]
        elif self.fields is not None:
            named = list(self.config.groups) if self.config.order == "semantic" else []
            names += self.fields.token_names(named)
        if self.numbers is not None:
            names += [f"numbers_{n}" for n in range(1, self.numbers.count + 1)]
        if self.of_tasks is not None:
            names += [f"task_{task}" for task in self.tasks]
        return tuple(names)

    def call(self, inputs: BlockInputs) -> tf.Tensor:
        """Makes the tokens.

        Args:
            inputs: What the block reads; of fields and numbers one row may stand for B equal ones.

        Returns:
            Token by token, (N, B, D), or (N, 1, D) where all of them are of one row.
        """
        if self.fields is None:
            self._make(inputs)
        pieces: list[tf.Tensor] = []
        if self.all_fields is not None:
            pieces.append(self.all_fields([group.values for group in inputs.fields])[tf.newaxis])
        if self.fields is not None:
            pieces += self.fields(inputs.fields)
        if self.numbers is not None:
            pieces.append(self.numbers(dict(inputs.numbers)))
        if self.of_tasks is not None:
            pieces.append(tf.cast(self.of_tasks, self.compute_dtype))
        return joined_tokens(pieces)

    def _make(self, inputs: BlockInputs) -> None:
        """Makes the parts for what there is."""
        config, name = self.config, self.name
        fields, stored = _names(inputs)
        self.names = tuple(fields)
        reads = BlockReads(
            fields,
            numbers=list(inputs.numbers),
            sets=max(group.sets for group in inputs.fields),
            tasks=self.tasks,
            multi_valued=inputs.multi_valued,
            stored=len(stored),
        )
        groups, sequences = self._groups(reads), apart(config, reads)[1]
        sizes = TokenSizes.of(config, reads, len(groups))
        sizes.tell(config)
        self.sizes = sizes
        with made_like(self):
            if config.order == "scalars":
                self.fields = SlicedTokens(
                    len(groups), sizes.dim, seed=self.seed, name=f"{name}_fields"
                )
            else:
                self.fields = FieldTokens(
                    [*groups, *([name] for name in sequences)],
                    sizes.dim,
                    alone=stored,
                    sets=config.sets,
                    seed=self.seed,
                    name=f"{name}_fields",
                )
            if config.number_tokens and inputs.numbers:
                self.numbers = NumberTokens(
                    config.number_tokens, sizes.dim, seed=self.seed, name=f"{name}_numbers"
                )
            if config.global_token is not None:
                self.all_fields = GlobalToken(
                    config.global_token, sizes.dim, seed=self.seed, name=f"{name}_global"
                )
        if config.readout == "task":
            self.of_tasks = self._task_tokens(sizes.dim)

    def _groups(self, reads: BlockReads) -> list[list[str]]:
        """Fields of each token, beside those of sequences.

        Raises:
            UserError: They are not those that the groups were settled for.
        """
        config, fields = self.config, apart(self.config, reads)[0]
        if config.order == "scalars":
            return runs(fields, of_fields(config, len(fields)))
        groups = list((config.groups or settled_groups(config, reads)).values())
        settled = [name for group in groups for name in group]
        if sorted(settled) != sorted(fields):
            other = sorted(set(settled) ^ set(fields)) or sorted(fields)
            raise UserError(
                "The tokens of a mixer are made of other fields here than its groups name.",
                received=f"not on both sides: {', '.join(other)}",
                fix="use order: semantic with groups of the fields that are there and towers "
                "without units, or leave `groups` out",
            )
        return groups

    def _task_tokens(self, dim: int) -> tf.Variable:
        """A learned token of each task, (T, 1, D)."""
        if len(self.tasks) == 1:
            _LOG.warning("'%s' has a token of one task alone", self.name)
        draws = [
            tf_keras.initializers.RandomNormal(
                stddev=0.02, seed=derive(self.seed, f"{self.name}/task_{task}")
            )
            for task in self.tasks
        ]
        initial = tf.stack([draw((1, dim)) for draw in draws])
        return self.add_weight(name="tasks", shape=initial.shape, initializer=constant(initial))


def settled_groups(config: MixerConfig, reads: BlockReads) -> dict[str, list[str]]:
    """Name -> fields of each token, beside those of sequences.

    Args:
        config: The mixer; groups that it has already stay as they are.
        reads: What its block reads.

    Returns:
        The groups; none of `scalars`, which cuts fields.

    Raises:
        UserError: There are more tokens than fields, or named groups are no partition of them.
    """
    fields, sequences = apart(config, reads)
    if config.order == "scalars":
        runs(fields, of_fields(config, len(fields)))  # refuses more tokens than fields
        return {}
    if config.order == "semantic":
        check_groups(config.groups, fields, sequences)
        return config.groups
    if config.groups:
        check_groups(config.groups, fields, sequences, all_fields=False)
        grown = extended(list(config.groups.values()), fields)
        return dict(zip(config.groups, grown, strict=True))
    count = of_fields(config, len(fields))
    if config.order == "permuted":
        groups = permuted(fields, count, config.permutation)
    else:
        groups = runs(fields, count)
    return {f"token_{n}": group for n, group in enumerate(groups, start=1)}


def _names(inputs: BlockInputs) -> tuple[list[str], list[str]]:
    """Names of the features' fields, and of stored representations that stand beside them."""
    owned = [
        (name, owner)
        for group in _narrow_first(inputs.fields)
        for name, owner in zip(group.names, group.owners, strict=True)
    ]
    stored = [name for name, owner in owned if owner == "representation"]
    return [name for name, owner in owned if owner != "representation"], stored


def _narrow_first(groups: Sequence[FieldGroup]) -> list[FieldGroup]:
    """Groups by their width, so that an order does not depend on who holds which of them apart."""
    return sorted(groups, key=lambda group: group.width)
