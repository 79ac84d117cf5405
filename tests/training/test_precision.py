"""Products in bfloat16: rounded where they are asked for, float32 everywhere else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.data.input import batches
from lfm4ads_tf.export.merging import merged_model
from lfm4ads_tf.losses.masked_bce import masked_bce
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.precision import (
    SMALLEST,
    Precision,
    dense,
    product,
    sums_in_float32,
    training_precision,
)
from lfm4ads_tf.strict import parse
from lfm4ads_tf.training.config import TrainingConfig
from lfm4ads_tf.training.schedule import epochs
from lfm4ads_tf.training.trainer import Trainer
from tests.rounding import assert_close, room

pytestmark = [
    pytest.mark.processor,
    # TensorFlow asks the processor, not oneDNN, whether oneDNN knows bfloat16, and dies of the
    # difference; on a processor of that kind it does not ask for it.
    pytest.mark.skipif(
        os.environ.get("ONEDNN_MAX_CPU_ISA", "").startswith(("SSE", "AVX2")),
        reason="oneDNN is kept from instructions that TensorFlow sees and uses",
    ),
]

FEATURES = ["user_id", "segment", "user_click", "clicked", "item_id", "tab"]
WIDE = SMALLEST
PARTS: dict[str, dict[str, Any]] = {
    "foundation": {
        "network": {
            "user_tower": [WIDE, WIDE],
            "block": {
                "layers": [
                    {"type": "cross", "depth": 1, "rank": WIDE},
                    {"type": "dnn", "units": [WIDE]},
                ]
            },
        },
    },
    "mmoe": {
        "model": "mmoe",
        "network": {"user_tower": [WIDE]},
        "mmoe": {"experts": 2, "expert_units": [WIDE, WIDE], "task_units": [WIDE]},
    },
}
MIXER: dict[str, Any] = {
    "network": {
        "user_tower": [],
        "item_tower": [],
        "block": {
            "layers": [{"type": "mixer", "tokens": 3, "dim": WIDE, "depth": 1, "expansion": 1}]
        },
    },
}
STEPS = 24  # of two epochs: 360 rows in batches of 32
ROUNDING = 2.0**-8  # largest relative error of a rounding to bfloat16


@pytest.fixture(scope="module")
def ads(make_ads: Any, ads_features: Any) -> Any:
    """Few features, so that a step is traced fast."""
    return make_ads(features=ads_features(*FEATURES))


def model_of(ads: Any, kind: str, shards: int = 1) -> UpstreamModel:
    part = {
        **(PARTS | {"mixer": MIXER})[kind],
        "embeddings": {"dim": 16, "shards": shards, "init_scale": 0.3},
    }
    return build.upstream(ads.cache.layout, parse(RunConfig, {"upstream": part}, source="r"), 1)


def batch_of(ads: Any, rows: int = 256) -> Any:
    return next(iter(batches(ads.cache, np.arange(rows), rows)))


def loss_of(model: UpstreamModel, batch: Any) -> tf.Tensor:
    return masked_bce(batch["labels"], model(batch, training=True), tf.ones([2]))


def trainer_of(ads: Any, folder: Path, precision: Precision, **over: Any) -> Trainer:
    optimizer = {"table_learning_rate": 0.1, "dense_learning_rate": 0.002}
    raw = {"batch_size": 32, "epochs": 2, "checkpoint_every": 4, "optimizer": optimizer}
    training = parse(TrainingConfig, {**raw, "precision": precision, **over}, source="training")
    model = model_of(ads, "foundation")
    return Trainer(
        model,
        [model.backbone.embeddings],
        Objective.of(model.loss_terms, training.optimizer),
        ads.cache,
        training,
        seed=7,
        label="test",
        folder=folder,
        tensorboard=folder / "tensorboard",
        quiet=True,
    )


def dtypes_of(graph: tf.Graph) -> Iterator[tuple[str, tf.DType]]:
    """Operation and type of every output of a graph and of the functions that it calls."""
    for operation in graph.get_operations():
        yield from ((operation.type, output.dtype) for output in operation.outputs)
    for function in graph.as_graph_def().library.function:
        for node in function.node_def:
            for attribute in node.attr.values():
                yield node.op, tf.as_dtype(attribute.type or tf.float32.as_datatype_enum)


def rounded(values: Any) -> Any:
    return tf.cast(tf.cast(values, tf.bfloat16), tf.float32).numpy().astype(np.float64)


@pytest.mark.parametrize("stack", [(), (3,)], ids=["one kernel", "stack"])
def test_a_product_and_its_gradients_are_those_of_rounded_operands(stack: tuple[int, ...]) -> None:
    """NumPy's products of the rounded operands; one more rounding is that of the result."""
    rng = np.random.default_rng(0)

    def some(*shape: int) -> np.ndarray:
        return rng.normal(size=(*stack, *shape)).astype(np.float32)

    x, w, dy = some(40, WIDE), some(WIDE, WIDE + 8), some(40, WIDE + 8)
    kernel, inputs = tf.Variable(w), tf.constant(x)
    with tf.GradientTape() as tape, training_precision("mixed_bfloat16"):
        tape.watch(inputs)
        y = product(inputs, kernel)
    dx, dw = tape.gradient(y, [inputs, kernel], output_gradients=tf.constant(dy))
    bx, bw, bdy = rounded(x), rounded(w), rounded(dy)
    pairs = [(bx, bw), (bdy, np.swapaxes(bw, -1, -2)), (np.swapaxes(bx, -1, -2), bdy)]
    for found, (left, right) in zip([y, dx, dw], pairs, strict=True):
        assert found.dtype == tf.float32
        exact, sizes = left @ right, np.abs(left) @ np.abs(right)
        allowed = room(left.shape[-1], sizes) + ROUNDING * np.abs(exact)
        assert np.all(np.abs(found - exact) <= allowed)
    assert not np.array_equal(y, tf.matmul(x, w))


