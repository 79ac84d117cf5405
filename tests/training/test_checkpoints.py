from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from lfm4ads_tf.embeddings.optimizers import HybridOptimizer
from lfm4ads_tf.training.checkpoints import (
    Position,
    TrainingCheckpoint,
    read_weights,
    write_weights,
)


def model_of(seed: int = 0) -> tf_keras.Model:
    dense = tf_keras.layers.Dense(
        2, kernel_initializer=tf_keras.initializers.GlorotUniform(seed=seed), name="d"
    )
    model = tf_keras.Sequential([dense], name="m")
    model(tf.zeros([1, 3]))
    return model


def checkpoint_of(folder: Path, seed: int = 0) -> tuple[tf_keras.Model, TrainingCheckpoint]:
    model = model_of(seed)
    optimizer = HybridOptimizer(0.1, 0.1)
    optimizer.build([], model.trainable_variables)
    return model, TrainingCheckpoint(folder, model, optimizer)


def test_nothing_to_restore(tmp_path: Path) -> None:
    _, checkpoint = checkpoint_of(tmp_path)
    assert checkpoint.restore() == Position(0, 0, 0)
    assert checkpoint.history({"a"}) == []


def test_position_and_weights_come_back(tmp_path: Path) -> None:
    model, checkpoint = checkpoint_of(tmp_path)
    checkpoint.save(0, 5, 5)
    model.layers[0].bias.assign([3.0, 4.0])
    # The last step of a phase and its end are two saves at one step.
    checkpoint.save(0, 6, 6)
    history = [{"phase": "a", "value": 0.5, "step": 6}, {"phase": "b", "value": 0.6, "step": 9}]
    checkpoint.save(1, 0, 6, history)
    again, restored = checkpoint_of(tmp_path, seed=1)
    assert restored.restore() == Position(1, 0, 6)
    assert restored.history({"a"}) == history[:1]
    for one, other in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(list((tmp_path / "checkpoint").glob("*.index"))) == 1


def test_best_weights(tmp_path: Path) -> None:
    model, checkpoint = checkpoint_of(tmp_path)
    for k in range(4):
        model.layers[0].bias.assign([float(k), 0.0])
        checkpoint.save_best(f"epoch_{k}")
    assert len(list((tmp_path / "best").iterdir())) == 2
    checkpoint.restore_best("epoch_2")
    assert model.layers[0].bias.numpy()[0] == 2.0


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    write_weights(model_of(), tmp_path / "w")
    other = tf_keras.Sequential([tf_keras.layers.Dense(2), tf_keras.layers.Dense(2)])
    other(tf.zeros([1, 3]))
    with pytest.raises(AssertionError):
        read_weights(other, tmp_path / "w")
    same = model_of(seed=3)
    read_weights(same, tmp_path / "w")
    np.testing.assert_array_equal(same.layers[0].kernel, model_of().layers[0].kernel)
