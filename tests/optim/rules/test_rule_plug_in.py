"""A user's update rule, registered under a name, from the configuration to a trained table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.optim.model_optimizers import table_rule
from lfm4ads_tf.optim.row_update import update_rows
from lfm4ads_tf.optim.rules.adagrad import Adagrad
from lfm4ads_tf.optim.rules.registry import RULES
from lfm4ads_tf.optim.rules.rule import RowRule
from lfm4ads_tf.optim.rules.slot import Slot
from lfm4ads_tf.strict import parse
from lfm4ads_tf.training.config import OptimizerConfig


@dataclass(frozen=True)
class SignStep(RowRule):
    """w <- w - learning_rate * sign(g) / (1 + n)^power, n counting a set's touches before."""

    name: ClassVar[str] = "sign_step"
    power: float = 0.5

    @property
    def slots(self) -> tuple[Slot, ...]:
        return (Slot("touches", per_element=False, initial=0.0),)

    def update(
        self,
        weights: tf.Tensor,
        slots: tuple[tf.Tensor, ...],
        gradient: tf.Tensor,
        learning_rate: tf.Tensor,
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        (touches,) = slots
        size = learning_rate / tf.pow(1.0 + touches, self.power)
        return weights - size * tf.sign(gradient), (touches + 1.0,)


@dataclass(frozen=True)
class HalfAdagrad(Adagrad):
    """Adagrad with half of its step: another formula under an inherited name and slots."""

    def update(
        self,
        weights: tf.Tensor,
        slots: tuple[tf.Tensor, ...],
        gradient: tf.Tensor,
        learning_rate: tf.Tensor,
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        return super().update(weights, slots, gradient, 0.5 * learning_rate)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    with RULES.added("sign_step", SignStep), RULES.added("half_adagrad", HalfAdagrad):
        yield


def trained(rule: RowRule, steps: int) -> np.ndarray:
    """Rows after steps with a gradient of (2, -3) for row 1 and none for row 0."""
    table = tf.Variable(np.array([[1.0, 2.0], [3.0, 4.0]], np.float32))
    slots = [
        tf.Variable(tf.fill([2, 2 if slot.per_element else 1], slot.initial)) for slot in rule.slots
    ]
    gradient = tf.IndexedSlices(tf.constant([[0.5, -1.0], [1.5, -2.0]]), tf.constant([1, 1]))
    for _ in range(steps):
        update_rows(rule, table, slots, gradient, tf.constant(0.1), sets=1)
    return np.asarray(table.numpy())


def test_a_configuration_names_it_and_its_formula_moves_the_rows() -> None:
    raw = {"rule": "sign_step", "rule_options": {"power": 1.0}}
    rule = table_rule(parse(OptimizerConfig, raw, source="optimizer"))
    assert rule == SignStep(1.0)
    size = 0.1 * (1 + 1 / 2 + 1 / 3)
    expected = [[1.0, 2.0], [3.0 - size, 4.0 + size]]
    np.testing.assert_allclose(trained(rule, 3), expected, rtol=1e-6)


def test_an_optimizer_trains_sharded_tables_by_it() -> None:
    """Two steps that touch row 3 twice each and row 5 in the second alone."""
    layer = ShardedEmbedding(
        [TableConfig("user", 9, 2, 0.5)], [EmbeddedFeature("user", "user")], shards=2, seed=1
    )
    rule = table_rule(parse(OptimizerConfig, {"rule": "sign_step"}, source="optimizer"))
    optimizer = HybridOptimizer(0.1, 0.1, rule=rule)
    optimizer.build([layer], [])
    before = layer.read_table("user")
    parts = layer.all_parts()
    for ids in ([3, 3], [3, 5, 3]):
        with tf.GradientTape() as tape:
            rows = layer(tf.constant(ids, tf.int64)[:, tf.newaxis])[2]  # (B, 1, 1, 2)
            loss = tf.reduce_sum(rows * [1.0, -1.0])
        optimizer.apply_gradients(zip(tape.gradient(loss, parts), parts, strict=True))
    step = np.zeros_like(before)
    step[3] = 0.1 * (1 + 1 / np.sqrt(2))
    step[5] = 0.1
    np.testing.assert_allclose(
        layer.read_table("user"), before - step * [1.0, -1.0], rtol=1e-6, atol=1e-7
    )


def test_a_changed_formula_is_not_left_to_the_compiled_twin_of_its_parent() -> None:
    config = parse(OptimizerConfig, {"rule": "half_adagrad"}, source="optimizer")
    rule = table_rule(config)
    assert rule == HalfAdagrad(0.1) and rule.compiled_options is None
    assert Adagrad().compiled_options is not None
    g = np.array([2.0, -3.0])
    step = 0.05 * g / (np.sqrt(0.1 + g * g) + 1e-7)
    np.testing.assert_allclose(trained(rule, 1), [[1.0, 2.0], [3.0, 4.0] - step], rtol=1e-6)


def test_a_shorthand_gives_an_option_that_is_not_given() -> None:
    short = {"rule": "half_adagrad", "adagrad_initial": 0.4}
    assert table_rule(parse(OptimizerConfig, short, source="o")) == HalfAdagrad(0.4)
    both = {**short, "rule_options": {"initial": 0.2}}
    assert table_rule(parse(OptimizerConfig, both, source="o")) == HalfAdagrad(0.2)


def test_an_unknown_name_is_refused_when_the_configuration_is_read() -> None:
    with pytest.raises(UserError, match="rule: the update rule is unknown. Did you mean"):
        parse(OptimizerConfig, {"rule": "sign_stp"}, source="optimizer")
