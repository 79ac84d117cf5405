"""A user's own Keras models that hold the package's layers, trained by Keras with our optimizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.models.tower import Tower
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.optim.rules.registry import RULES
from lfm4ads_tf.optim.rules.row_rule import row_rule

LOSS = tf_keras.losses.BinaryCrossentropy(from_logits=True)
TOUCHED = 8  # ids below it occur


def embedding(**options: Any) -> ShardedEmbedding:
    return ShardedEmbedding(
        [TableConfig("user", 20, 4, init_scale=0.5), TableConfig("item", 12, 3, init_scale=0.5)],
        [EmbeddedFeature("user", "user"), EmbeddedFeature("item", "item")],
        **options,
    )


class UserModel(tf_keras.Model):
    """As users write one: layers without names, a configuration of what differs."""

    def __init__(self, shards: int = 2, **options: Any) -> None:
        super().__init__(**options)
        self.shards = shards
        self.tables = embedding(shards=shards)
        initial = tf_keras.initializers.GlorotUniform(seed=3)
        self.deep = tf_keras.layers.Dense(4, activation="relu", kernel_initializer=initial)
        self.logit = tf_keras.layers.Dense(1, kernel_initializer=initial)

    def call(self, ids: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits (B, 1)."""
        fields = self.tables(ids, training=training)
        flat = [tf.reshape(value, [-1, np.prod(value.shape[1:])]) for value in fields.values()]
        return self.logit(self.deep(tf.concat(flat, axis=-1)))

    def get_config(self) -> dict[str, Any]:
        """Its arguments."""
        return {"shards": self.shards}


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    """Ids (24, 2) below `TOUCHED`, labels (24, 1)."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, TOUCHED, (24, 2))
    return ids, rng.integers(0, 2, (24, 1)).astype(np.float32)


def optimizer(name: str) -> HybridOptimizer:
    return HybridOptimizer(0.1, 0.01, rule=row_rule(name), weight_decay=0.01, clip_norm=1.0)


def fitted(model: Any, rows: Any, **options: Any) -> Any:
    """One pass over the rows by Keras' own `fit`."""
    model.fit(*rows, batch_size=6, shuffle=False, verbose=0, **options)
    return model


def state(model: Any) -> dict[str, np.ndarray]:
    """Tables and slots by logical table, everything else by its order."""
    values = {}
    for table in ("user", "item"):
        fused = model.tables.layout.home(table)
        values[table] = model.tables.read_table(table)
        rows = model.tables.layout.table(table).stored_rows + 1
        for slot in model.optimizer.rule.slots:
            variable = model.optimizer.slot(model.tables, fused.name, slot.name)
            values[f"{table}/{slot.name}"] = model.tables.read_rows(table, 0, rows, variable)
    dense = [*model.deep.weights, *model.logit.weights]
    moments = [*model.optimizer.first_moments.values(), *model.optimizer.second_moments.values()]
    for k, variable in enumerate([*dense, *moments, model.optimizer.iterations]):
        values[f"{k}"] = variable.numpy()
    return values


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name


@pytest.mark.parametrize("rule", RULES)
def test_fit_touches_the_rows_of_a_batch_and_loads_with_its_slots(
    rule: str, rows: Any, tmp_path: Path
) -> None:
    model = UserModel()
    model.compile(optimizer(rule), loss=LOSS)
    before = {name: model.tables.read_table(name) for name in ("user", "item")}
    fitted(model, rows)
    trained = state(model)
    for name in ("user", "item"):
        touched = np.unique(rows[0][:, ["user", "item"].index(name)])
        others = np.setdiff1d(np.arange(len(before[name])), touched)
        assert np.array_equal(trained[name][others], before[name][others])
        assert not np.array_equal(trained[name][touched], before[name][touched])
        for slot in model.optimizer.rule.slots:
            assert np.all(trained[f"{name}/{slot.name}"][others] == np.float32(slot.initial))
    model.save(tmp_path / "model.keras")
    loaded = tf_keras.models.load_model(
        tmp_path / "model.keras", custom_objects={"UserModel": UserModel}
    )
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert_same(state(loaded), trained)
    assert_same(state(fitted(loaded, rows)), state(fitted(model, rows)))
    assert not np.array_equal(state(model)["user"], trained["user"])


@pytest.mark.parametrize("rule", RULES)
def test_fit_makes_the_steps_of_apply_gradients(rule: str, rows: Any) -> None:
    model, twin = UserModel(), UserModel()
    model.compile(optimizer(rule), loss=LOSS, run_eagerly=True)  # the same ops as the loop below
    fitted(model, rows)
    twin(rows[0][:1])
    twin.optimizer = optimizer(rule)
    twin.optimizer.build(twin.trainable_variables)
    for start in range(0, 24, 6):
        with tf.GradientTape() as tape:
            loss = LOSS(rows[1][start : start + 6], twin(rows[0][start : start + 6], training=True))
        gradients = tape.gradient(loss, twin.trainable_variables)
        twin.optimizer.apply_gradients(zip(gradients, twin.trainable_variables, strict=True))
    assert_same(state(model), state(twin))