def test_float32_unless_asked_for_and_where_rounding_does_not_pay() -> None:
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(8, WIDE)), tf.float32)
    thin = tf.constant(rng.normal(size=(WIDE, WIDE - 1)), tf.float32)
    wide = tf.constant(rng.normal(size=(WIDE, WIDE)), tf.float32)
    exact = tf.matmul(x, wide).numpy()
    with training_precision("mixed_bfloat16"):
        assert np.array_equal(product(x, thin), tf.matmul(x, thin))
        assert not np.array_equal(product(x, wide), exact)
        with training_precision("float32"):
            assert np.array_equal(product(x, wide), exact)
        assert not np.array_equal(product(x, wide), exact)
    assert np.array_equal(product(x, wide), exact)
    with pytest.raises(KeyError), training_precision("mixed_bfloat16"):
        raise KeyError
    assert np.array_equal(product(x, wide), exact)


def test_a_dense_layer_keeps_its_bias_and_activation() -> None:
    layer = tf_keras.layers.Dense(WIDE, activation="relu", bias_initializer="ones")
    x = tf.random.stateless_normal((16, WIDE), seed=(1, 2))
    with training_precision("mixed_bfloat16"):
        dense(layer, x)  # makes the variables
        found = dense(layer, x)
    expected = layer(x)
    assert not np.array_equal(found, expected)
    # both operands are rounded, and the result
    sizes = np.abs(x.numpy()) @ np.abs(layer.kernel.numpy())
    assert np.all(np.abs(found - expected) <= 3 * ROUNDING * sizes)


@pytest.mark.parametrize("kind", [*PARTS, "mixer"])
def test_gradients_are_close_and_arrive_in_float32(kind: str, ads: Any) -> None:
    model, batch = model_of(ads, kind), batch_of(ads)
    losses, gradients = [], []
    precisions: tuple[Precision, ...] = ("float32", "mixed_bfloat16")
    for precision in precisions:
        with tf.GradientTape() as tape, training_precision(precision):
            losses.append(loss_of(model, batch))
        gradients.append(tape.gradient(losses[-1], model.trainable_variables))
    assert losses[1].dtype == tf.float32
    np.testing.assert_allclose(losses[1], losses[0], rtol=5e-3)
    changed = sparse = 0
    for variable, exact, found in zip(model.trainable_variables, *gradients, strict=True):
        if isinstance(found, tf.IndexedSlices):
            assert variable.dtype == tf.float32
            sparse += 1
        assert found.dtype == tf.float32, variable.name
        exact, found = (tf.convert_to_tensor(g).numpy() for g in (exact, found))
        error = float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
        # Several roundings deep, with some relu on its other side and rows that cancel each other.
        assert error < 25 * ROUNDING, (variable.name, error)
        changed += error > 0
    assert changed and sparse


