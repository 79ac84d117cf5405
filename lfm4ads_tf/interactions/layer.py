"""What an interaction layer is."""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import tensorflow as tf
import tf_keras

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.interactions.block_reads import BlockReads
from lfm4ads_tf.interactions.columns import Carried, Columns, same_columns
from lfm4ads_tf.interactions.config import LayerConfig
from lfm4ads_tf.interactions.inputs import BlockInputs
from lfm4ads_tf.interactions.observed_tokens import ObservedTokens
from lfm4ads_tf.rebuildable import Rebuildable


class InteractionLayer(Rebuildable, tf_keras.layers.Layer, metaclass=abc.ABCMeta):
    """One layer of an interaction block; the block asks the class for all that it must know.

    A class is registered under the `type` that configurations name, with
    `INTERACTIONS.register(type)`.

    Attributes:
        Config: Its options, a `LayerConfig`.
        joins: Whether its output joins the stream, instead of taking the stream's place.
        reads_joined: Whether, in the `parallel` structure, it reads what joined x_0 so far.
        reads_stream: Whether it reads the stream; False for layers that read fields alone.
        explicit: Whether its activations are explicit crosses: `full` hands the last one over.
        shares_rows: Whether it reads several groups of a width, and those of one row that stand for
            all rows; others are given one group of each width, with all rows.
        names_weights: Whether the block puts the layer's name before those of the weights that
            `interact` makes, so that two layers of a type differ in them. False for layers whose
            weights have names of their own.
        output_dim: Width of its output, once the block was called.
        tasks: The tasks, told by the block before it is called.

    Raises:
        UserError: It is called by itself and has no `call`: a block runs it by `interact`.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> import tensorflow as tf
        >>> from lfm4ads_tf.interactions.config import LayerConfig
        >>> class Squared(lfm.InteractionLayer):
        ...     Config = LayerConfig
        ...     def __init__(self, name: str) -> None:
        ...         super().__init__(name=name)
        ...     @classmethod
        ...     def create(cls, config, *, seed, name):
        ...         return cls(name)
        ...     @classmethod
        ...     def activation_names(cls, config, name):
        ...         return [name]
        ...     def interact(self, stream, inputs, *, training=False):
        ...         return {self.name: stream * stream}, stream * stream
        >>> inputs = lfm.BlockInputs(tf.ones([2, 3]), tf.ones([2, 2]), context=None, fields=[])
        >>> named, output = Squared("squared").interact(inputs.origin(), inputs)
        >>> list(named), output.shape
        (['squared'], TensorShape([2, 5]))
    """

    Config: ClassVar[type[LayerConfig]]
    joins: ClassVar[bool] = False
    reads_joined: ClassVar[bool] = False
    reads_stream: ClassVar[bool] = True
    explicit: ClassVar[bool] = False
    shares_rows: ClassVar[bool] = False
    names_weights: ClassVar[bool] = True
    output_dim: int = 0
    tasks: Sequence[str] = ()

    @classmethod
    @abc.abstractmethod
    def create(cls, config: Any, *, seed: int, name: str) -> Self:
        """The layer of a configuration.

        Args:
            config: An instance of `Config`.
            seed: Seed of the initial weights, which depend on it and on names alone.
            name: Its name in the block; optimizer slots and activations are named by it.
        """

    @classmethod
    @abc.abstractmethod
    def activation_names(cls, config: Any, name: str) -> list[str]:
        """Names of what `interact` returns, in order; each can be a CR's layer."""

    @classmethod
    def task_names(cls, config: Any, name: str, tasks: Sequence[str]) -> list[str]:
        """Names of what `interact` returns for each task, behind `activation_names`; here none.

        A layer that has some gives an output of equal parts, one for each task, which the task's
        logits read alone; it is the last one of a `stacked` block.
        """
        return []

    @classmethod
    def settled(cls, config: Any, reads: BlockReads) -> Any:
        """The options with what a model's fields settle; here as they are.

        A run keeps what was settled, so that what is added to its features later changes no more
        than it must.

        Args:
            config: An instance of `Config`.
            reads: What the block will read.

        Raises:
            UserError: They do not fit.
        """
        return config

    @classmethod
    def refitted(
        cls, config: Any, before: BlockReads, reads: BlockReads, *, carried: bool, whose: str
    ) -> Any:
        """The options in a model with the layer over other inputs; here as they are.

        A model that starts from an upstream's weights may read fewer features, and a module may
        read stored representations in their place.

        Args:
            config: An instance of `Config`, settled for `before`.
            before: What the upstream's block reads.
            reads: What the other model's block reads.
            carried: Whether weights of the layer are carried over.
            whose: The other model, in a message.

        Raises:
            UserError: The weights would not mean the same there.
        """
        return config

    @classmethod
    def field_dim(cls, config: Any) -> int | None:
        """Width at which it interacts fields; None where it reads none.

        Where a representation stands for the fields that it was made of, it is projected to it.
        """
        return None

    @classmethod
    def sequence_lengths(cls, config: Any) -> Mapping[str, int]:
        """Multi-valued features that it reads value by value -> the last values that it reads."""
        return {}

    @abc.abstractmethod
    def interact(
        self, stream: tf.Tensor, inputs: BlockInputs, *, training: bool = False
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Interacts.

        Args:
            stream: What the structure gives it to read, (B, d).
            inputs: What the block reads: fields by name and owner, their sets, sequences.
            training: Whether dropout and compiled kernels apply; an exported graph holds none.

        Returns:
            Every activation by name (B, d_k), and the output (B, d').
        """

    def interact_penalised(
        self, stream: tf.Tensor, inputs: BlockInputs, *, training: bool = False
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor, Mapping[str, tf.Tensor]]:
        """Interacts, and tells what each row adds to the loss, see `Penalties`; here nothing.

        A layer with penalties computes them here, in the pass that it makes anyway, and not in
        `interact`, which evaluation and exports run.

        Args:
            stream, inputs, training: See `interact`.

        Returns:
            What `interact` gives, and the penalties by name, each (B,), with their factors.
        """
        return (*self.interact(stream, inputs, training=training), {})

    @property
    def field_groups(self) -> Mapping[str, Sequence[str]]:
        """Name -> fields that weights read together, once it was called; here none.

        A checkpoint and an export tell them: with other groups the same weights are another model.
        """
        return {}

    def observed(
        self, stream: tf.Tensor, inputs: BlockInputs
    ) -> Mapping[str, tf.Tensor | ObservedTokens]:
        """What tells how the layer works: numbers of each row, or tokens; here nothing.

        Means of numbers are told, and what `diagnostics` makes of tokens.

        Args:
            stream: See `interact`.
            inputs: See `interact`.

        Returns:
            Name -> (B,), or tokens at the place of that name.
        """
        return {}

    def call(self, *args: Any, **options: Any) -> Any:
        """Called by itself a layer gives what its class says; here nothing is said.

        Raises:
            UserError: The class has no `call`: Keras' own would hand its inputs on unchanged.
        """
        raise UserError(
            f"The interaction layer {type(self).__name__} is run by a block.",
            fix="use lfm4ads_tf.InteractionBlock, or call `interact(stream, inputs)`",
        )

    def carry(
        self, target: Self, columns: Columns, names: Collection[str], carried: Carried
    ) -> Columns:
        """Carries its weights over to a layer of the same configuration, for other inputs.

        Here those that both have by name, as they are; a layer whose kernels read the stream goes
        by what its columns mean, see `columns.carry_dense`.

        Args:
            target: The layer that gets the weights.
            columns: Columns of the stream that each of the two reads.
            names: Those of its activations whose weights are carried over.
            carried: Gets the layers with carried weights, by activation.

        Returns:
            Columns of both outputs.

        Raises:
            UserError: The shapes of the weights differ.
        """
        mine, theirs = _by_name(self), _by_name(target)
        shared = [name for name in mine if name in theirs] if names else []
        for name in shared:
            if mine[name].shape != theirs[name].shape:
                raise UserError(
                    f"The weights of the interaction layer '{self.name}' cannot be carried over to "
                    "other inputs.",
                    received=f"{name}: {tuple(mine[name].shape)} and {tuple(theirs[name].shape)}",
                    fix=f"define {type(self).__name__}.carry, or copy up to a layer before it",
                )
            theirs[name].assign(np.array(mine[name]))
        if shared:
            for name in names:
                carried.add(name, target)
        # outputs of another width do not mean the same column by column
        other = self.name if target.output_dim == self.output_dim else f"{self.name} (other width)"
        old, new = same_columns(self.name, self.output_dim), same_columns(other, target.output_dim)
        return old[0], new[1]


def _by_name(layer: InteractionLayer) -> dict[str, Any]:
    """Variables of a layer by their name within it."""
    start = f"{layer.name}/"
    names = [v.name.split(":")[0] for v in layer.variables]
    return {n.rpartition(start)[2]: v for n, v in zip(names, layer.variables, strict=True)}
