"""Every layer and model: rebuilt, saved and loaded, of every dtype, batch size, and its gradients.

A class without a case fails `test_every_class_has_a_case`: add one to `tests/layers/cases.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.models.set_tower import SetTower
from tests.layers.cases import LAYERS, MODELS, Case, classes
from tests.rounding import EPSILON, assert_close

CASES = [*LAYERS, *MODELS]
by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
of_layers = pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
of_models = pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)


@contextmanager
def policy(name: str) -> Iterator[None]:
    """Makes layers of a dtype policy."""
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy(before)


def tables_of(layer: Any) -> dict[int, Any]:
    """The shards of all tables below a layer, by the identity of the variable."""
    found = [m for m in layer.submodules if hasattr(m, "all_parts")]
    found += [layer] if hasattr(layer, "all_parts") else []
    return {id(part): part for each in found for part in each.all_parts()}


def change(layer: Any, seed: int = 0) -> None:
    """Gives all weights other values: initial ones would be right after loading without a file.

    What is not trained counts or measures, and may not be negative.
    """
    rng = np.random.default_rng(seed)
    for variable in layer.variables:
        if variable.dtype.is_floating:
            values = rng.normal(0.0, 0.5, variable.shape)
            values = values if variable.trainable else np.abs(values)
            variable.assign(tf.cast(values, variable.dtype))
        elif isinstance(variable, tf.Variable) and variable.dtype == tf.int64:
            variable.assign(rng.integers(1, 2**40, variable.shape))


def assert_same(found: Any, expected: Any) -> None:
    """Fails unless both hold the same tensors, bit by bit."""
    assert list(found) == list(expected) and found
    for place, value in expected.items():
        assert found[place].dtype == value.dtype, place
        assert np.array_equal(found[place].numpy(), value.numpy()), place


def is_number(value: Any) -> bool:
    """Whether an input is a tensor of numbers; weights of bags are none."""
    return isinstance(value, tf.Tensor) and value.dtype.is_floating


def as_policy(inputs: Any, dtype: tf.DType) -> Any:
    """The inputs with numbers of a dtype."""
    return tf.nest.map_structure(lambda x: tf.cast(x, dtype) if is_number(x) else x, inputs)


def test_every_class_has_a_case() -> None:
    covered = {type(case.make()) for case in CASES}
    for where, each in classes().items():
        assert each in covered, (
            f"{where} has no case in tests/layers/cases.py: add one to LAYERS or MODELS there (its "
            "constructor's arguments, and the inputs that it is called with)."
        )


@by_name
def test_a_configuration_rebuilds_it(case: Case) -> None:
    layer = case.make()
    config = json.loads(json.dumps(layer.get_config()))
    rebuilt = type(layer).from_config(config)
    assert json.loads(json.dumps(rebuilt.get_config())) == config
    inputs = case.inputs(5)
    assert_same(case(rebuilt, inputs), case(layer, inputs))
    assert len(rebuilt.weights) == len(layer.weights)
    for one, other in zip(layer.weights, rebuilt.weights, strict=True):
        assert one.name == other.name and one.trainable == other.trainable
        assert np.array_equal(one.numpy(), other.numpy()), one.name


class Holder(tf_keras.Model):
    """A user's model that holds a layer, built from the case's inputs."""

    def __init__(self, layer: Any, case: str) -> None:
        super().__init__()
        self.layer = layer
        self.case = next(each for each in CASES if each.name == case)

    def call(self, inputs: Any) -> Any:
        """What the layer gives."""
        return self.case(self.layer, inputs)

    def get_config(self) -> dict[str, Any]:
        """The layer and the name of the case."""
        layer = tf_keras.saving.serialize_keras_object(self.layer)
        return {"layer": layer, "case": self.case.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Holder:
        """The holder of an equal layer."""
        return cls(tf_keras.saving.deserialize_keras_object(config["layer"]), config["case"])

    def get_build_config(self) -> dict[str, Any]:
        """Its case says what it is built from."""
        return {"rows": 1}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Calls the layer once."""
        self(self.case.inputs(config["rows"]))


