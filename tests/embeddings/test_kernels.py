"""The compiled row updates against TensorFlow's own ops and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.kernels.library import library, stock_ops
from lfm4ads_tf.optim.row_update import sum_duplicates, update_rows
from lfm4ads_tf.optim.rules.adagrad import Adagrad
from lfm4ads_tf.optim.rules.adam import LazyAdam
from lfm4ads_tf.optim.rules.ftrl import Ftrl
from lfm4ads_tf.optim.rules.rule import RowRule
from lfm4ads_tf.optim.rules.sgd import Sgd

pytestmark = [
    pytest.mark.processor,
    pytest.mark.skipif(
        library() is None,
        reason="the kernels are not built (python -m lfm4ads_tf.kernels.build) or switched off",
    ),
]

RATE = 0.1
# Relative spacing of the numbers of a storage.
SPACING = {"float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}

share = st.sampled_from([0.0, 0.5, 0.9, 0.999])
strength = st.sampled_from([0.0, 0.01, 0.5])
RULES = st.one_of(
    st.builds(Adagrad, st.floats(0.0, 2.0), st.floats(1e-6, 1.0), st.just(False)),
    st.builds(Adagrad, st.floats(0.0, 2.0), st.floats(1e-6, 1.0), st.just(True)),
    st.builds(LazyAdam, share, share, st.floats(1e-6, 1.0)),
    st.builds(LazyAdam, share, share, st.floats(1e-6, 1.0), st.sampled_from([0.01, 0.5])),
    st.builds(
        Ftrl, st.floats(0.1, 2.0), strength, strength, st.sampled_from([-0.5, -0.3, -1.0, 0.0]),
        strength,
    ),
    st.builds(Sgd, st.sampled_from([0.0, 0.5, 0.9])),
    st.builds(Sgd, st.sampled_from([0.5, 0.9]), st.just(True)),
)  # fmt: skip
EXAMPLES = [
    Adagrad(), Adagrad(row_wise=True), LazyAdam(), LazyAdam(weight_decay=0.1), Ftrl(l1=0.1),
    Sgd(0.9),
]  # fmt: skip
STORAGES = st.sampled_from(list(SPACING))


class State:
    """A table, its slots as some steps would leave them, and a gradient with duplicates.

    The numbers of the gradient are multiples of 1/16, so that every order of summation gives
    the same sum.
    """

    def __init__(
        self, rule: RowRule, storage: str, rows: int, sets: int, dim: int, count: int, seed: int,
        *, distinct: int | None = None,
    ) -> None:  # fmt: skip
        rng = np.random.default_rng(seed)
        self.rule, self.storage, self.sets = rule, storage, sets
        self.table = rng.normal(size=(rows, sets * dim)).astype(np.float32)
        self.slots = []
        for slot in rule.slots:
            width = sets * dim if slot.per_element else sets
            counts, sums = rng.integers(0, 9, (rows, width)), rng.random((rows, width))
            grown = counts if slot.name == "step" else slot.initial + sums
            self.slots.append(grown.astype(np.float32))
        self.ids = rng.integers(0, min(distinct or rows, rows), count)
        grads = rng.integers(-32, 33, (count, sets, dim)) / 16.0
        grads *= rng.random((count, sets, 1)) < 0.8  # some sets of some rows get no gradient
        self.grads = grads.reshape(count, sets * dim).astype(np.float32)

    def step(self, l2: float = 0.0) -> tuple[np.ndarray, list[np.ndarray]]:
        """One step from this state: the table in float32, and the slots."""
        table = tf.Variable(tf.cast(self.table, self.storage))
        slots = [tf.Variable(slot) for slot in self.slots]
        gradient = tf.IndexedSlices(tf.constant(self.grads), tf.constant(self.ids, tf.int64))
        update_rows(self.rule, table, slots, gradient, tf.constant(RATE), sets=self.sets, l2=l2)
        return tf.cast(table, tf.float32).numpy(), [slot.numpy() for slot in slots]

    def before(self) -> np.ndarray:
        return tf.cast(tf.cast(self.table, self.storage), tf.float32).numpy()

    def still(self) -> np.ndarray:
        """Rows and sets without a gradient, (rows, K) bool."""
        summed = np.zeros(self.table.shape, np.float64)
        np.add.at(summed, self.ids, self.grads)
        return (summed.reshape(len(summed), self.sets, -1) == 0.0).all(axis=-1)


@settings(max_examples=60, deadline=None)
@given(
    rule=RULES,
    storage=STORAGES,
    rows=st.sampled_from([1, 7, 500, 3000]),
    sets=st.integers(1, 3),
    dim=st.integers(1, 33),
    count=st.sampled_from([0, 1, 2, 9, 300, 8192, 8193, 20_000]),
    distinct=st.sampled_from([None, 1, 2, 40]),
    l2=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 2**16),
)
def test_a_step_equals_stock_ops(
    rule: RowRule, storage: str, rows: int, sets: int, dim: int, count: int,
    distinct: int | None, l2: float, seed: int,
) -> None:  # fmt: skip
    state = State(rule, storage, rows, sets, dim, count, seed, distinct=distinct)
    found, found_slots = state.step(l2)
    with stock_ops():
        expected, expected_slots = state.step(l2)
    before, still = state.before(), state.still()
    # of a step or of the numbers it is made from, and one rounding to the storage
    scale = 2e-5 * np.maximum(1.0, np.abs(before) + np.abs(expected))
    room = scale + SPACING[storage] * np.abs(expected)
    with np.errstate(invalid="ignore"):  # float16 overflows, and then both do
        assert np.all((found == expected) | (np.abs(found - expected) <= room))
    if storage != "float32":  # nearly all round alike
        assert np.mean(found != expected) <= 0.02 + 2.0 / found.size
    for mine, theirs in zip(found_slots, expected_slots, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-5)
    kept = np.repeat(still, dim, axis=1)
    np.testing.assert_array_equal(found[kept], before[kept])
    for slot, start in zip(found_slots, state.slots, strict=True):
        kept = np.repeat(still, slot.shape[1] // sets, axis=1)
        np.testing.assert_array_equal(slot[kept], start[kept])
    if not still.all():
        assert not np.array_equal(found, before) or storage != "float32" or l2


@pytest.mark.parametrize("storage", SPACING)
@pytest.mark.parametrize("rule", EXAMPLES, ids=repr)
def test_a_sum_of_zero_keeps_every_bit(rule: RowRule, storage: str) -> None:
    state = State(rule, storage, 6, 2, 5, 6, 0)
    state.ids = np.array([1, 3, 1, 4, 4, 2])
    state.grads = np.ones_like(state.grads)
    state.grads[[0, 2], :5] = [[1.5] * 5, [-1.5] * 5]  # row 1, first set: cancels
    state.grads[[3, 4]] = 0.0  # row 4
    state.grads[5, 5:] = -0.0  # row 2, second set
    found, slots = state.step(l2=0.3)
    changed = (found != state.before()).reshape(6, 2, 5).any(axis=-1)
    touched = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [0, 0], [0, 0]], bool)
    np.testing.assert_array_equal(changed, touched)
    for slot, start in zip(slots, state.slots, strict=True):
        moved = (slot != start).reshape(6, 2, -1).any(axis=-1)
        np.testing.assert_array_equal(moved, touched)


@pytest.mark.parametrize("storage", SPACING)
@pytest.mark.parametrize("rule", EXAMPLES, ids=repr)
def test_nan_spreads_as_with_stock_ops(rule: RowRule, storage: str) -> None:
    state = State(rule, storage, 30, 2, 7, 200, 3)
    state.grads[17, 3] = state.grads[90, 9] = np.nan
    state.grads[40, 1] = np.inf
    found, found_slots = state.step()
    with stock_ops():
        expected, expected_slots = state.step()
    assert np.isnan(expected).any() and np.isfinite(expected).mean() > 0.8
    for mine, theirs in zip([found, *found_slots], [expected, *expected_slots], strict=True):
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(theirs))
        np.testing.assert_array_equal(np.isinf(mine), np.isinf(theirs))


@settings(max_examples=20, deadline=None)
@given(
    rule=RULES,
    storage=STORAGES,
    count=st.sampled_from([300, 20_000, 70_000]),
    dim=st.integers(1, 17),
    seed=st.integers(0, 2**16),
)
def test_two_runs_are_bit_equal(
    rule: RowRule, storage: str, count: int, dim: int, seed: int
) -> None:
    """Sums of numbers whose order matters, on all threads."""
    state = State(rule, storage, 1000, 2, dim, count, seed)
    state.grads = np.random.default_rng(seed).normal(size=state.grads.shape).astype(np.float32)
    first, first_slots = state.step(0.1)
    second, second_slots = state.step(0.1)
    np.testing.assert_array_equal(first, second)
    for one, other in zip(first_slots, second_slots, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("bad", [-1, 20, 2**40, -(2**40)])
def test_an_index_outside_the_table_is_refused_and_nothing_is_written(bad: int) -> None:
    table = tf.Variable(tf.ones([20, 4]))
    slot = tf.Variable(tf.ones([20, 4]))
    gradient = tf.IndexedSlices(tf.ones([3, 4]), tf.constant([0, bad, 1], tf.int64))
    with pytest.raises(tf.errors.InvalidArgumentError, match="outside"):
        update_rows(Adagrad(), table, [slot], gradient, tf.constant(0.1), sets=1)
    np.testing.assert_array_equal(table, np.ones((20, 4)))
    np.testing.assert_array_equal(slot, np.ones((20, 4)))


@pytest.mark.parametrize("indices, values", [([0, 1], [3, 4]), ([[0]], [1, 4]), ([0], [1, 5])])
def test_shapes_that_do_not_fit_are_refused(indices: list, values: list) -> None:
    table = tf.Variable(tf.ones([20, 4]))
    gradient = tf.IndexedSlices(tf.ones(values), tf.constant(indices, tf.int64))
    with pytest.raises(tf.errors.InvalidArgumentError):
        update_rows(Sgd(), table, [], gradient, tf.constant(0.1), sets=1)
    np.testing.assert_array_equal(table, np.ones((20, 4)))


def test_a_variable_that_was_read_keeps_what_the_reader_saw() -> None:
    """The kernel writes in place; a tensor taken before must not change."""
    table = tf.Variable(tf.ones([5, 2]))
    seen = table.read_value()
    alias = tf.identity(table.value())
    gradient = tf.IndexedSlices(tf.ones([1, 2]), tf.constant([3], tf.int64))
    update_rows(Sgd(), table, [], gradient, tf.constant(1.0), sets=1)
    np.testing.assert_array_equal(seen, np.ones((5, 2)))
    np.testing.assert_array_equal(alias, np.ones((5, 2)))
    np.testing.assert_array_equal(table[3], [0.0, 0.0])


@settings(max_examples=40, deadline=None)
@given(
    count=st.sampled_from([0, 1, 5, 300, 8193, 20_000]),
    distinct=st.sampled_from([1, 3, 700, 2**31]),
    width=st.integers(1, 40),
    seed=st.integers(0, 2**16),
)
def test_sum_duplicates_equals_numpy(count: int, distinct: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, distinct, count)
    values = (rng.integers(-32, 33, (count, width)) / 16.0).astype(np.float32)
    rows, sums = sum_duplicates(tf.IndexedSlices(tf.constant(values), tf.constant(ids, tf.int64)))
    expected, places = np.unique(ids, return_inverse=True)
    totals = np.zeros((len(expected), width), np.float32)
    np.add.at(totals, places, values)
    order = np.argsort(rows)
    np.testing.assert_array_equal(rows.numpy()[order], expected)
    np.testing.assert_array_equal(sums.numpy()[order], totals)


@pytest.mark.parametrize("bad", [-1, 2**31])
def test_sum_duplicates_refuses_rows_that_no_table_has(bad: int) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="outside"):
        sum_duplicates(tf.IndexedSlices(tf.ones([1, 4]), tf.constant([bad], tf.int64)))
