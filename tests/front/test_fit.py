"""`fit` makes the steps of `train.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import lfm4ads_tf as lfm
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.losses.task_loss import TaskLoss
from lfm4ads_tf.models.example_batch import example_batch
from lfm4ads_tf.models.model_parts import ModelParts
from lfm4ads_tf.models.trainable_model import TrainableModel
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.training.config import OptimizerConfig, TrainingConfig
from lfm4ads_tf.training.schedule import Phase, chain, epochs
from lfm4ads_tf.training.trainer import Trainer
from tests.front.conftest import Fitted

RATES = OptimizerConfig(table_learning_rate=0.1, dense_learning_rate=0.01)


def weights_of(model: TrainableModel) -> dict[str, np.ndarray]:
    """Every variable and table by its path."""
    parts = ModelParts(model)
    tables = {
        f"{path}/{name}": layer.read_table(name)
        for path, layer in parts.embeddings.items()
        for name in layer.layout.tables
    }
    return tables | {path: variable.numpy() for path, variable in parts.dense.items()}


def assert_same_weights(one: TrainableModel, other: TrainableModel) -> None:
    """Both have the same variables, bit by bit."""
    mine, theirs = weights_of(one), weights_of(other)
    assert mine.keys() == theirs.keys()
    for path, value in mine.items():
        np.testing.assert_array_equal(value, theirs[path], err_msg=path)


def trained(
    model: TrainableModel, log: lfm.EncodedLog, config: TrainingConfig, phases: list[Phase],
    folder: Path,
) -> None:  # fmt: skip
    """Trains a model as the stages of `train.py` do."""
    model(example_batch(log.layout))
    Trainer(
        model, model.all_embeddings, Objective(model.loss_terms, model.optimizers(RATES)),
        log.cache, config, seed=3, label="test", folder=folder, tensorboard=folder / "logs",
        quiet=True,
    ).fit(phases)  # fmt: skip


@pytest.fixture(autouse=True)
def in_order() -> None:
    """Ops whose sums depend on which thread ends first would make two trainings differ."""
    tf.config.experimental.enable_op_determinism()


@pytest.mark.slow
def test_a_chain_gives_the_weights_and_snapshots_of_train_py(
    log: lfm.EncodedLog, network: lfm.NetworkConfig, tmp_path: Path
) -> None:
    schedule = {"replay": 1, "final_passes": 2, "final_decay": 0.5, "batch_size": 48}
    config = TrainingConfig(schedule="chain", **schedule)  # type: ignore[arg-type]

    def model() -> lfm.FoundationModel:
        return lfm.FoundationModel(log.layout, network, lfm.EmbeddingsConfig(dim=4), seed=1)

    theirs, ours = model(), model()
    phases = chain(config, log.cache)
    trained(theirs, log, config.model_copy(update={"optimizer": RATES}), phases, tmp_path / "run")

    ours.compile(RATES)
    walk = lfm.PeriodChain(log, seed=3, folder=tmp_path / "fit", **schedule)  # type: ignore[arg-type]
    history = ours.fit(walk.dataset(), callbacks=[walk], verbose=0)
    assert len(log.cache.auxiliary_rows) and np.isfinite(history.history["loss"]).all()
    assert_same_weights(ours, theirs)

    snapshots = sorted(int(p.name) for p in (tmp_path / "run" / "snapshots").iterdir())
    assert walk.snapshots == snapshots and len(snapshots) > 3
    from lfm4ads_tf.training.checkpoints import read_weights

    load = walk.loader(ours)
    for period in snapshots:
        load(period)
        read_weights(theirs, tmp_path / "run" / "snapshots" / str(period))
        assert_same_weights(ours, theirs)


def test_shuffled_epochs_give_the_weights_of_train_py(
    log: lfm.EncodedLog, network: lfm.NetworkConfig, tmp_path: Path
) -> None:
    config = TrainingConfig(batch_size=40, epochs=3, optimizer=RATES)

    def model() -> lfm.DownstreamModel:
        return lfm.DownstreamModel(log.layout, network, lfm.EmbeddingsConfig(dim=4), seed=2)

    theirs, ours = model(), model()
    trained(theirs, log, config, epochs(config, log.rows("train", "t0")), tmp_path)
    ours.compile(lfm.HybridOptimizer(0.1, 0.01))
    data = log.dataset("train", scenario="t0", batch_size=40, seed=3)
    ours.fit(data, epochs=3, verbose=0)
    assert_same_weights(ours, theirs)


@pytest.mark.slow
def test_a_model_that_goes_on_after_loading_ends_as_one_that_went_on(
    log: lfm.EncodedLog, network: lfm.NetworkConfig, tmp_path: Path
) -> None:
    from tf_keras.models import load_model

    model = lfm.MMoE(log.layout, network, lfm.EmbeddingsConfig(dim=4, shards=2), seed=1)
    model.compile(lfm.HybridOptimizer(0.1, 0.01, weight_decay=0.1, clip_norm=1.0))
    model.fit(log.dataset("train", batch_size=64), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    assert_same_weights(model, loaded)
    for each in (model, loaded):
        each.fit(log.dataset("train", batch_size=64, seed=9), verbose=0)
    assert_same_weights(model, loaded)


def test_an_epoch_has_its_order_whoever_read_the_data_before(
    log: lfm.EncodedLog, network: lfm.NetworkConfig
) -> None:
    def model() -> lfm.MMoE:
        made = lfm.MMoE(log.layout, network, lfm.EmbeddingsConfig(dim=4), seed=1)
        made.compile(lfm.HybridOptimizer(0.1, 0.01))
        return made

    whole, parts = model(), model()
    whole.fit(log.dataset("train", batch_size=64), epochs=3, verbose=0)
    data = log.dataset("train", batch_size=64)
    parts.fit(data, epochs=1, verbose=0)
    parts.evaluate(data, verbose=0)
    next(iter(data))
    parts.fit(log.dataset("train", batch_size=64), initial_epoch=1, epochs=3, verbose=0)
    assert_same_weights(whole, parts)


def test_a_loss_that_is_set_later_is_evaluated(
    log: lfm.EncodedLog, network: lfm.NetworkConfig
) -> None:
    model = lfm.MMoE(log.layout, network, lfm.EmbeddingsConfig(dim=4))
    data = log.dataset("valid")
    before = model.evaluate(data, verbose=0, return_dict=True)["loss"]  # needs no optimizer
    weights = TrainingConfig(task_weights={"click": 3.0, "love": 3.0})
    model.task_loss = TaskLoss.of(weights, log.layout.tasks)
    after = model.evaluate(data, verbose=0, return_dict=True)["loss"]
    assert after == pytest.approx(3 * before, rel=1e-6)


def test_evaluate_has_the_exact_metrics_of_what_predict_gives(
    log: lfm.EncodedLog, fitted: Fitted
) -> None:
    from sklearn.metrics import log_loss, roc_auc_score

    data = log.dataset("test", batch_size=50)
    scores = fitted.upstream.predict(data, verbose=0)
    labels = log.cache.labels[log.rows("test")]
    values = fitted.upstream.evaluate(data, verbose=0, return_dict=True)
    each = []
    for k, task in enumerate(log.layout.tasks):
        known = np.isfinite(labels[:, k])
        y, p = labels[known, k], scores[known, k].astype(np.float64)
        each.append(roc_auc_score(y, p))
        assert values[f"{task}_auc"] == pytest.approx(each[-1], abs=1e-9)
        assert values[f"{task}_logloss"] == pytest.approx(log_loss(y, p), rel=1e-6)
        assert values[f"{task}_calibration"] == pytest.approx(p.mean() / y.mean(), rel=1e-6)
    assert values["auc"] == pytest.approx(np.mean(each), abs=1e-9)
    loss = sum(
        log_loss(labels[known, k], scores[known, k].astype(np.float64)) * known.mean()
        for k in range(2)
        for known in [np.isfinite(labels[:, k])]
    )
    assert values["loss"] == pytest.approx(loss, rel=1e-5)


def test_what_cannot_be_fitted_is_told(log: lfm.EncodedLog, network: lfm.NetworkConfig) -> None:
    model = lfm.FoundationModel(log.layout, network, lfm.EmbeddingsConfig(dim=4))
    with pytest.raises(UserError, match="not compiled"):
        model.fit(log.dataset("train"))
    with pytest.raises(UserError, match="HybridOptimizer"):
        model.compile("adam")
    with pytest.raises(UserError, match="own losses"):
        model.compile(lfm.HybridOptimizer(), loss="mse")
    with pytest.raises(UserError, match="no precision 'float61'.*float32"):
        model.compile(precision="float61")  # type: ignore[arg-type]
    model.compile()
    with pytest.raises(UserError, match="no use for `class_weight`"):
        model.fit(log.dataset("train"), class_weight={0: 1.0})
    with pytest.raises(UserError, match="tf.data.Dataset of encoded batches"):
        model.fit(np.zeros((3, 2)))
