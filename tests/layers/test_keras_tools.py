"""Keras' callbacks and ways of saving, with the package's models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.models.task_model import TaskModel
from tests.layers.cases import MODELS
from tests.small_models import EMBEDDINGS, LAYOUT, NETWORK, random_batch


def dataset(batches: int = 3, rows: int = 8) -> tf.data.Dataset:
    """Random batches of `LAYOUT`."""
    made = [random_batch(rows, seed) for seed in range(batches)]
    spec = tf.nest.map_structure(_of_any_size, made[0])
    return tf.data.Dataset.from_generator(lambda: iter(made), output_signature=spec)


def _of_any_size(value: Any) -> Any:
    spec = tf.type_spec_from_value(value)
    if isinstance(spec, tf.NoneTensorSpec):
        return spec
    if isinstance(spec, tf.RaggedTensorSpec):
        return tf.RaggedTensorSpec([None, None], spec.dtype, 1, spec.row_splits_dtype)
    return tf.TensorSpec([None, *spec.shape[1:]], spec.dtype)


@pytest.fixture(scope="module")
def model() -> FoundationModel:
    """A compiled foundation model with sharded tables, traced once for the whole module."""
    sharded = EMBEDDINGS.model_copy(update={"shards": 2})
    made = FoundationModel(LAYOUT, NETWORK, sharded, seed=1)
    made.compile()
    made.fit(dataset(), verbose=0)
    return made


def logits(model: Any) -> np.ndarray:
    return model.predict_on_batch(random_batch(5, seed=9))


def test_tensorboard_writes_events(model: FoundationModel, tmp_path: Path) -> None:
    board = tf_keras.callbacks.TensorBoard(tmp_path)
    model.fit(dataset(), validation_data=dataset(), verbose=0, callbacks=[board])
    tags = set()
    for file in sorted(tmp_path.rglob("events.out.tfevents.*")):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            tags |= {value.tag for value in event.summary.value}
    assert {"epoch_loss", "epoch_auc"} <= tags


def test_rate_callbacks_say_that_they_miss_one_rate(model: FoundationModel) -> None:
    schedule = tf_keras.callbacks.LearningRateScheduler(lambda epoch: 0.1)
    with pytest.raises(ValueError, match='must have a "lr" attribute'):
        model.fit(dataset(), verbose=0, callbacks=[schedule])


def test_early_stopping_goes_by_auc_and_restores_the_best(model: FoundationModel) -> None:
    seen: list[tuple[float, np.ndarray]] = []
    note = tf_keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append((logs["val_auc"], logits(model)))
    )
    stop = tf_keras.callbacks.EarlyStopping(
        monitor="val_auc", mode="max", min_delta=2.0, patience=2, restore_best_weights=True
    )
    history = model.fit(
        dataset(), validation_data=dataset(), epochs=9, verbose=0, callbacks=[note, stop]
    )
    # no epoch is better by 2: the first one stays the best, and two more are waited for
    assert len(history.history["val_auc"]) == 3 == len(seen)
    assert all(0.0 <= value <= 1.0 for value in history.history["val_auc"])
    assert np.array_equal(logits(model), seen[0][1])
    assert not np.array_equal(seen[-1][1], seen[0][1])


def test_checkpoints_of_models_and_of_weights(model: FoundationModel, tmp_path: Path) -> None:
    best = {"monitor": "val_auc", "mode": "max"}
    saved = [
        tf_keras.callbacks.ModelCheckpoint(f"{tmp_path}/whole.keras", **best),
        tf_keras.callbacks.ModelCheckpoint(f"{tmp_path}/w.weights.h5", save_weights_only=True),
        tf_keras.callbacks.ModelCheckpoint(f"{tmp_path}/tf/weights", save_weights_only=True),
    ]
    model.fit(dataset(), validation_data=dataset(), verbose=0, callbacks=saved)
    expected = logits(model)
    loaded = tf_keras.models.load_model(tmp_path / "whole.keras")
    assert np.array_equal(logits(loaded), expected)
    for name in ("w.weights.h5", "tf/weights"):
        for variable in loaded.weights:
            variable.assign(tf.zeros_like(variable))
        assert not np.array_equal(logits(loaded), expected)
        loaded.load_weights(tmp_path / name)
        assert np.array_equal(logits(loaded), expected), name


def test_batches_alone_are_trained_on_and_scored(model: FoundationModel) -> None:
    batch = random_batch(6)
    before = logits(model)
    assert np.isfinite(model.train_on_batch(batch))
    assert not np.array_equal(logits(model), before)
    loss = model.test_on_batch(batch)
    expected = float(model.loss_terms(batch, training=False)["tasks"])
    # means over all batches since the metrics were set back: one
    model.reset_metrics()
    loss = model.test_on_batch(batch)
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("where", ["folder", "model.h5", "model.tf"])
def test_other_formats_are_refused(model: FoundationModel, where: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.keras file") as refused:
        model.save(tmp_path / where)
    assert "export_model" in str(refused.value)
    with pytest.raises(UserError, match=r"\.keras file"):
        model.save(tmp_path / "model.keras", save_format="tf")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_other_optimizers_losses_and_metrics_are_refused(case: Any) -> None:
    model = case.make()
    for refused in ("adam", tf_keras.optimizers.Adam()):
        with pytest.raises(UserError, match="HybridOptimizer"):
            model.compile(refused)
    for name in ("loss", "metrics", "loss_weights", "weighted_metrics"):
        with pytest.raises(UserError, match="own losses and metrics"):
            model.compile(**{name: ["mse"]})
    calls = [(model.fit, dataset()), (model.train_on_batch, case.inputs(2))]
    if not isinstance(model, TaskModel):  # whose metrics need no optimizer
        calls.append((model.evaluate, dataset()))
    for call, given in calls:
        with pytest.raises(UserError, match="not compiled"):
            call(given)


@pytest.mark.slow
def test_another_process_loads_what_was_saved(model: FoundationModel, tmp_path: Path) -> None:
    """With the package imported, and for layers of a functional model their class too."""
    ids = tf_keras.Input((1,), dtype=tf.int64)
    tables = ShardedEmbedding([TableConfig("user", 9, 4)], [EmbeddedFeature("user", "user")])
    functional = tf_keras.Model(ids, tf_keras.layers.Flatten()(tables(ids)[4]))
    functional.save(tmp_path / "functional.keras")
    model.save(tmp_path / "model.keras")
    script = f"""
import lfm4ads_tf as lfm
import numpy as np
import tf_keras
model = tf_keras.models.load_model({str(tmp_path / "model.keras")!r})
np.save({str(tmp_path / "rate.npy")!r}, model.heads.shared.kernel.numpy())
lfm.ShardedEmbedding
functional = tf_keras.models.load_model({str(tmp_path / "functional.keras")!r})
np.save({str(tmp_path / "fields.npy")!r}, functional(np.array([[3], [-1]])).numpy())
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=300)
    assert np.array_equal(np.load(tmp_path / "rate.npy"), model.heads.shared.kernel.numpy())
    expected = functional(np.array([[3], [-1]])).numpy()
    assert np.array_equal(np.load(tmp_path / "fields.npy"), expected)
