"""One optimizer step as a function of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from lfm4ads_tf.embeddings.table import ShardedEmbedding
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.optim.rules.row_rule import row_rule, rule_variant
from lfm4ads_tf.optim.rules.rule import RowRule
from lfm4ads_tf.precision import Precision, training_precision
from lfm4ads_tf.training.config import OptimizerConfig

LossFunction = Callable[[Any], tf.Tensor]


def table_rule(config: OptimizerConfig) -> RowRule:
    """The rule of the tables.

    Raises:
        UserError: An option is unknown or out of its bounds.
    """
    options: dict[str, Any] = dict(config.rule_options)
    for option, key in rule_variant(config.rule).rule.shorthands.items():
        options.setdefault(option, getattr(config, key))
    return row_rule(config.rule, **options)


def make_optimizer(
    config: OptimizerConfig, model: tf_keras.Model, embeddings: Sequence[ShardedEmbedding]
) -> HybridOptimizer:
    """The optimizer of a configuration, built with a model's tables and its other variables."""
    optimizer = HybridOptimizer(
        config.table_learning_rate,
        config.dense_learning_rate,
        rule=table_rule(config),
        group_rates=config.group_rates,
        weight_decay=config.weight_decay,
        table_l2=config.table_l2,
        clip_norm=config.clip_norm,
    )
    parts = {id(part) for layer in embeddings for part in layer.all_parts()}
    dense = [v for v in model.trainable_variables if id(v) not in parts]
    optimizer.build(list(embeddings), dense)
    return optimizer


def training_step(
    model: tf_keras.Model,
    loss: LossFunction,
    optimizer: HybridOptimizer,
    batch_spec: Any,
    precision: Precision = "float32",
) -> Callable[[Any], tf.Tensor]:
    """A compiled step, traced once for batches of any size.

    Args:
        model: The model; its trainable variables were given to `optimizer.build`.
        loss: Batch -> scalar loss.
        optimizer: The optimizer.
        batch_spec: Types of a batch, such as a data set's `element_spec`.
        precision: Of the dense layers' products, see `lfm4ads_tf.precision`.

    Returns:
        Batch -> loss before the step.
    """

    def step(batch: Any) -> tf.Tensor:
        with tf.GradientTape() as tape, training_precision(precision):
            value = loss(batch)
        variables = model.trainable_variables
        gradients = tape.gradient(value, variables)
        optimizer.apply_gradients(
            [(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None]
        )
        return value

    compiled: Callable[[Any], tf.Tensor] = tf.function(
        step, input_signature=[batch_spec], autograph=False
    )
    return compiled