@of_layers
def test_a_saved_layer_is_loaded(case: Case, tmp_path: Path) -> None:
    model = Holder(case.make(), case.name)
    inputs = case.inputs(5)
    model(inputs)
    change(model)
    model.save(tmp_path / "model.keras")
    loaded = tf_keras.models.load_model(tmp_path / "model.keras", custom_objects={"Holder": Holder})
    assert_same(loaded(inputs), model(inputs))


@of_models
def test_a_saved_model_is_loaded(case: Case, tmp_path: Path) -> None:
    model = case.make()
    inputs = case.inputs(5)
    model(inputs)
    change(model)
    model.save(tmp_path / "model.keras")
    loaded = tf_keras.models.load_model(tmp_path / "model.keras")
    assert_same(case(loaded, inputs), case(model, inputs))
    terms = loaded.loss_terms(inputs, training=False)
    assert_same(terms, model.loss_terms(inputs, training=False))


@of_layers
def test_a_layer_that_is_not_trained_stays_so(case: Case, tmp_path: Path) -> None:
    layer = case.make()
    layer.trainable = False
    model = Holder(layer, case.name)
    model(case.inputs(2))
    model.save(tmp_path / "model.keras")
    loaded = tf_keras.models.load_model(tmp_path / "model.keras", custom_objects={"Holder": Holder})
    assert not loaded.layer.trainable and not loaded.trainable_variables
    assert len(loaded.variables) == len(model.variables)


@of_models
def test_parts_of_a_model_that_are_not_trained_stay_so(case: Case, tmp_path: Path) -> None:
    model = case.make()
    model(case.inputs(2))
    dense = (tf_keras.layers.Dense, SetTower)
    first = next(layer for layer in model.submodules if isinstance(layer, dense))
    first.trainable = False
    model.save(tmp_path / "model.keras")
    loaded = tf_keras.models.load_model(tmp_path / "model.keras")
    trained = [variable.name for variable in model.trainable_variables]
    assert [variable.name for variable in loaded.trainable_variables] == trained
    frozen = {variable.name for variable in first.weights}
    assert frozen and not frozen & {*trained}


TRACED = {"FoundationModel with branches, shards and a loss", "DownstreamModel with transfer"}
"""The models whose steps are traced here; the others' run op by op, in a fifth of the time."""