def test_slots_are_found_by_name_where_the_order_changed(rows: Any, tmp_path: Path) -> None:
    """A layer that was frozen after training keeps its slots out of the others' way."""
    model = UserModel(name="named")
    model.compile(optimizer("adagrad"), loss=LOSS)
    fitted(model, rows)
    store: dict[str, Any] = {}
    model.optimizer.save_own_variables(store)
    other = optimizer("adagrad")
    other.build([*model.logit.trainable_variables, *model.tables.trainable_variables])
    other.load_own_variables(store)
    path = model.logit.kernel.name.split(":")[0]
    found, expected = other.first_moments[path], model.optimizer.first_moments[path]
    assert len(other.first_moments) == 2 and np.any(expected.numpy())
    assert np.array_equal(found.numpy(), expected.numpy())


def test_slots_of_another_model_are_refused(rows: Any) -> None:
    model = UserModel()
    model.compile(optimizer("adagrad"), loss=LOSS)
    fitted(model, rows)
    store: dict[str, Any] = {}
    model.optimizer.save_own_variables(store)
    other = optimizer("adagrad")
    other.build([tf.Variable(tf.zeros([3]), name="elsewhere")])
    with pytest.raises(ValueError, match="elsewhere"):
        other.load_own_variables(store)


def test_functional_models_are_saved_and_loaded(rows: Any, tmp_path: Path) -> None:
    ids = tf_keras.Input((2,), dtype=tf.int64)
    fields = embedding()(ids)
    flat = [tf_keras.layers.Flatten()(value) for value in fields.values()]
    logit = Tower([3, 1], seed=1, name="tower")(tf_keras.layers.Concatenate()(flat))
    model = tf_keras.Model(ids, logit)
    model.compile(optimizer("adam"), loss=LOSS)
    fitted(model, rows)
    model.save(tmp_path / "model.keras")
    loaded = tf_keras.models.load_model(tmp_path / "model.keras")
    expected = model.predict(rows[0], verbose=0)
    assert np.array_equal(loaded.predict(rows[0], verbose=0), expected)
    again = fitted(loaded, rows).predict(rows[0], verbose=0)
    assert np.array_equal(again, fitted(model, rows).predict(rows[0], verbose=0))
    assert not np.array_equal(again, expected)


@contextmanager
def policy(name: str) -> Iterator[None]:
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy(before)


def test_mixed_bfloat16_trains_float32_variables(rows: Any, tmp_path: Path) -> None:
    with policy("mixed_bfloat16"):
        model = UserModel()
    model.compile(optimizer("adagrad"), loss=LOSS)
    fitted(model, rows)
    assert model.predict(rows[0], verbose=0).dtype == tf.bfloat16.as_numpy_dtype
    assert all(variable.dtype == tf.float32 for variable in model.weights)
    model.save(tmp_path / "model.keras")
    with policy("mixed_bfloat16"):  # of the user's model and its Dense layers, which say none
        loaded = tf_keras.models.load_model(
            tmp_path / "model.keras", custom_objects={"UserModel": UserModel}
        )
    assert_same(state(fitted(loaded, rows)), state(fitted(model, rows)))


@pytest.mark.parametrize(
    ("name", "message"), [("float64", "float32"), ("mixed_float16", "scaled losses")]
)
def test_other_policies_are_refused_by_the_optimizer(name: str, message: str, rows: Any) -> None:
    with policy(name):
        model = UserModel()
        model.compile(optimizer("adagrad"), loss=LOSS, run_eagerly=True)
        with pytest.raises(UserError, match=message):
            fitted(model, rows)


def test_callbacks_of_one_rate_say_that_they_miss_it(rows: Any) -> None:
    model = UserModel()
    model.compile(optimizer("sgd"), loss=LOSS)
    schedule = tf_keras.callbacks.LearningRateScheduler(lambda epoch: 0.1)
    with pytest.raises(ValueError, match='must have a "lr" attribute'):
        fitted(model, rows, callbacks=[schedule])
    plateau = tf_keras.callbacks.ReduceLROnPlateau(monitor="loss")
    with pytest.raises(AttributeError, match="table_learning_rate"):
        fitted(model, rows, callbacks=[plateau])


@pytest.mark.parametrize("storage", ["bfloat16", "float16", "int8"])
def test_tables_of_every_storage_are_saved_and_loaded(storage: Any, tmp_path: Path) -> None:
    tables = ShardedEmbedding(
        [TableConfig("user", 30, 8, storage=storage)], [EmbeddedFeature("user", "user")], sets=2
    )
    values = np.random.default_rng(0).normal(size=(31, 2, 8)).astype(np.float32)
    tables.write_table("user", values)
    ids = tf_keras.Input((1,), dtype=tf.int64)
    model = tf_keras.Model(ids, tf_keras.layers.Flatten()(tables(ids)[8]))
    model.save(tmp_path / "model.keras")
    loaded = tf_keras.models.load_model(tmp_path / "model.keras")
    every = np.arange(-1, 30)[:, None]
    assert np.array_equal(loaded(every).numpy(), model(every).numpy())
    assert np.unique(model(every).numpy()).size > 200
    assert [v.dtype for v in loaded.variables] == [v.dtype for v in model.variables]
