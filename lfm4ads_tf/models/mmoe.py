"""The multi-gate mixture of experts, as an upstream."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.experts import ExpertMixture, constant, stacked_glorot
from lfm4ads_tf.models.batch import EncodedBatch
from lfm4ads_tf.models.config import MMoEConfig, NetworkConfig
from lfm4ads_tf.models.two_towers import TowerOutputs, TwoTowers
from lfm4ads_tf.precision import product


class MMoE(tf_keras.Model):
    """User tower, item tower, experts shared by all tasks, and one gate and tower per task.

        x = [UR; IR; context],  m_t = sum_e softmax(W_t x)_e f_e(x)
        u_t = TaskTower_t(m_t),  p_{s,t} = sigmoid(w_t u_t + b_t + w_{s,t} u_t + b_{s,t})

    The scenarios' own w_{s,t} and b_{s,t} are as in `ScenarioTaskHeads`.

    Args:
        layout: Columns of the encoded batch; its scenarios and tasks size the towers.
        network: User and item tower, and whether there is a shared logit; its block is not read.
        embeddings: Tables.
        mixture: Experts and task towers.
        seed: Seed of all initial weights.

    Source: Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts (KDD 2018); the scenarios' corrections are ours.
    """

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig,
        embeddings: EmbeddingsConfig,
        mixture: MMoEConfig,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(name="mmoe")
        self.layout = layout
        self.backbone = TwoTowers(
            layout, network.user_tower, network.item_tower, embeddings, seed=seed, name="backbone"
        )
        tasks = len(layout.tasks)
        self.experts = ExpertMixture(
            mixture.experts, mixture.expert_units, tasks, seed=seed, name="experts"
        )
        self.heads = _TaskTowers(
            mixture.task_units,
            len(layout.scenarios),
            tasks,
            shared=network.shared_head,
            seed=seed,
            name="task_towers",
        )

    @property
    def layer_names(self) -> list[str]:
        """Names of the activations, in order; each can be a CR's layer."""
        return layer_names(self.layout.tasks)

    def call(self, batch: EncodedBatch, training: bool = False) -> tf.Tensor:
        """Logits (B, T) of each row's scenario."""
        towers = self.backbone.towers(batch, training=training)
        mixed = self.experts(_stream(towers))  # (B, T, h)
        return self.heads(mixed, batch["scenario"])

    def represent(self, batch: EncodedBatch) -> dict[str, tf.Tensor]:
        """All representations of a batch.

        Returns:
            `UR` (B, d_u), `IR` (B, d_i), and the sample-level CR of every layer by the layer's
            name: `towers` is x (B, d), `mix_<task>` the task's mixture m_t (B, h).
        """
        towers = self.backbone.towers(batch)
        stream = _stream(towers)
        mixed = tf.unstack(self.experts(stream), axis=1)  # T of (B, h)
        activations = dict(zip(self.layer_names, [stream, *mixed], strict=True))
        return {"UR": towers.user, "IR": towers.item, **activations}


class _TaskTowers(tf_keras.layers.Layer):
    """A tower per task and its logits, each layer of all tasks being one batched product.

    Args:
        units: Width of each layer; without any, the logits read the mixtures themselves.
        scenarios: Number of scenarios S; 0 leaves the shared logit alone.
        tasks: Number of tasks T.
        shared: Whether a logit is shared by all scenarios; the scenarios' own then start at zero.
        seed: Seed of the initial weights.
    """

    def __init__(
        self,
        units: Sequence[int],
        scenarios: int,
        tasks: int,
        *,
        shared: bool = True,
        seed: int = 0,
        name: str = "task_towers",
    ) -> None:
        super().__init__(name=name)
        self.units = list(units)
        self.scenarios = scenarios
        self.tasks = tasks
        self.shared = shared or not scenarios
        self.seed = seed

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the weights for the mixtures' width."""
        widths = [int(input_shape[-1]), *self.units]
        self.layers: list[tuple[tf.Variable, tf.Variable]] = []
        for k, (below, above) in enumerate(zip(widths[:-1], widths[1:], strict=True), start=1):
            initial = self._glorot(f"{k}", below, above)
            kernel = self.add_weight(
                name=f"kernel_{k}", shape=initial.shape, initializer=constant(initial)
            )  # (T, u_{k-1}, u_k)
            bias = self.add_weight(
                name=f"bias_{k}", shape=(self.tasks, 1, above), initializer="zeros"
            )
            self.layers.append((kernel, bias))
        parts = [self._glorot("shared", widths[-1], 1)] if self.shared else []
        if self.scenarios:
            own = self._glorot("scenario", widths[-1], self.scenarios)
            parts.append(tf.zeros_like(own) if self.shared else own)
        initial = tf.concat(parts, axis=-1)  # (T, u, 1 + S), (T, u, 1) or (T, u, S)
        self.logit_kernel = self.add_weight(
            name="logit_kernel", shape=initial.shape, initializer=constant(initial)
        )
        self.logit_bias = self.add_weight(
            name="logit_bias", shape=(self.tasks, 1, initial.shape[-1]), initializer="zeros"
        )
        super().build(input_shape)

    def call(self, mixed: tf.Tensor, scenario: tf.Tensor) -> tf.Tensor:
        """Computes the logits of each row's own scenario.

        Args:
            mixed: The tasks' mixtures, (B, T, h).
            scenario: (B,) index; -1 (unknown) selects no scenario's weights.

        Returns:
            Logits (B, T).
        """
        hidden = tf.transpose(mixed, [1, 0, 2])  # (T, B, h)
        for kernel, bias in self.layers:
            hidden = tf.nn.relu(product(hidden, kernel) + bias)  # (T, B, u_k)
        every = tf.matmul(hidden, self.logit_kernel) + self.logit_bias  # (T, B, 1 + S)
        pick = tf.one_hot(scenario, self.scenarios, dtype=every.dtype)  # (B, S)
        if self.shared:
            pick = tf.concat([tf.ones_like(every[0, :, :1]), pick], axis=-1)  # (B, 1 + S)
        return tf.transpose(tf.reduce_sum(every * pick, axis=-1))  # (B, T)

    def _glorot(self, part: str, below: int, above: int) -> tf.Tensor:
        """Initial weights of one layer of every task's tower, (T, below, above)."""
        names = [f"{self.name}/task_{t}/{part}" for t in range(self.tasks)]
        return stacked_glorot(self.seed, names, (below, above))


def layer_names(tasks: Sequence[str]) -> list[str]:
    """Names of the model's activations, in order."""
    return ["towers", *(f"mix_{task}" for task in tasks)]


def _stream(towers: TowerOutputs) -> tf.Tensor:
    """x = [UR; IR; context], (B, d)."""
    parts = [towers.user, towers.item]
    if towers.context is not None:
        parts.append(towers.context)
    return tf.concat(parts, axis=-1)  # (B, d_u + d_i + d_c)