def going_on(case: Case) -> Any:
    """The case, a slow one unless it is one of the kinds that the others vary."""
    quick = case.name in ("FoundationModel", "MMoE", "ESMM, joint", "DownstreamModel", "Retriever")
    return pytest.param(case, id=case.name, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize("case", map(going_on, MODELS))
def test_a_trained_model_goes_on_where_it_was_saved(case: Case, tmp_path: Path) -> None:
    model = case.make()
    model.compile(run_eagerly=case.name not in TRACED)
    batch = case.inputs(6)
    for _ in range(2):
        model.train_on_batch(batch)
    model.save(tmp_path / "model.keras")
    loaded = tf_keras.models.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.train_on_batch(batch)
    changed = False
    initial = case.make()
    initial(batch)
    for one, other, start in zip(model.weights, loaded.weights, initial.weights, strict=True):
        assert np.array_equal(one.numpy(), other.numpy()), one.name
        changed = changed or not np.array_equal(one.numpy(), start.numpy())
    assert changed
    made = [tf.nest.flatten(each.optimizer) for each in (model, loaded)]
    for optimizer, again in zip(*made, strict=True):
        assert optimizer.get_config() == again.get_config()
        for one, other in zip(optimizer.variables, again.variables, strict=True):
            assert np.array_equal(one.numpy(), other.numpy()), one.name


# As in tests/training/test_precision.py: TensorFlow asks the processor, not oneDNN, whether oneDNN
# knows bfloat16, and dies of the difference; on a processor of that kind it does not ask for it.
BFLOAT16 = pytest.param(
    "mixed_bfloat16",
    marks=pytest.mark.skipif(
        os.environ.get("ONEDNN_MAX_CPU_ISA", "").startswith(("SSE", "AVX2")),
        reason="oneDNN is kept from instructions that TensorFlow sees and uses",
    ),
)


@pytest.mark.parametrize("name", [BFLOAT16, "float64"])
@of_layers
def test_dtypes_follow_the_policy(case: Case, name: str) -> None:
    with policy(name):
        layer = case.make()
    wanted = tf_keras.mixed_precision.Policy(name)
    inputs = case.inputs(3)
    outputs = case(layer, inputs)
    tables = tables_of(layer)
    for variable in layer.trainable_variables:
        if id(variable) not in tables:
            assert variable.dtype == wanted.variable_dtype, variable.name
    for place, value in outputs.items():
        if value.dtype.is_floating:
            assert value.dtype == wanted.compute_dtype, place
    rebuilt = type(layer).from_config(json.loads(json.dumps(layer.get_config())))
    assert rebuilt.dtype_policy.name == name
    assert_same(case(rebuilt, inputs), outputs)
    assert tf_keras.mixed_precision.global_policy().name == "float32"


@of_layers
def test_a_layer_of_float32_stays_so_under_another_policy(case: Case) -> None:
    layer = case.make()
    with policy("float64"):
        rebuilt = type(layer).from_config(layer.get_config())
    assert_same(case(rebuilt, case.inputs(3)), case(layer, case.inputs(3)))


@pytest.mark.parametrize("name", ["mixed_bfloat16", "float64"])
@of_models
def test_models_are_of_float32(case: Case, name: str) -> None:
    with policy(name), pytest.raises(UserError, match="float32") as refused:
        case.make()
    assert name in str(refused.value)


@pytest.mark.processor
@by_name
def test_one_trace_serves_every_batch_size(case: Case) -> None:
    layer = case.make()
    case(layer, case.inputs(2))
    change(layer)

    def unknown(value: Any) -> Any:
        spec = tf.type_spec_from_value(value)
        if isinstance(spec, tf.NoneTensorSpec):
            return spec
        shape = [None, *spec.shape[1:]]
        if isinstance(spec, tf.RaggedTensorSpec):
            return tf.RaggedTensorSpec(shape, spec.dtype, spec.ragged_rank, spec.row_splits_dtype)
        return tf.TensorSpec(shape, spec.dtype)

    traced = tf.function(
        lambda inputs: case(layer, inputs),
        input_signature=[tf.nest.map_structure(unknown, case.inputs(2))],
        autograph=False,
    )
    for rows in (1, 7):
        inputs = case.inputs(rows)
        found, expected = traced(inputs), case(layer, inputs)
        assert list(found) == list(expected)
        floats = [value for value in expected.values() if value.dtype.is_floating]
        for place, value in expected.items():
            assert found[place].shape == value.shape
            if value.dtype.is_floating:
                largest = max(float(tf.reduce_max(tf.abs(v))) for v in floats)
                assert_close(found[place], value, terms=100, magnitude=largest, what=place)
            else:
                assert np.array_equal(found[place], value), place
    assert traced.experimental_get_tracing_count() == 1


@pytest.mark.processor
@of_layers
def test_gradients_are_those_of_finite_differences(case: Case) -> None:
    """<gradient, d> = D(h) + O(h^2) with D(h) = (f(x + h d) - f(x - h d)) / 2h, d random.

    f is a weighted sum of what the layer gives; x its trainable variables, and its numbers unless
    they are looked up.
    """
    with policy("float64"):
        layer = case.make()
    inputs = as_policy(case.inputs(4), tf.float64)
    case(layer, inputs)
    change(layer, seed=2)
    rng = np.random.default_rng(3)
    factors: dict[str, np.ndarray] = {}
    unread = [v for v in layer.trainable_variables if any(n in v.name for n in case.unread)]
    variables = [v for v in layer.trainable_variables if all(v is not other for other in unread)]
    numbers = [x for x in tf.nest.flatten(inputs) if is_number(x)]

    def loss(moved: list[tf.Tensor]) -> tf.Tensor:
        places = iter(moved)
        read = tf.nest.map_structure(lambda x: next(places) if is_number(x) else x, inputs)
        total = tf.zeros([], tf.float64)
        for place, value in case(layer, read).items():
            if value.dtype.is_floating:
                factor = factors.setdefault(place, rng.normal(size=value.shape))
                total += tf.reduce_sum(factor * value)
        return total

    with tf.GradientTape() as tape:
        tape.watch(numbers)
        value = loss(numbers)
    gradients, others = tape.gradient(value, ([*variables, *numbers], unread))
    for gradient, variable in zip(gradients, variables, strict=False):
        assert gradient is not None, variable.name
    assert all(gradient is None for gradient in others) and bool(others) == bool(case.unread)
    slopes = [
        np.zeros(x.shape) if gradient is None else tf.convert_to_tensor(gradient).numpy()
        for gradient, x in zip(gradients, [*variables, *numbers], strict=True)
    ]
    starts = [x.numpy() for x in (*variables, *numbers)]
    directions = [rng.normal(size=start.shape) for start in starts]
    if case.looked_up:
        assert all(gradient is None for gradient in gradients[len(variables) :])
        directions[len(variables) :] = [np.zeros(x.shape) for x in numbers]
    terms = [slope * direction for slope, direction in zip(slopes, directions, strict=True)]
    magnitude = abs(float(value)) + sum(float(np.abs(each).sum()) for each in terms)

    def difference(step: float) -> float:
        ends = []
        for way in (step, -step):
            moved = [s + way * d for s, d in zip(starts, directions, strict=True)]
            for variable, other in zip(variables, moved, strict=False):
                variable.assign(tf.cast(other, variable.dtype))
            ends.append(float(loss([tf.constant(x) for x in moved[len(variables) :]])))
        return (ends[0] - ends[1]) / (2 * step)

    # tables are float32, what is made of them too; a step costs rounding / h and truncation h^2,
    # a third of what twice the step differs by
    step, rounding = (2.0**-9, EPSILON) if case.tables else (2.0**-17, 2.0**-52)
    found, rougher = difference(step), difference(2 * step)
    allowed = 100 * rounding / step * magnitude + abs(found - rougher)
    assert abs(found - sum(float(each.sum()) for each in terms)) <= allowed
    assert allowed < 0.05 * sum(float(np.abs(each).sum()) for each in terms)


@of_models
def test_every_variable_of_a_model_gets_a_gradient(case: Case) -> None:
    model = case.make()
    batch = case.inputs(12)
    model(batch)
    change(model)
    with tf.GradientTape() as tape:
        total = tf.add_n(list(model.loss_terms(batch, training=True).values()))
    gradients = tape.gradient(total, model.trainable_variables)
    assert gradients
    for gradient, variable in zip(gradients, model.trainable_variables, strict=True):
        assert gradient is not None, variable.name


@pytest.mark.parametrize("case", [c for c in LAYERS if c.functional], ids=lambda case: case.name)
def test_a_functional_model_of_a_layer_is_saved_and_loaded(case: Case, tmp_path: Path) -> None:
    example = case.inputs(5)
    read = tf.nest.map_structure(lambda x: tf_keras.Input(x.shape[1:], dtype=x.dtype), example)
    model = tf_keras.Model(read, tf.nest.flatten(case.make()(read)))
    change(model)
    model.save(tmp_path / "model.keras")
    loaded = tf_keras.models.load_model(tmp_path / "model.keras")
    pairs = zip(tf.nest.flatten(loaded(example)), tf.nest.flatten(model(example)), strict=True)
    assert all(np.array_equal(one.numpy(), other.numpy()) for one, other in pairs)
