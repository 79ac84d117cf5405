from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.interactions.expert_bank import ExpertBank
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

B, D = 5, 6


def filled(bank: ExpertBank, inputs: np.ndarray, seed: int = 0) -> ExpertBank:
    """The bank with random weights: zero biases would hide errors."""
    bank(tf.constant(inputs))
    rng = np.random.default_rng(seed)
    for variable in bank.trainable_variables:
        variable.assign(rng.normal(0, 0.5, size=variable.shape))
    return bank


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=shape).astype(np.float32)


def layers_of(bank: ExpertBank, expert: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernel and bias of every layer of an expert."""
    first, kernel, bias = bank.units[0], bank.kernel.numpy(), bank.bias.numpy()
    if kernel.ndim == 2:
        own = slice(expert * first, (expert + 1) * first)
        layers = [(kernel[:, own], bias[own])]
    else:
        layers = [(kernel[expert], bias[expert, 0])]
    return layers + [(k.numpy()[expert], b.numpy()[expert, 0]) for k, b in bank.deeper]


@given(
    sets=st.integers(1, 4),
    units=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    picks=st.lists(st.integers(0, 11), min_size=1, max_size=5),
)
@settings(max_examples=25, deadline=None)
def test_every_expert_is_a_network_over_the_set_that_it_reads(
    sets: int, units: list[int], picks: list[int]
) -> None:
    reads = [pick % sets for pick in picks]
    inputs = drawn(sets, B, D)
    bank = filled(ExpertBank(reads, units, seed=1), inputs)
    found = bank(tf.constant(inputs))
    assert found.shape == (B, len(reads), units[-1])
    for e, k in enumerate(reads):
        h = inputs[k].astype(np.float64)
        magnitude = np.abs(h)
        for kernel, bias in layers_of(bank, e):
            h = np.maximum(h @ kernel + bias, 0)
            magnitude = magnitude @ np.abs(kernel) + np.abs(bias)
        assert_close(found[:, e], h, terms=D + sum(units), magnitude=magnitude)


def test_one_set_has_the_weights_and_products_of_plain_inputs() -> None:
    inputs = drawn(1, B, D)
    banks = [ExpertBank([0, 0, 0], [4, 2], seed=3) for _ in range(2)]
    of_set, plain = banks[0](inputs), banks[1](inputs[0])
    np.testing.assert_array_equal(of_set, plain)
    for one, other in zip(*(bank.weights for bank in banks), strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one, other)
    assert banks[0].kernel.shape == (D, 12)


def test_no_gradient_reaches_sets_and_experts_that_are_not_asked_for() -> None:
    inputs = tf.constant(drawn(3, B, D))
    bank = filled(ExpertBank([0, 2, 2], [4, 2], seed=3), inputs)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        total = tf.reduce_sum(bank(inputs)[:, 2])
    of_inputs, *of_weights = tape.gradient(total, [inputs, *bank.trainable_variables])
    assert np.any(of_inputs[2]) and not np.any(of_inputs[:2])
    for gradient in of_weights:
        assert np.any(gradient[2]) and not np.any(gradient[:2])


def test_first_layers_are_a_product_of_the_sets_and_no_layer_loops_over_experts() -> None:
    inputs = drawn(3, B, D)
    bank = filled(ExpertBank([0, 1, 2, 2], [5, 4, 3]), inputs)
    step = tf.function(bank.call).get_concrete_function(tf.TensorSpec([3, None, D]))
    products = [op.type for op in step.graph.get_operations() if "MatMul" in op.type]
    # over the sets, over the further experts of the last one, and over the experts twice
    assert products == ["BatchMatMulV2", "MatMul", "BatchMatMulV2", "BatchMatMulV2"]


def test_initial_weights_belong_to_seed_name_and_expert() -> None:
    inputs = drawn(2, B, D)

    def made(reads: list[int], seed: int = 1, name: str = "experts") -> ExpertBank:
        bank = ExpertBank(reads, [5, 4], seed=seed, name=name)
        bank(inputs)
        return bank

    few = made([0, 1])
    for reads, same in (([0, 1, 1], True), ([1, 0], True)):
        other = made(reads)
        for e in range(2):
            for one, two in zip(layers_of(few, e), layers_of(other, e), strict=True):
                assert np.array_equal(one[0], two[0]) is same
    for other in (made([0, 1], seed=2), made([0, 1], name="others")):
        assert not np.array_equal(few.kernel, other.kernel)
    plain = ExpertBank([0, 0], [5, 4], seed=1)
    plain(inputs[0])
    for e in range(2):  # how many sets there are changes no expert
        for one, two in zip(layers_of(few, e), layers_of(plain, e), strict=True):
            np.testing.assert_array_equal(one[0], two[0])


@pytest.mark.parametrize(
    ("reads", "units", "message"),
    [
        ([0], [], "at least one layer"),
        ([], [3], "counted from 0"),
        ([0, -1], [3], "counted from 0"),
        ([0, 2], [3], "reads set 2 of inputs that have 2"),
    ],
)
def test_what_cannot_be_built_is_refused(reads: list[int], units: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExpertBank(reads, units)(drawn(2, B, D))
