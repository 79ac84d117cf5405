"""The interaction block (mix tower) that upstream and downstream share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf
import tf_keras

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.interactions.config import BlockConfig, CrossConfig, DnnConfig, FmConfig
from lfm4ads_tf.interactions.cross import Cross
from lfm4ads_tf.interactions.dnn import DNN
from lfm4ads_tf.interactions.fm import FM
from lfm4ads_tf.interactions.task_gates import TaskGates


@dataclass(frozen=True)
class BlockInputs:
    """What a block interacts.

    Attributes:
        user: UR, (B, d_u).
        item: IR, (B, d_i).
        context: Context embeddings and numbers, flat (B, d_c), or None.
        fields: Field embeddings, one tensor (B, F_w, w) per width w.
        extra: Further parts of the stream, such as adapted representations, each (B, d).
        gate: Factor of the stream, (B, d_u + d_i + d_c), or None.
        stream: [user; item; context] where the caller holds it as one tensor, else None.
    """

    user: tf.Tensor
    item: tf.Tensor
    context: tf.Tensor | None
    fields: Sequence[tf.Tensor]
    extra: Sequence[tf.Tensor] = ()
    gate: tf.Tensor | None = None
    stream: tf.Tensor | None = None


class InteractionBlock(tf_keras.layers.Layer):
    """A configured stack of interaction layers; every activation is named and returned.

        x_0 = [UR; IR; context] (* gate) (; extra)          `towers`
        fm     : z joins the stream, x <- [x; z]             `fm`
        cross  : x <- x_0' * (W x + b) + x, l times          `cross_1` ...
        dnn    : h_1 ... h_n (pre-activation), x <- relu     `dnn_1` ...

    where x_0' is the stream as it enters the cross layers. In the `parallel` structure the cross
    layers read x_0, the DNN reads [x_0; z], and the output is [z; x_l; relu(h_n)]. In the `gated`
    structure all read x_0, z, x_l and relu(h_n) are the outputs of experts, and the output is
    [m_1; ...; m_T], their mixture for every task (`TaskGates`), named `mix_<task>`.

    Args:
        config: Layers in order.
        tasks: The tasks; the `gated` structure has one mixture for each.
        seed: Seed of the initial weights.

    Raises:
        UserError: A layer type is named twice, or the `gated` structure has no layer.
        ValueError: The `gated` structure is given no tasks.

    Source: LFM4Ads (arXiv 2508.14948), the mix tower; layer names as in its public experiment.
    """

    def __init__(
        self,
        config: BlockConfig,
        *,
        tasks: Sequence[str] = (),
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        types = [layer.type for layer in config.layers]
        repeated = {t for t in types if types.count(t) > 1}
        if repeated:
            raise UserError(
                "An interaction block holds each layer type at most once.",
                received=types,
                fix=f"merge the layers of type {', '.join(sorted(repeated))}",
            )
        self.config = config
        self.tasks = list(tasks)
        self.gates: TaskGates | None = None
        if config.structure == "gated":
            if not tasks:
                raise ValueError("A gated interaction block needs the tasks.")
            if not types:
                raise UserError(
                    "A gated interaction block mixes its layers and so needs some.",
                    received="block.layers: []",
                    fix="add a layer, or set block.structure to stacked",
                )
            self.gates = TaskGates(types, len(tasks), config.mix_dim, seed=seed)
        self._stack: list[tf_keras.layers.Layer | list[tf_keras.layers.Layer]] = []
        for layer in config.layers:
            if isinstance(layer, FmConfig):
                self._stack.append(FM(layer.dim, seed=seed, name="fm"))
            elif isinstance(layer, CrossConfig):
                self._stack.append(
                    [
                        Cross(layer.rank, seed=seed, name=f"cross_{k}")
                        for k in range(1, layer.depth + 1)
                    ]
                )
            elif isinstance(layer, DnnConfig):
                self._stack.append(
                    DNN(
                        layer.units,
                        activate_input=layer.activate_input,
                        dropout=layer.dropout,
                        seed=seed,
                        name="dnn",
                    )
                )

    @property
    def layer_names(self) -> list[str]:
        """Names of the activations, in order; each can be a CR's layer."""
        return layer_names(self.config, self.tasks)

    def call(
        self, inputs: BlockInputs, training: bool = False
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Interacts.

        Returns:
            Every activation by name, each (B, d_layer), and the block's output (B, d) for the
            heads (activated when the last layer is a DNN); with gates the mixtures, (B, T h).
        """
        parts = [inputs.user, inputs.item]
        if inputs.context is not None:
            parts.append(inputs.context)
        stream = inputs.stream
        if stream is None:
            stream = tf.concat(parts, axis=-1)  # (B, d_u + d_i + d_c)
        if inputs.gate is not None:
            stream *= inputs.gate
        if inputs.extra:
            stream = tf.concat([stream, *inputs.extra], axis=-1)  # (B, d)
        # whether each layer reads x_0, and whether the DNN reads the FM's vector beside it
        apart, parallel = self.config.structure != "stacked", self.config.structure == "parallel"
        activations = {"towers": stream}
        outputs: list[tf.Tensor] = []
        deep = stream
        for layer in self._stack:
            if isinstance(layer, FM):
                outputs.append(layer(inputs.fields))  # (B, dim)
                activations["fm"] = outputs[-1]
                deep = tf.concat([deep, outputs[-1]], axis=-1)  # (B, d + dim)
                stream = stream if apart else deep
            elif isinstance(layer, DNN):
                hidden, output = layer(deep if parallel else stream, training=training)
                activations.update({f"dnn_{k}": h for k, h in enumerate(hidden, start=1)})
                outputs.append(output)
                stream = stream if apart else output
            else:
                crossed = stream
                for k, cross in enumerate(layer, start=1):
                    crossed = cross((stream, crossed), training=training)  # (B, d)
                    activations[f"cross_{k}"] = crossed
                outputs.append(crossed)
                stream = stream if apart else crossed
        if self.gates is not None:
            mixed = self.gates((stream, outputs))  # (B, T, h)
            names = [f"mix_{task}" for task in self.tasks]
            activations.update(zip(names, tf.unstack(mixed, axis=1), strict=True))
            width = len(self.tasks) * self.config.mix_dim
            return activations, tf.reshape(mixed, [-1, width])  # (B, T h)
        return activations, tf.concat(outputs or [stream], axis=-1) if apart else stream


def layer_names(config: BlockConfig, tasks: Sequence[str] = ()) -> list[str]:
    """Names of a block's activations, in order."""
    names = ["towers"]
    for layer in config.layers:
        if isinstance(layer, FmConfig):
            names.append("fm")
        elif isinstance(layer, CrossConfig):
            names += [f"cross_{k}" for k in range(1, layer.depth + 1)]
        else:
            names += [f"dnn_{k}" for k in range(1, len(layer.units) + 1)]
    if config.structure == "gated":
        names += [f"mix_{task}" for task in tasks]
    return names
