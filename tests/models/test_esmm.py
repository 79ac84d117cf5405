from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.models.esmm import ESMM, ESMMConfig, joint_logit
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from tests.rounding import assert_close
from tests.small_models import EMBEDDINGS, LAYOUT, NETWORK, random_batch

pytestmark = pytest.mark.processor

NAN = float("nan")
SIZES = ESMMConfig(funnel=["click", "buy"], expert_units=[8, 5], task_units=[4])
logits = st.lists(
    st.tuples(st.floats(-40, 40), st.floats(-40, 40), st.booleans()), min_size=1, max_size=8
)


def made(randomize: Callable[..., None], layout: Any = LAYOUT, **options: Any) -> ESMM:
    model = ESMM(layout, NETWORK, EMBEDDINGS, SIZES.model_copy(update=options), seed=1)
    model(random_batch())
    randomize(model)
    return model


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x)


def log_parts(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ln p_ab, and ln(1 - p_ab) of it: log(-expm1(x)) near 0 and log1p(-exp(x)) below."""
    both = -softplus(-a) - softplus(-b)
    near = both > -np.log(2)
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = np.where(near, np.log(-np.expm1(both)), np.log1p(-np.exp(both)))
    return both, rest


@given(rows=logits)
@settings(max_examples=60, deadline=None)
def test_the_joint_logit_is_that_of_both_events(rows: list[tuple[float, float, bool]]) -> None:
    a, b = (np.array([row[k] for row in rows], np.float64) for k in (0, 1))
    both, rest = log_parts(a, b)
    known = np.isfinite(rest)  # beyond, 1 - p is less than what 1 is rounded to
    found = joint_logit(tf.constant(a), tf.constant(b)).numpy()
    assert np.isfinite(found).all()
    # a sum of both near 0 has lost what it is smaller than 1 by
    room = 1e-12 * (1 + np.abs(both) + np.abs(rest)) + 4e-16 / -both
    assert (np.abs(found - (both - rest))[known] <= room[known]).all()


@given(rows=logits)
@settings(max_examples=60, deadline=None)
def test_gradients_are_those_of_the_formula(rows: list[tuple[float, float, bool]]) -> None:
    a, b, y = (np.array([row[k] for row in rows], np.float64) for k in (0, 1, 2))
    first, second = tf.constant(a), tf.constant(b)
    with tf.GradientTape() as tape:
        tape.watch([first, second])
        z = joint_logit(first, second)
        loss = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(tf.constant(y), z))
    found = tape.gradient(loss, [first, second])
    p = np.exp(-softplus(-a) - softplus(-b))
    # 1 - p = (e^-a + e^-b + e^(-a-b)) / ((1 + e^-a)(1 + e^-b)), without a difference
    below = np.logaddexp(np.logaddexp(-a, -b), -a - b)
    one_less_p = np.exp(below - softplus(-a) - softplus(-b))
    # -(y - p), where y is 1 as -(1 - p)
    error = np.where(y == 1, -one_less_p, p)
    for gradient, own in zip(found, (a, b), strict=True):
        expected = error * np.exp(-softplus(own)) / one_less_p  # 1 - s(z) = exp(-softplus(z))
        size = np.abs(expected)
        assert (np.abs(gradient.numpy() - expected) <= 1e-6 * size + 1e-300).all()


@pytest.mark.slow
@given(
    rows=st.lists(
        st.tuples(
            *(st.floats(-6, 6),) * 2,
            st.sampled_from([(0, 0), (0, 1), (0, NAN), (1, 0)])
            | st.sampled_from([(1, 1), (1, NAN), (NAN, 0), (NAN, 1)]),
        ),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=40, deadline=None)
def test_gradients_of_the_loss_are_its_finite_differences(rows: list[Any]) -> None:
    """Of the model's own loss, in float64: the formula of `docs/models/esmm.md` beside it."""
    a, b = (np.array([row[k] for row in rows], np.float64) for k in (0, 1))
    labels = tf.constant([row[2] for row in rows], tf.float64)
    model = ESMM(LAYOUT, NETWORK, EMBEDDINGS, SIZES.model_copy(update={"output": "conditional"}))
    model.task_loss = replace(model.task_loss, weights=tf.ones([2], tf.float64))

    def loss(first: np.ndarray, second: np.ndarray) -> tuple[float, np.ndarray]:
        logits = tf.constant(np.stack([first, second], axis=1))
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = model._task_loss({"labels": labels}, logits) * len(rows)
        return float(value), tape.gradient(value, logits).numpy()

    _, found = loss(a, b)
    step = 1e-5  # the difference's own error: step^2 and eps / step, both some 1e-10
    size = softplus(np.abs(a)) + 2 * softplus(np.abs(b)) + softplus(np.abs(a))
    for k in range(len(rows)):
        shift = np.where(np.arange(len(rows)) == k, step, 0.0)
        for column, (da, db) in enumerate(((shift, 0 * shift), (0 * shift, shift))):
            slope = (loss(a + da, b + db)[0] - loss(a - da, b - db)[0]) / (2 * step)
            assert abs(slope - found[k, column]) <= 1e-6 * size.sum()
    first, second = labels.numpy().T
    both = np.where((first == 0) | (second == 0), 0, first * second)
    p = np.exp(-softplus(-a) - softplus(-b))
    formula = np.nan_to_num(-(both - p) * (1 - 1 / (1 + np.exp(-b))) / (1 - p))
    np.testing.assert_allclose(found[:, 1], formula, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("output", ["joint", "conditional"])
@pytest.mark.parametrize("size", [50.0, 100.0])
def test_large_logits_leave_loss_and_gradients_finite(output: str, size: float) -> None:
    """In float32, where sigmoid(50) is 1 and exp(100) is infinite, for all signs and labels."""
    cases = [(a, b, y) for a in (-size, 0, size) for b in (-size, 0, size) for y in range(4)]
    labels = tf.constant([divmod(y, 2) for _, _, y in cases], tf.float32)
    z = tf.constant([[a, b] for a, b, _ in cases], tf.float32)
    model = ESMM(LAYOUT, NETWORK, EMBEDDINGS, SIZES.model_copy(update={"output": output}))
    with tf.GradientTape() as tape:
        tape.watch(z)
        logits = model._with_joint(z) if output == "joint" else z  # what `call` gives
        loss = model._task_loss({"labels": labels}, logits)
    gradient = tape.gradient(loss, z).numpy() * len(cases)
    assert np.isfinite(loss) and np.isfinite(gradient).all()
    a, b = z.numpy().astype(np.float64).T
    both, one_less = -softplus(-a) - softplus(-b), np.logaddexp(np.logaddexp(-a, -b), -a - b)
    joint = both - (one_less - softplus(-a) - softplus(-b))  # ln p - ln(1 - p)
    assert_close(model._with_joint(z)[:, 1], joint, terms=10, magnitude=1 + 2 * size)
    first, second = labels.numpy().astype(np.float64).T
    expected = softplus(a) - first * a + softplus(joint) - first * second * joint
    assert_close(loss, expected.mean(), terms=200, magnitude=1 + 4 * size)
    # the error is of sigmoid(joint), whose own is that of joint
    slope = (1 / (1 + np.exp(-joint)) - first * second) * np.exp(
        -softplus(b) - one_less + softplus(-a) + softplus(-b)
    )
    assert_close(gradient[:, 1], slope, terms=20, magnitude=1 + 2 * size)


def test_the_loss_is_that_of_the_first_event_and_of_both(randomize: Callable[..., None]) -> None:
    labels = np.float32([[0, 0], [0, 1], [0, NAN], [1, 0], [1, 1], [1, NAN], [NAN, 0], [NAN, 1]])
    batch = {**random_batch(8), "labels": tf.constant(labels)}
    joint = np.float64([0, 0, 0, 0, 1, NAN, 0, NAN])
    values = []
    for output in ("joint", "conditional"):
        model = made(randomize, output=output)
        (loss,) = model.loss_terms(batch, training=False).values()
        a, b = made(randomize, output="conditional")(batch).numpy().astype(np.float64).T
        both, rest = log_parts(a, b)
        first = labels[:, 0].astype(np.float64)
        terms = softplus(a) - first * a, -(joint * both + (1 - joint) * rest)
        expected = sum(np.nansum(term) for term in terms) / 8
        assert_close(loss, expected, terms=60, magnitude=1 + np.abs([a, b]).max())
        values.append(loss)
    np.testing.assert_array_equal(values[0], values[1])


def test_outputs_and_what_they_are_scored_against(randomize: Callable[..., None]) -> None:
    batch = random_batch()
    joint, conditional = (made(randomize, output=o) for o in ("joint", "conditional"))
    z, own = joint(batch), conditional(batch)
    np.testing.assert_array_equal(z[:, 0], own[:, 0])
    np.testing.assert_array_equal(z[:, 1], joint_logit(own[:, 0], own[:, 1]))
    p, of_both = tf.sigmoid(own).numpy().astype(np.float64), joint.probabilities(z)[:, 1]
    assert_close(of_both, p[:, 0] * p[:, 1], terms=10, magnitude=1.0)
    labels = tf.constant([[0, 1], [0, NAN], [1, 1], [1, 0], [NAN, 1], [1, NAN]], tf.float32)
    np.testing.assert_array_equal(joint.targets(labels)[:, 1], [0, 0, 1, 0, NAN, NAN])
    np.testing.assert_array_equal(conditional.targets(labels)[:, 1], [NAN, NAN, 1, 0, NAN, NAN])
    for model in (joint, conditional):
        np.testing.assert_array_equal(model.targets(labels)[:, 0], labels[:, 0])


def test_evaluation_scores_the_targets(randomize: Callable[..., None]) -> None:
    batch = random_batch(64)
    batch.pop("representations")
    data = tf.data.Dataset.from_tensors(batch)
    losses = []
    for output in ("joint", "conditional"):
        model = made(randomize, output=output)
        model.compile()
        values = model.evaluate(data, verbose=0, return_dict=True)
        targets = model.targets(batch["labels"]).numpy()[:, 1]
        known = np.isfinite(targets)
        assert known.all() == (output == "joint")
        p = model.probabilities(model(batch)).numpy()[:, 1].astype(np.float64)
        mean = p[known].mean() / targets[known].mean()
        np.testing.assert_allclose(values["buy_calibration"], mean, rtol=1e-5)
        trained = float(model.loss_terms(batch, training=False)["tasks"])
        assert_close(values["loss"], trained, terms=60, magnitude=trained)
        losses.append(values["loss"])
    assert losses[0] == losses[1]  # it is of a and of both, whatever is told of b


def test_the_order_of_the_funnel_and_other_tasks(randomize: Callable[..., None]) -> None:
    three = replace(LAYOUT, tasks=("like", "buy", "click"))
    labels = np.random.default_rng(0).integers(0, 2, (12, 3)).astype(np.float32)
    batch = {**random_batch(), "labels": tf.constant(labels)}
    joint, conditional = (made(randomize, three, output=o) for o in ("joint", "conditional"))
    z, own = joint(batch), conditional(batch)
    for kept in (0, 2):
        np.testing.assert_array_equal(z[:, kept], own[:, kept])
    np.testing.assert_array_equal(z[:, 1], joint_logit(own[:, 2], own[:, 1]))
    expected = np.stack([labels[:, 0], labels[:, 1] * labels[:, 2], labels[:, 2]], axis=1)
    np.testing.assert_array_equal(joint.targets(batch["labels"]), expected)


@pytest.mark.parametrize(
    ("funnel", "tasks", "message"),
    [
        (["click", "bye"], ["click", "buy"], "unknown task 'bye'. Did you mean 'buy'?"),
        (["click", "click"], ["click", "buy"], "one task twice"),
        (["click", "buy"], ["click"], "ESMM needs 2 tasks"),
    ],
)
def test_what_is_no_funnel_is_refused(funnel: list[str], tasks: list[str], message: str) -> None:
    config = UpstreamConfig(model="esmm", esmm={"funnel": funnel})
    with pytest.raises(UserError) as refused:
        config.model_class.check_tasks(config, tasks)
    assert message in str(refused.value)


def test_second_events_without_the_first_are_refused_above_one_percent() -> None:
    def labels(without: int) -> Mapping[str, np.ndarray]:
        click, buy = np.zeros(1000, np.float32), np.zeros(1000, np.float32)
        click[:300] = buy[:100] = 1
        buy[300 : 300 + without] = 1
        click[990:], buy[990:] = NAN, 1  # unknown, so no contradiction
        return {"click": click, "buy": buy}

    strict, loose = (
        UpstreamConfig(model="esmm", esmm={"funnel": ["click", "buy"], "strict_funnel": s})
        for s in (True, False)
    )
    ESMM.check_labels(strict, labels(10))
    ESMM.check_labels(loose, labels(11))
    with pytest.raises(UserError, match="are no funnel") as refused:
        ESMM.check_labels(strict, labels(11))
    assert "11 of 1,000 training rows" in str(refused.value)
    by_hand = ESMM(LAYOUT, NETWORK, EMBEDDINGS, SIZES).configuration()
    with pytest.raises(UserError, match="are no funnel"):
        ESMM.check_labels(by_hand, labels(11))
    quiet = {name: np.zeros_like(values) for name, values in labels(0).items()}
    ESMM.check_new_labels(strict, quiet)
    ESMM.check_new_labels(strict, labels(10))
    ESMM.check_new_labels(loose, labels(11))
    with pytest.raises(UserError, match="11 of 1,000 new rows"):
        ESMM.check_new_labels(strict, labels(11))
    assert "strict_funnel=false" in str(refused.value)
