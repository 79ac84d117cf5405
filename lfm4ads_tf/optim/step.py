"""One optimizer step as a function of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from lfm4ads_tf.optim.loss_sums import LossSums
from lfm4ads_tf.optim.model_optimizers import ModelOptimizers
from lfm4ads_tf.optim.objective import Objective, total_of
from lfm4ads_tf.optim.replicas import mean_over_replicas
from lfm4ads_tf.precision import Precision, training_precision


class StepLosses(NamedTuple):
    """Losses of a batch before its step.

    Attributes:
        total: Their sum, ().
        terms: Name -> loss, ().
    """

    total: tf.Tensor
    terms: dict[str, tf.Tensor]


def step_of(
    objective: Objective,
    optimizers: ModelOptimizers,
    precision: Precision = "float32",
    sums: LossSums | None = None,
) -> Callable[[Any], StepLosses]:
    """A step, for whoever traces it.

    Args:
        objective: The losses of the model, and which optimizer minimises which.
        optimizers: Its optimizers, built for the model.
        precision: Of the dense layers' products, see `lfm4ads_tf.precision`.
        sums: Where the losses are summed up.

    Returns:
        Batch -> losses before the step.
    """
    several = len(objective.optimizers) > 1

    def step(batch: Any) -> StepLosses:
        with tf.GradientTape(persistent=several) as tape, training_precision(precision):
            terms = dict(objective.losses(batch))
            minimised = objective.sums(terms)
        total = total_of(terms) if several else minimised[0]
        optimizers.apply(tape, minimised)
        total, *means = mean_over_replicas([total, *terms.values()])
        terms = dict(zip(terms, means, strict=True))
        if sums is not None:
            sums.add(terms)
        return StepLosses(total, terms)

    return step


def training_step(
    objective: Objective,
    optimizers: ModelOptimizers,
    batch_spec: Any,
    precision: Precision = "float32",
    sums: LossSums | None = None,
) -> Callable[[Any], StepLosses]:
    """A compiled step, traced once for batches of any size.

    Args:
        objective, optimizers, precision, sums: See `step_of`.
        batch_spec: Types of a batch, such as a data set's `element_spec`.

    Returns:
        Batch -> losses before the step.
    """
    compiled: Callable[[Any], StepLosses] = tf.function(
        step_of(objective, optimizers, precision, sums),
        input_signature=[batch_spec],
        autograph=False,
    )
    return compiled
