"""Drives an update rule over several steps, and gradients to drive it with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.optim.rules.rule import RowRule

SHAPE = (5, 3, 4)  # U, K, D: with D > K > 1 a wrong axis shows


@pytest.fixture(scope="session")  # hypothesis wants them so
def start() -> np.ndarray:
    return np.random.default_rng(10).normal(size=SHAPE).astype(np.float32)


@pytest.fixture(scope="session")
def gradients() -> np.ndarray:
    """(steps, U, K, D); the scales differ from set to set, and some elements are 0."""
    rng = np.random.default_rng(11)
    values = rng.normal(size=(6, *SHAPE)) * np.array([0.01, 1.0, 20.0])[:, np.newaxis]
    return np.where(rng.random(values.shape) < 0.1, 0.0, values).astype(np.float32)


@pytest.fixture(scope="session")
def run_rule() -> Callable[..., tuple[np.ndarray, list[np.ndarray]]]:
    """Weights and slots after one step per gradient, with a learning rate per step."""

    def run(
        rule: RowRule, weights: np.ndarray, gradients: np.ndarray, rates: float | list[float]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        units, sets, width = weights.shape
        value = tf.constant(weights)
        slots = tuple(
            tf.fill([units, sets, width if slot.per_element else 1], np.float32(slot.initial))
            for slot in rule.slots
        )
        rates = [rates] * len(gradients) if isinstance(rates, float) else rates
        for gradient, rate in zip(gradients, rates, strict=True):
            value, slots = rule.update(
                value, slots, tf.constant(gradient), tf.constant(rate, tf.float32)
            )
        return value.numpy(), [slot.numpy() for slot in slots]

    return run
