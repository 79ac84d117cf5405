"""The interaction block (mix tower) that upstream and downstream share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TypeVar

import tensorflow as tf
import tf_keras

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.interactions.block_reads import BlockReads
from lfm4ads_tf.interactions.columns import Carried, Columns, joined_columns
from lfm4ads_tf.interactions.config import BlockConfig, LayerConfig
from lfm4ads_tf.interactions.inputs import BlockInputs
from lfm4ads_tf.interactions.layer import InteractionLayer
from lfm4ads_tf.interactions.observed_tokens import ObservedTokens
from lfm4ads_tf.interactions.penalties import Penalties
from lfm4ads_tf.interactions.registry import INTERACTIONS
from lfm4ads_tf.interactions.set_mean import SetMean, shared_names
from lfm4ads_tf.interactions.task_gates import TaskGates
from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.seeding import derive

Stream = TypeVar("Stream")
_TAKEN = ("embeddings", "output", "tables", "block", "gates", "heads")
"""Levels of a warm start, and parts of `warm_start_rates`, that are no activations."""


class InteractionBlock(Rebuildable, tf_keras.layers.Layer):
    """A configured stack of interaction layers; every activation is named and returned.

        x_0 = [UR; IR; context] (* gate) (; extra)          `towers`
        each layer reads the stream x and gives y:  x <- y, or x <- [x; y] of a layer that joins

    In the `parallel` structure each layer reads x_0, some of them (the DNN) [x_0; what joined it so
    far], and the output is [y_1; ...; y_n]. In the `gated` structure all read x_0, each y is the
    output of an expert, and the output is [m_1; ...; m_T], their mixture for every task
    (`TaskGates`), named `mix_<task>`.

    With `sets: each` it is K blocks of these layers, block k over x_0^k = [u^k; i^k; context^k] and
    the fields of set k. Their outputs I_k, named `set_<k>`, meet in `SetMean` and nowhere before:

        m = 1/K sum_k relu(W_k I_k + b_k),  shared layers over m               `mean`, `shared_1`

    Args:
        config: Layers in order.
        tasks: The tasks; the `gated` structure has one mixture for each.
        sets: K, sets of the embeddings; read where each has a block.
        seed: Seed of the initial weights.

    Raises:
        UserError: Two layers or activations have one name, the `gated` structure has no layer, or
            gates are to mix blocks of each set.
        ValueError: The `gated` structure is given no tasks.

    Source: LFM4Ads (arXiv 2508.14948), the mix tower; layer names as in its public experiment. Guo
    et al., On the Embedding Collapse When Scaling Up Recommendation Models (ICML 2024), for a block
    of each set.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> import tensorflow as tf
        >>> layers = [{"type": "cross", "depth": 2}, {"type": "dnn", "units": [4]}]
        >>> block = lfm.InteractionBlock(lfm.BlockConfig(layers=layers))
        >>> user, item = tf.ones([2, 3]), tf.ones([2, 2])
        >>> activations, output = block(lfm.BlockInputs(user, item, context=None, fields=[]))
        >>> {name: tuple(value.shape) for name, value in activations.items()}
        {'towers': (2, 5), 'cross_1': (2, 5), 'cross_2': (2, 5), 'dnn_1': (2, 4)}
    """

    # only set where each set has a block: Keras would make parts of checkpoints of empty ones
    _of_sets: list[InteractionBlock]
    _set_mean: SetMean

    def __init__(
        self,
        config: BlockConfig,
        *,
        tasks: Sequence[str] = (),
        sets: int = 1,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        check_names(config)
        self.config = config
        self.tasks = list(tasks)
        self.sets = sets
        self.gates: TaskGates | None = None
        if config.structure == "gated":
            if not tasks:
                raise ValueError("A gated interaction block needs the tasks.")
            keys = [layer.key for layer in config.layers]
            self.gates = TaskGates(keys, len(tasks), config.mix_dim, seed=seed)
        self._stack: list[InteractionLayer] = []
        if config.sets == "each":
            self._of_sets = [
                InteractionBlock(_of_one_set(config), seed=derive(seed, name), name=name)
                for name in _set_names(sets)
            ]
            self._set_mean = SetMean(sets, config.set_dim, config.shared_units, seed=seed)
            return
        for layer in config.layers:
            made = INTERACTIONS[layer.type].create(layer, seed=seed, name=layer.key)
            made.tasks = tuple(tasks)
            self._stack.append(made)

    @property
    def layer_names(self) -> list[str]:
        """Names of the activations, in order; each can be a CR's layer."""
        return layer_names(self.config, self.tasks, self.sets)

    @property
    def sequence_lengths(self) -> dict[str, int]:
        """Multi-valued features that layers read value by value -> the last values they read."""
        return sequence_lengths(self.config)

    def call(
        self, inputs: BlockInputs, training: bool = False, penalties: Penalties | None = None
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Interacts.

        Args:
            inputs: UR (B, d_u), IR (B, d_i), context (B, d_c) and fields (B, F, K D) by width; with
                a block of each set UR, IR and context set by set, see `BlockInputs.set_by_set`.
            training: Whether dropout and compiled kernels apply; an exported graph holds none.
            penalties: Gets what layers add to the loss, as `<layer>/<name>`; they are not computed
                where it is absent.

        Returns:
            Every activation by name, each (B, d_layer), and the block's output (B, d) for the
            heads (activated when the last layer is a DNN); with gates the mixtures, (B, T h).
        """
        inputs = inputs.of_dtype(self.compute_dtype)
        if self.config.sets == "each":
            return self._each_set(inputs, training, penalties)
        origin = inputs.origin()  # (B, d)
        activations = {"towers": origin}
        whole: BlockInputs | None = None

        def step(layer: InteractionLayer, stream: tf.Tensor) -> tf.Tensor:
            nonlocal whole
            readable = inputs
            if not layer.shares_rows:
                whole = whole or inputs.whole(tf.shape(origin)[0])
                readable = whole
            # `interact` is no `__call__`, which alone would name the layer's weights by the layer
            with tf.name_scope(layer.name) if layer.names_weights else nullcontext():
                if penalties is None:
                    named, output = layer.interact(stream, readable, training=training)
                else:
                    named, output, rows = layer.interact_penalised(
                        stream, readable, training=training
                    )
                    for name, value in rows.items():
                        penalties.add(f"{layer.name}/{name}", value)
            activations.update(named)
            layer.output_dim = int(output.shape[-1])
            return output

        outputs, stream = self._walk(origin, step, lambda x, y: tf.concat([x, y], axis=-1))
        if self.gates is not None:
            mixed = self.gates((origin, outputs))  # (B, T, h)
            names = mixture_names(self.tasks)
            activations.update(zip(names, tf.unstack(mixed, axis=1), strict=True))
            width = len(self.tasks) * self.config.mix_dim
            return activations, tf.reshape(mixed, [-1, width])  # (B, T h)
        if self.config.structure == "stacked":
            return activations, stream
        return activations, tf.concat(outputs or [origin], axis=-1)

    @property
    def penalises(self) -> bool:
        """Whether any layer is one that may add to the loss, see `call`."""
        return self._any_has("interact_penalised")

    @property
    def observes(self) -> bool:
        """Whether any layer is observed by something."""
        return self._any_has("observed")

    def _any_has(self, method: str) -> bool:
        """Whether any layer has a method of its own in place of the inherited one."""
        if self.config.sets == "each":
            return any(block._any_has(method) for block in self._of_sets)
        inherited = getattr(InteractionLayer, method)
        return any(getattr(type(layer), method) is not inherited for layer in self._stack)

    def observed(self, inputs: BlockInputs) -> dict[str, tf.Tensor | ObservedTokens]:
        """What the layers are observed by, see `InteractionLayer.observed`.

        Args:
            inputs: See `call`.

        Returns:
            `<layer>/<name>` -> (B,) or tokens; with a block of each set behind `set_<k>/`.
        """
        if self.config.sets == "each":
            apart = zip(self._of_sets, inputs.set_by_set(self.sets), strict=True)
            return {
                f"set_{k}/{name}": value
                for k, (block, of_set) in enumerate(apart)
                for name, value in block.observed(of_set).items()
            }
        if not self.observes:
            return {}
        inputs = inputs.of_dtype(self.compute_dtype)
        found: dict[str, tf.Tensor | ObservedTokens] = {}

        def step(layer: InteractionLayer, stream: tf.Tensor) -> tf.Tensor:
            given = inputs if layer.shares_rows else inputs.whole(tf.shape(stream)[0])
            for name, value in layer.observed(stream, given).items():
                found[f"{layer.name}/{name}"] = value
            return layer.interact(stream, given)[1]

        self._walk(inputs.origin(), step, lambda x, y: tf.concat([x, y], axis=-1))
        return found

    def _each_set(
        self, inputs: BlockInputs, training: bool, penalties: Penalties | None
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """What `call` gives, of a block for each set."""
        origins, interacted = [], []
        # a loop: interaction layers are written for (B, d), those of plug-ins too
        for block, of_set in zip(self._of_sets, inputs.set_by_set(self.sets), strict=True):
            activations, output = block(of_set, training=training, penalties=penalties)
            origins.append(activations["towers"])  # x_0^k, (B, d)
            interacted.append(output)  # I_k, (B, d_I)
        towers = origins[0] if self.sets == 1 else tf.concat(origins, axis=-1)  # (B, K d)
        above, output = self._set_mean(interacted, training=training)
        of_sets = dict(zip(_set_names(self.sets), interacted, strict=True))
        return {"towers": towers, **of_sets, **above}, output

    def carry(
        self,
        target: InteractionBlock,
        origin: Columns,
        names: Collection[str],
        carried: Carried,
    ) -> Columns:
        """Carries the weights behind some activations over to a block of the same configuration.

        Args:
            target: The block that gets them.
            origin: Columns of x_0 in both.
            names: The activations.
            carried: Gets the layers with carried weights, by activation.

        Returns:
            Columns of both outputs.

        Raises:
            UserError: Each set has a block.
        """
        check_joined(self.config, "a warm start")
        places = {id(layer): k for k, layer in enumerate(self._stack)}

        def step(layer: InteractionLayer, columns: Columns) -> Columns:
            place = places[id(layer)]
            wanted = [n for n in _activations(self.config.layers[place]) if n in names]
            return layer.carry(target._stack[place], columns, wanted, carried)

        outputs, stream = self._walk(origin, step, joined_columns)
        if self.gates is not None:
            mixtures = mixture_names(self.tasks)
            if target.gates is not None and mixtures[-1] in names:
                self.gates.carry(target.gates, origin, outputs, carried)
            labels = [(name, j) for name in mixtures for j in range(self.config.mix_dim)]
            return labels, labels
        if self.config.structure == "stacked":
            return stream
        return joined_columns(*outputs) if outputs else origin

    def _walk(
        self,
        origin: Stream,
        step: Callable[[InteractionLayer, Stream], Stream],
        join: Callable[[Stream, Stream], Stream],
    ) -> tuple[list[Stream], Stream]:
        """Leads a stream through the layers by the structure.

        Args:
            origin: x_0, or anything that stands for a stream.
            step: A layer and what it reads -> its output.
            join: Two streams -> both side by side.

        Returns:
            Every layer's output, and the stream behind the last one.
        """
        stacked, parallel = (self.config.structure == s for s in ("stacked", "parallel"))
        outputs: list[Stream] = []
        stream = joined = origin
        for layer in self._stack:
            output = step(layer, joined if parallel and layer.reads_joined else stream)
            outputs.append(output)
            if layer.joins:
                joined = join(joined, output)
            if stacked:
                stream = join(stream, output) if layer.joins else output
        return outputs, stream


def layer_names(config: BlockConfig, tasks: Sequence[str] = (), sets: int = 1) -> list[str]:
    """Names of a block's activations, in order.

    Args:
        config: The block.
        tasks: The tasks; read by the `gated` structure.
        sets: Sets of the embeddings; read where each has a block.
    """
    if config.sets == "each":
        return ["towers", *_set_names(sets), "mean", *shared_names(len(config.shared_units))]
    names = ["towers", *(n for layer in config.layers for n in _activations(layer, tasks))]
    return [*names, *(mixture_names(tasks) if config.structure == "gated" else ())]


def mixture_names(tasks: Sequence[str]) -> list[str]:
    """Names of the tasks' mixtures."""
    return [f"mix_{task}" for task in tasks]


def settled_block(config: BlockConfig, reads: BlockReads) -> BlockConfig:
    """A block with what it reads settles of its layers, see `InteractionLayer.settled`.

    Args:
        config: The block.
        reads: What it will read.

    Raises:
        UserError: They do not fit.
    """
    if config.sets == "each":
        reads = replace(reads, sets=1)
    layers = [INTERACTIONS[layer.type].settled(layer, reads) for layer in config.layers]
    return config.model_copy(update={"layers": layers})


def refitted_block(
    config: BlockConfig, before: BlockReads, reads: BlockReads, names: Collection[str], whose: str
) -> BlockConfig:
    """A block over other inputs than it was settled for, see `InteractionLayer.refitted`.

    Args:
        config: The block.
        before: What it was settled for.
        reads: What it will read.
        names: Activations whose weights will be carried over to it.
        whose: Whose it will be, in a message.

    Raises:
        UserError: The weights of a layer would not mean the same there.
    """
    layers = [
        INTERACTIONS[layer.type].refitted(
            layer,
            before,
            reads,
            carried=any(name in names for name in _activations(layer)),
            whose=whose,
        )
        for layer in config.layers
    ]
    return config.model_copy(update={"layers": layers})


def task_layers(config: BlockConfig, tasks: Sequence[str]) -> list[str]:
    """Names of the activations of which a block's output is made, one for each task.

    Args:
        config: The block.
        tasks: The tasks.

    Returns:
        T names; none of a block whose output all tasks read.
    """
    if config.structure == "gated":
        return mixture_names(tasks)
    if config.structure == "parallel" or config.sets == "each" or not config.layers:
        return []
    last = config.layers[-1]
    names: list[str] = INTERACTIONS[last.type].task_names(last, last.key, tasks)
    return names


def is_per_task(config: BlockConfig) -> bool:
    """Whether a block's output has a part for each task, which its logits read alone."""
    return bool(task_layers(config, ["task"]))


def reads_towers(config: BlockConfig) -> bool:
    """Whether what the towers give reaches a block's output, not the fields below them alone."""
    kinds = [INTERACTIONS[layer.type] for layer in config.layers]
    if config.structure != "stacked":
        return any(kind.reads_stream for kind in kinds) or not kinds
    return not kinds or kinds[0].reads_stream or kinds[0].joins  # see `check_names`


def explicit_crosses(config: BlockConfig) -> list[str]:
    """Names of the activations that are explicit crosses, in order; none of a block of each set."""
    if config.sets == "each":
        return []
    explicit = [layer for layer in config.layers if INTERACTIONS[layer.type].explicit]
    return [name for layer in explicit for name in _activations(layer)]


def sequence_lengths(config: BlockConfig) -> dict[str, int]:
    """Multi-valued features that a block's layers read value by value -> the longest length."""
    lengths: dict[str, int] = {}
    for layer in config.layers:
        wanted: Mapping[str, int] = INTERACTIONS[layer.type].sequence_lengths(layer)
        for feature, length in wanted.items():
            lengths[feature] = max(length, lengths.get(feature, 0))
    return lengths


def check_sequences(lengths: Mapping[str, int], bags: Collection[str], whose: str) -> None:
    """Refuses to read the values of what is no multi-valued feature.

    Args:
        lengths: What `sequence_lengths` gave.
        bags: The multi-valued features.
        whose: Whose layers they are, in the message.

    Raises:
        UserError: A layer reads another feature.
    """
    for name in lengths:
        if name not in bags:
            raise UserError(
                f"An interaction layer of {whose} reads the values of '{name}', which is no "
                f"multi-valued feature.{nearest(name, bags)}",
                received=f"multi-valued: {', '.join(bags) or 'none'}",
                fix="name one of them, or declare it in the feature spec",
            )


def field_dim(config: BlockConfig) -> int | None:
    """Width at which the first layer that reads fields interacts them; None without one."""
    dims = (INTERACTIONS[layer.type].field_dim(layer) for layer in config.layers)
    return next((dim for dim in dims if dim is not None), None)


def check_joined(config: BlockConfig, whose: str) -> None:
    """Refuses a block of each set where all of them are read together.

    Args:
        config: The block.
        whose: Whose it is, in the message.

    Raises:
        UserError: It is one.
    """
    if config.sets == "each":
        raise UserError(
            f"The interaction block of {whose} reads all sets of embeddings together.",
            received="block.sets: each",
            fix="set block.sets to joined there; an upstream may have a block for each set",
        )


def check_names(config: BlockConfig) -> None:
    """Refuses layers or activations of one name, and gates over no layers or over several blocks.

    Raises:
        UserError: There are some.
    """
    if config.structure == "gated" and config.sets == "each":
        raise UserError(
            "Gates mix the layers of one interaction block, not those of a block for each set.",
            received="block.structure: gated, block.sets: each",
            fix="set block.structure to stacked or parallel, or block.sets to joined",
        )
    if config.structure == "gated" and not config.layers:
        raise UserError(
            "A gated interaction block mixes its layers and so needs some.",
            received="block.layers: []",
            fix="add a layer, or set block.structure to stacked",
        )
    for k, layer in enumerate(config.layers):
        kind = INTERACTIONS[layer.type]
        if config.structure == "stacked" and k and not (kind.reads_stream or kind.joins):
            raise UserError(
                f"The interaction layer '{layer.key}' takes the stream's place without reading it, "
                "so the layers before it would be read by nothing.",
                received=f"structure: stacked, layers: {', '.join(x.key for x in config.layers)}",
                fix="put it first, or set block.structure to parallel",
            )
        own = INTERACTIONS[layer.type].task_names(layer, layer.key, ["task"])
        if own and (k + 1 < len(config.layers) or not task_layers(config, ["task"])):
            raise UserError(
                f"The interaction layer '{layer.key}' gives each task an output of its own, so it "
                "is the last one of a stacked block.",
                received=f"structure: {config.structure}, sets: {config.sets}, layers: "
                + ", ".join(other.key for other in config.layers),
                fix="put it last in a stacked block of joined sets, or take another readout",
            )
    keys = [layer.key for layer in config.layers]
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise UserError(
            f"Two layers of an interaction block are called '{repeated[0]}'.",
            received=keys,
            fix="give each a `name` of its own, or merge them",
        )
    names = layer_names(_of_one_set(config))
    mixtures = mixture_names([""])[0] if config.structure == "gated" else None
    for k, name in enumerate(names):
        of_task = mixtures is not None and name.startswith(mixtures)
        if name in names[:k] or name in _TAKEN or of_task:
            raise UserError(
                f"The name '{name}' of an interaction layer's activation is taken.",
                received=names,
                fix="give the layer another `name`",
            )


def _of_one_set(config: BlockConfig) -> BlockConfig:
    """The block of one set."""
    return config.model_copy(update={"sets": "joined"})


def _set_names(sets: int) -> list[str]:
    """Names of the interactions of each set."""
    return [f"set_{k}" for k in range(sets)]


def _activations(layer: LayerConfig, tasks: Sequence[str] = ()) -> list[str]:
    kind = INTERACTIONS[layer.type]
    return [*kind.activation_names(layer, layer.key), *kind.task_names(layer, layer.key, tasks)]
