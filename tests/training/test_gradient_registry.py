"""What a training held is freed with it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.optim.gradient_registry import released_gradients
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.strict import parse
from lfm4ads_tf.training.config import TrainingConfig
from lfm4ads_tf.training.schedule import epochs
from lfm4ads_tf.training.trainer import Trainer


class Lookup:
    """Stands for a large table of representations."""

    def __call__(self, rows: np.ndarray) -> Mapping[str, np.ndarray]:
        return {"UR": np.zeros((len(rows), 3), np.float32)}


def test_a_training_leaves_nothing_behind(make_ads: Any, ads_features: Any, tmp_path: Path) -> None:
    cache = make_ads(features=ads_features("user_id", "item_id")).cache
    training = TrainingConfig(batch_size=64, epochs=1)

    def train() -> weakref.ref[Lookup]:
        model = build.upstream(cache.layout, parse(RunConfig, {}, source="run"), 0)
        lookup = Lookup()
        Trainer(
            model,
            [model.backbone.embeddings],
            Objective.of(model.loss_terms, training.optimizer),
            cache,
            training,
            seed=0,
            label="test",
            folder=tmp_path / "model",
            tensorboard=tmp_path / "tensorboard",
            representations=lookup,
            quiet=True,
        ).fit(epochs(training, cache.train_rows))
        return weakref.ref(lookup)

    held = train()
    gc.collect()
    assert held() is None


def test_gradients_from_before_stay() -> None:
    @tf.custom_gradient
    def double(x: tf.Tensor) -> Any:
        return 2.0 * x, lambda upstream: 7.0 * upstream

    @tf.function
    def forward(x: tf.Tensor) -> tf.Tensor:
        return double(x)

    forward(tf.constant(1.0))
    with released_gradients():
        pass
    x = tf.Variable(1.0)

    @tf.function
    def gradient() -> tf.Tensor:
        with tf.GradientTape() as tape:
            value = forward(x)
        return tape.gradient(value, x)

    assert float(gradient()) == 7.0