@pytest.mark.parametrize(
    "kind", [k if k == "mmoe" else pytest.param(k, marks=pytest.mark.slow) for k in PARTS]
)
def test_only_the_training_step_holds_bfloat16(kind: str, ads: Any, tmp_path: Path) -> None:
    """An export too is traced outside of it, from the same model after training."""
    model, batch = model_of(ads, kind, shards=2), batch_of(ads)

    def train(batch: Any) -> tf.Tensor:
        with training_precision("mixed_bfloat16"):
            return loss_of(model, batch)

    step = tf.function(train).get_concrete_function(batch)
    rounding = "MatMul" if sums_in_float32() else "Cast"
    assert (rounding, tf.bfloat16) in set(dtypes_of(step.graph))
    step(batch)
    whole = merged_model(model, lambda shards, _: model_of(ads, kind, shards), batch)
    for served in (model, whole):
        for call in (served, served.represent):
            graph = tf.function(call).get_concrete_function(batch).graph
            assert tf.bfloat16 not in {dtype for _, dtype in dtypes_of(graph)}
    module = tf.Module()
    module.whole = whole
    module.score = tf.function(lambda ids: whole({**batch, "ids": ids}))
    signature = module.score.get_concrete_function(tf.TensorSpec(batch["ids"].shape, tf.int64))
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=signature)
    assert b"bfloat16" not in (tmp_path / "saved" / "saved_model.pb").read_bytes()
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    graph = loaded.signatures["serving_default"].graph
    assert tf.bfloat16 not in {dtype for _, dtype in dtypes_of(graph)}
    assert_close(loaded.score(batch["ids"]), model(batch), terms=4 * WIDE)


@pytest.mark.slow
def test_it_trains_as_far_as_float32_and_is_evaluated_in_float32(ads: Any, tmp_path: Path) -> None:
    """The mean loss over all training rows after six epochs, within 1%."""
    batch = batch_of(ads, len(ads.cache.train_rows))
    losses, first = {}, float(loss_of(model_of(ads, "foundation"), batch))
    precisions: tuple[Precision, ...] = ("float32", "mixed_bfloat16")
    for precision in precisions:
        trainer = trainer_of(ads, tmp_path / precision, precision, epochs=6)
        trainer.fit(epochs(trainer.config, ads.cache.train_rows))
        logits = trainer.model(batch)
        losses[precision] = float(masked_bce(batch["labels"], logits, tf.ones([2])))
        if precision == "mixed_bfloat16":
            twin = model_of(ads, "foundation")
            names = [[v.name for v in m.variables] for m in (twin, trainer.model)]
            assert names[0] == names[1]  # a checkpoint of one precision is one of the other
            twin.set_weights(trainer.model.get_weights())
            assert np.array_equal(twin(batch), logits)
    assert losses["float32"] < 0.9 * first
    assert losses["mixed_bfloat16"] != losses["float32"]
    assert losses["mixed_bfloat16"] == pytest.approx(losses["float32"], rel=0.01)


class Killed(Exception):
    """Stands for a kill: nothing after it is written."""


@pytest.mark.slow
def test_a_resumed_run_is_bit_equal(
    ads: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trainer_of(ads, tmp_path / "whole", "mixed_bfloat16")
    phases = epochs(whole.config, ads.cache.train_rows)
    assert whole.fit(phases).steps == STEPS
    killed = trainer_of(ads, tmp_path / "killed", "mixed_bfloat16")
    compiled = killed._compiled

    def stopping(dataset: Any) -> Any:
        step, left = compiled(dataset), iter(range(10))

        def run(batch: Any) -> Any:
            if next(left, None) is None:
                raise Killed
            return step(batch)

        return run

    monkeypatch.setattr(killed, "_compiled", stopping)
    with pytest.raises(Killed):
        killed.fit(phases)
    resumed = trainer_of(ads, tmp_path / "killed", "mixed_bfloat16")
    assert resumed.checkpoint.restore().step == 8
    assert resumed.fit(phases).steps == STEPS
    for one, other in zip(whole.model.variables, resumed.model.variables, strict=True):
        assert np.array_equal(one, other), one.name
