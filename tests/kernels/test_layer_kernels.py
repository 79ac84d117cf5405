"""The compiled kernels of layers against TensorFlow's own ops and NumPy, and where they may run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig
from lfm4ads_tf.features.layout import FeatureLayout, IdField, TableField
from lfm4ads_tf.interactions.config import BlockConfig
from lfm4ads_tf.kernels.bias import add_bias, biased_gelu, biased_relu
from lfm4ads_tf.kernels.cross import fused_cross
from lfm4ads_tf.kernels.library import library, stock_ops
from lfm4ads_tf.kernels.memory import filled
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.optim.adam_step import adam_step
from tests.rounding import assert_close

pytestmark = [
    pytest.mark.processor,
    pytest.mark.skipif(
        library() is None,
        reason="the kernels are not built (python -m lfm4ads_tf.kernels.build) or switched off",
    ),
]

SIZES = {"user": 50, "item": 7, "tab": 1}


@settings(max_examples=25, deadline=None)
@given(
    batch=st.sampled_from([1, 2, 9, 700]),
    sets=st.integers(1, 2),
    dim=st.integers(1, 17),
    shards=st.sampled_from([1, 3]),
    storage=st.sampled_from(["float32", "bfloat16"]),
    seed=st.integers(0, 2**16),
)
def test_lookups_in_training_equal_stock_ops(
    batch: int, sets: int, dim: int, shards: int, storage: str, seed: int
) -> None:
    layer = ShardedEmbedding(
        [TableConfig(name, rows, dim, storage=storage) for name, rows in SIZES.items()],  # type: ignore[arg-type]
        [EmbeddedFeature(name, name) for name in ("item", "user", "tab")],
        sets=sets,
        shards=shards,
    )
    rng = np.random.default_rng(seed)
    sizes = [SIZES[name] for name in layer.single_features]
    ids = tf.constant(np.stack([rng.integers(-1, n, batch) for n in sizes], axis=1))
    upstream = tf.constant(rng.normal(size=(batch, 3, sets, dim)), tf.float32)

    def run(training: bool) -> list[np.ndarray]:
        with tf.GradientTape() as tape:
            values = layer(ids, training=training)[dim]
        gradients = tape.gradient(values, layer.trainable_variables, output_gradients=upstream)
        assert all(isinstance(g, tf.IndexedSlices) for g in gradients)
        return [values.numpy(), *(tf.convert_to_tensor(g).numpy() for g in gradients)]

    found, expected = run(True), run(False)
    np.testing.assert_array_equal(found[0], expected[0])
    # a row's gradient is the sum over the samples that hold it
    magnitude = np.abs(upstream).sum(axis=0).max()
    for mine, theirs in zip(found[1:], expected[1:], strict=True):
        assert_close(mine, theirs, terms=batch, magnitude=magnitude)


@pytest.mark.parametrize("column, bad", [(0, 50), (1, 7), (0, -2), (2, 2**40)])
def test_an_id_outside_its_table_is_refused_in_training(column: int, bad: int) -> None:
    layer = ShardedEmbedding(
        [TableConfig(name, rows, 4) for name, rows in SIZES.items()],
        [EmbeddedFeature(name, name) for name in SIZES],
    )
    ids = np.zeros((3, 3), np.int64)
    ids[1, column] = bad
    with pytest.raises(tf.errors.InvalidArgumentError):
        layer(tf.constant(ids), training=True)


@settings(max_examples=30, deadline=None)
@given(
    batch=st.sampled_from([1, 2, 7, 8, 9, 257, 1000]),
    width=st.integers(1, 67),
    seed=st.integers(0, 2**16),
)
def test_fused_cross_equals_its_formula(batch: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x0, h, x, dy = (rng.normal(size=(batch, width)).astype(np.float32) for _ in range(4))
    b = rng.normal(size=width).astype(np.float32)
    given_ = [tf.constant(v) for v in (x0, h, b, x)]
    with tf.GradientTape() as tape:
        tape.watch(given_)
        found = fused_cross(*given_)
    gradients = tape.gradient(found, given_, output_gradients=tf.constant(dy))
    assert_close(
        found, x0 * (h + b) + x, terms=3, magnitude=np.abs(x0) * (np.abs(h) + np.abs(b)) + np.abs(x)
    )
    expected = [dy * (h + b), dy * x0, (dy * x0).astype(np.float64).sum(axis=0), dy]
    magnitudes = [np.abs(dy) * (np.abs(h) + np.abs(b)), np.abs(dy * x0)]
    magnitudes += [magnitudes[1].sum(axis=0), np.abs(dy)]
    for mine, theirs, size, terms in zip(
        gradients, expected, magnitudes, (3, 2, batch + 1, 1), strict=True
    ):
        assert_close(mine, theirs, terms=terms, magnitude=size)


@settings(max_examples=20, deadline=None)
@given(
    batch=st.sampled_from([0, 1, 7, 9, 1000]), width=st.integers(1, 67), seed=st.integers(0, 2**16)
)
def test_add_bias_equals_its_formula(batch: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, dy = (rng.normal(size=(batch, width)).astype(np.float32) for _ in range(2))
    b = rng.normal(size=width).astype(np.float32)
    given_ = [tf.constant(x), tf.constant(b)]
    with tf.GradientTape() as tape:
        tape.watch(given_)
        found = add_bias(*given_)
    dx, db = tape.gradient(found, given_, output_gradients=tf.constant(dy))
    np.testing.assert_array_equal(found, x + b)
    np.testing.assert_array_equal(dx, dy)
    exact = dy.astype(np.float64)
    assert_close(db, exact.sum(axis=0), terms=max(batch, 1), magnitude=np.abs(exact).sum(axis=0))


@settings(max_examples=20, deadline=None)
@given(
    sets=st.sampled_from([0, 1, 3]),
    batch=st.sampled_from([0, 1, 7, 9, 1000]),
    width=st.integers(1, 67),
    seed=st.integers(0, 2**16),
)
def test_biased_relu_equals_its_formula(sets: int, batch: int, width: int, seed: int) -> None:
    """Of (B, d), and of stacks of products; an exact zero has no gradient, NaN stays NaN."""
    rng = np.random.default_rng(seed)
    shape = (sets, batch, width) if sets else (batch, width)
    x, dy = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    b = rng.normal(size=(sets, 1, width) if sets else (width,)).astype(np.float32)
    x[..., :1, 0] = -b[..., 0]  # sums to 0
    x[..., 1:2, 0] = np.nan
    given_ = [tf.constant(x), tf.constant(b)]
    with tf.GradientTape() as tape:
        tape.watch(given_)
        found = biased_relu(*given_, training=True)
    dx, db = tape.gradient(found, given_, output_gradients=tf.constant(dy))
    np.testing.assert_array_equal(found, np.where(np.isnan(x), x, np.maximum(x + b, 0)))
    passed = np.where(x + b > 0, dy, 0)
    np.testing.assert_array_equal(dx, passed)
    exact = passed.astype(np.float64)
    sums, sizes = (v.sum(axis=-2, keepdims=bool(sets)) for v in (exact, np.abs(exact)))
    assert_close(db, sums, terms=max(batch, 1), magnitude=sizes)
    np.testing.assert_array_equal(found, biased_relu(*given_))  # TensorFlow's own ops
    wrong = np.full_like(dy, np.nan)  # a gradient that is not finite is told, of shut units too
    with tf.GradientTape() as tape:
        tape.watch(given_)
        found = biased_relu(*given_, training=True)
    assert np.isnan(tape.gradient(found, given_, output_gradients=tf.constant(wrong))[0]).all()


@settings(max_examples=25, deadline=None)
@given(
    sets=st.integers(0, 3),
    batch=st.sampled_from([0, 1, 3, 129]),
    width=st.integers(1, 67),
    scale=st.sampled_from([0.1, 1.0, 6.0, 40.0]),
    seed=st.integers(0, 2**16),
)
def test_biased_gelu_equals_its_formula(
    sets: int, batch: int, width: int, scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = (sets, batch, width) if sets else (batch, width)
    x, dy = (scale * rng.normal(size=shape).astype(np.float32) for _ in range(2))
    b = rng.normal(size=(sets, 1, width) if sets else (width,)).astype(np.float32)
    given_ = [tf.constant(x), tf.constant(b)]
    with tf.GradientTape() as tape:
        tape.watch(given_)
        found = biased_gelu(*given_, training=True)
    dx, db = tape.gradient(found, given_, output_gradients=tf.constant(dy))
    h = (x + b).astype(np.float64)
    normal, density = norm.cdf(h), norm.pdf(h)
    # P is off by 1.5e-7 and some roundings of a number near 1
    assert np.all(np.abs(found - h * normal) <= 6e-7 * np.abs(h))
    slope, size = normal + h * density, normal + np.abs(h) * density
    # exp(-h^2 / 2) has the rounding of its exponent
    room = (6e-7 + (1 + h**2) * density * np.abs(h) * 3e-7 + 3e-7 * size) * np.abs(dy)
    assert np.all(np.abs(dx - dy * slope) <= room)
    exact = np.asarray(dx, np.float64)
    sums, sizes = (v.sum(axis=-2, keepdims=bool(sets)) for v in (exact, np.abs(exact)))
    assert_close(db, sums, terms=max(batch, 1), magnitude=sizes)
    other = biased_gelu(*given_)  # TensorFlow's own ops
    assert np.all(np.abs(found - other) <= 1.2e-6 * np.abs(h))
    nan = biased_gelu(tf.fill([1, 2], np.float32(np.nan)), tf.zeros([2]), training=True)
    assert np.isnan(nan).all()


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=4),
    decay=st.sampled_from([0.0, 0.1]),
    betas=st.sampled_from([(0.9, 0.999), (0.0, 0.5)]),
    t=st.sampled_from([1, 2, 100]),
    seed=st.integers(0, 2**16),
)
def test_adam_on_dense_variables_equals_stock_ops(
    sizes: list[int], decay: float, betas: tuple[float, float], t: int, seed: int
) -> None:
    def run() -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        made = [[tf.Variable(rng.random(n), dtype=tf.float32) for n in sizes] for _ in range(3)]
        gradients = [tf.constant(rng.normal(size=n), tf.float32) for n in sizes]
        rates = [tf.constant(0.1 * (i + 1)) for i in range(len(sizes))]
        decays = [decay * i for i in range(len(sizes))]
        step = tf.constant(float(t))
        adam_step(
            *made, gradients, rates, decays,
            step=step, beta_1=betas[0], beta_2=betas[1], epsilon=1e-6,
        )  # fmt: skip
        return [v.numpy() for group in made for v in group]

    found = run()
    with stock_ops():
        expected = run()
    # 1 - beta^t loses digits at beta = 0.999, in either way; the weights are below 1
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("rows, width", [(1, 1), (3, 7), (0, 4), (300_000, 16)])
def test_filled_equals_stock_ops(storage: str, rows: int, width: int) -> None:
    with stock_ops():
        expected = filled(rows, width, 0.1, storage)
    found = filled(rows, width, 0.1, storage)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert bool(tf.reduce_all(found == expected))


LAYOUT = FeatureLayout(
    fields=(
        IdField("user", "user", "user"),
        IdField("item", "item", "item"),
        IdField("seen", "user", "item", "mean"),
    ),
    dense=(),
    tables=(TableField("user", 50), TableField("item", 20)),
    scenarios=("all",),
    tasks=("click",),
)


@pytest.fixture(scope="module")
def model() -> FoundationModel:
    layers: list[dict[str, Any]] = [
        {"type": "fm", "dim": 4}, {"type": "cross", "depth": 2, "rank": 3},
        {"type": "dnn", "units": [8, 4]},
    ]  # fmt: skip
    network = NetworkConfig(
        user_tower=[6], item_tower=[6], block=BlockConfig.model_validate({"layers": layers})
    )
    model = FoundationModel(LAYOUT, network, EmbeddingsConfig(dim=4), seed=0)
    model(batch())
    return model


def batch() -> dict[str, Any]:
    seen = tf.RaggedTensor.from_row_lengths(tf.constant([3, 4, 19], tf.int64), [1, 2])
    return {
        "ids": tf.constant([[1, 2], [49, -1]], tf.int64),
        "bags": {"seen": (seen, None)},
        "dense": tf.zeros([2, 0]),
        "scenario": tf.zeros([2], tf.int64),
    }


def ops_of(function: Callable[..., Any]) -> set[str]:
    """Types of all ops of a traced function, called functions included."""
    graph = tf.function(function).get_concrete_function().graph.as_graph_def()
    bodies = [graph.node, *(f.node_def for f in graph.library.function)]
    return {node.op for nodes in bodies for node in nodes}


def test_a_graph_for_inference_holds_stock_ops_only(model: FoundationModel) -> None:
    inference = ops_of(lambda: model(batch(), training=False))
    assert not [op for op in inference if op.startswith("Lfm4ads")]
    assert "ResourceGather" in inference

    def loss_gradient() -> list[Any]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(batch(), training=True))
        return tape.gradient(loss, model.trainable_variables)

    # the counterpart: the test above looks for what is there in training
    assert [op for op in ops_of(loss_gradient) if op.startswith("Lfm4ads")]
    with stock_ops():
        assert not [op for op in ops_of(loss_gradient) if op.startswith("Lfm4ads")]


@pytest.fixture
def switched_off(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LFM4ADS_KERNELS", "0")
    yield


def test_the_environment_switches_the_kernels_off(switched_off: None) -> None:
    assert library() is None
    assert fused_cross(*(tf.ones(s) for s in ([2, 3], [2, 3], [3], [2, 3]))) is None
