"""The entire-space multi-task model of a funnel of two tasks, as an upstream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import tensorflow as tf
from pydantic import Field

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.expert_bank import ExpertBank
from lfm4ads_tf.models.config import NetworkConfig, Units
from lfm4ads_tf.models.mixture_model import MixtureModel
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.strict import StrictModel

_TOLERATED = 0.01
"""Share of rows whose second event may come without the first one."""


class ESMMConfig(StrictModel):
    """A funnel, and an expert and a tower for each task.

    Attributes:
        funnel: Two tasks; the second one's event follows the first one's, such as
            `[click, conversion]`.
        output: What the second task's logit is of: `joint`, both events; `conditional`, the second
            one given the first.
        strict_funnel: Whether training rows whose second label is 1 where the first is 0 are
            refused where they are more than 1 %.
        expert_units: Width of each layer of a task's expert; the last is h.
        task_units: Hidden units of each task's tower; empty means logits of the expert's output.
    """

    funnel: Annotated[list[str], Field(min_length=2, max_length=2)]
    output: Literal["joint", "conditional"] = "joint"
    strict_funnel: bool = True
    expert_units: Annotated[Units, Field(min_length=1)] = [256, 128]
    task_units: Units = [64]


class ESMM(MixtureModel):
    """z_a = TaskTower_a(E_a(x)), z_b likewise, and p_ab = sigmoid(z_a) sigmoid(z_b).

        L = BCE(y_a, z_a) + BCE(y_ab, z_ab),  y_ab = y_a y_b
        z_ab = ln p_ab - ln(1 - p_ab) = -ln(exp(-z_a) + exp(-z_b) + exp(-z_a - z_b))

    b is trained on all rows, not on those where a happened alone. y_ab is 0 where either label is
    0, whatever the other is: most logs do not know y_b where y_a is 0. Tasks outside of the funnel
    have an expert, a tower and a cross-entropy of their own. The logit of b is z_ab, or with
    `output: conditional` z_b, which is scored on the rows where y_a is 1; the loss is the same.

    See `MixtureModel`.

    Args:
        layout: Columns of the encoded batch.
        network: User and item tower, and whether there is a shared logit; its block is not read.
        embeddings: Tables.
        sizes: Funnel, experts and task towers.
        seed: Seed of all initial weights.

    Raises:
        UserError: There are fewer than two tasks, or the funnel is not one of two of them.

    Source: Ma et al., Entire Space Multi-Task Model: An Effective Approach for Estimating
    Post-Click Conversion Rate (SIGIR 2018).
    """

    Config = ESMMConfig
    least_tasks = 2

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig,
        embeddings: EmbeddingsConfig,
        sizes: ESMMConfig,
        *,
        seed: int = 0,
    ) -> None:
        own = ExpertBank([0] * len(layout.tasks), sizes.expert_units, seed=seed)
        super().__init__(
            layout,
            network,
            embeddings,
            sizes,
            own,
            sizes.task_units,
            seed=seed,
            name="esmm",
        )
        self.joint = sizes.output == "joint"
        self.first, self.second = (layout.tasks.index(task) for task in sizes.funnel)

    @classmethod
    def refuse(cls, options: Any, embeddings: EmbeddingsConfig, tasks: Sequence[str]) -> None:
        """See `MixtureModel`; the funnel is of two of the tasks."""
        super().refuse(options, embeddings, tasks)
        funnel = options.funnel
        for task in funnel:
            if task not in tasks:
                raise UserError(
                    f"upstream.esmm.funnel names the unknown task '{task}'.{nearest(task, tasks)}",
                    received=f"funnel: {', '.join(funnel)}",
                    fix=f"use two of {', '.join(tasks)}",
                )
        if funnel[0] == funnel[1]:
            raise UserError(
                "upstream.esmm.funnel names one task twice.",
                received=f"funnel: {', '.join(funnel)}",
                fix=f"use two of {', '.join(tasks)}",
            )

    @classmethod
    def check_labels(cls, config: UpstreamConfig, labels: Mapping[str, np.ndarray]) -> None:
        """See `MixtureModel`; and with `strict_funnel` second events come behind first ones."""
        super().check_labels(config, labels)
        _refuse_no_funnel(
            config.options,
            labels,
            "training rows",
            "name two tasks of which the second one follows the first, or set "
            "upstream.esmm.strict_funnel=false: these rows then count as 0",
        )

    @classmethod
    def check_new_labels(cls, config: UpstreamConfig, labels: Mapping[str, np.ndarray]) -> None:
        """See `UpstreamModel`; with `strict_funnel` second events come behind first ones."""
        super().check_new_labels(config, labels)
        _refuse_no_funnel(
            config.options,
            labels,
            "new rows",
            "correct the labels; only a new run with upstream.esmm.strict_funnel=false takes them, "
            "as 0",
        )

    def call(self, batch: EncodedBatch, training: bool = False) -> tf.Tensor:
        """Logits (B, T) of each row's scenario, that of the funnel's second task by `output`."""
        logits = super().call(batch, training=training)
        return self._with_joint(logits) if self.joint else logits

    def targets(self, labels: tf.Tensor) -> tf.Tensor:
        """The labels, and y_ab, or y_b where y_a is 1, in place of y_b."""
        first, second = labels[:, self.first], labels[:, self.second]
        if self.joint:
            return self._put(labels, self._both(first, second))
        unknown = tf.fill(tf.shape(second), tf.constant(np.nan, labels.dtype))
        return self._put(labels, tf.where(first == 1, second, unknown))

    def _task_loss(self, batch: EncodedBatch, logits: tf.Tensor) -> tf.Tensor:
        """The task loss of y_a and y_ab, whatever `output` is."""
        labels = batch["labels"]
        both = self._both(labels[:, self.first], labels[:, self.second])
        of_events = logits if self.joint else self._with_joint(logits)
        return self.task_loss({**batch, "labels": self._put(labels, both)}, of_events)

    def _with_joint(self, logits: tf.Tensor) -> tf.Tensor:
        """z (B, T) with z_ab in the place of z_b."""
        return self._put(logits, joint_logit(logits[:, self.first], logits[:, self.second]))

    def _put(self, values: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        """(B, T) with another column (B,) of the funnel's second task."""
        columns = tf.unstack(values, num=len(self.layout.tasks), axis=1)
        columns[self.second] = column
        return tf.stack(columns, axis=1)

    @staticmethod
    def _both(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        """y_ab (B,): 0 where either label is 0, unknown where it may be either."""
        zero = (first == 0) | (second == 0)
        return tf.where(zero, tf.zeros_like(first), first * second)


def _refuse_no_funnel(
    options: ESMMConfig, labels: Mapping[str, np.ndarray], rows: str, fix: str
) -> None:
    """Refuses labels of some rows if too many second events come without the first one."""
    first, second = options.funnel
    before = labels[first]
    without = int(((before == 0) & (labels[second] == 1)).sum())
    if options.strict_funnel and without > _TOLERATED * len(before):
        raise UserError(
            f"The tasks '{first}' and '{second}' are no funnel: {second} is 1 where {first} is 0.",
            received=f"{without:,} of {len(before):,} {rows}, more than 1 %",
            fix=fix,
        )


def joint_logit(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """ln p - ln(1 - p) of p = sigmoid(z_a) sigmoid(z_b), which is never computed.

        ln p = -softplus(-z_a) - softplus(-z_b)
        z_ab = -ln(exp(-z_a) + exp(-z_b) + exp(-z_a - z_b))

    A cross-entropy of it has dL/dz_b = -(y_ab - p)(1 - sigmoid(z_b)) / (1 - p).

    Args:
        first: z_a, (B,).
        second: z_b, (B,).

    Returns:
        z_ab: (B,).
    """
    terms = tf.stack([-first, -second, -first - second], axis=-1)  # (B, 3)
    return -tf.reduce_logsumexp(terms, axis=-1)
