from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.models.aitm import AITM, AITMConfig
from tests.rounding import assert_close
from tests.small_models import EMBEDDINGS, LAYOUT, NETWORK, random_batch

pytestmark = pytest.mark.processor

SIZES = AITMConfig(expert_units=[8, 5], task_units=[4])


def made(randomize: Callable[..., None], **options: object) -> AITM:
    model = AITM(LAYOUT, NETWORK, EMBEDDINGS, SIZES.model_copy(update=options), seed=1)
    model(random_batch())
    randomize(model)
    return model


@pytest.mark.parametrize("sequence", [[], ["click", "buy"], ["buy", "click"]])
def test_vectors_are_handed_on_in_the_sequence(
    sequence: list[str], randomize: Callable[..., None]
) -> None:
    model, batch = made(randomize, sequence=sequence), random_batch()
    found = model.represent(batch)
    own = model.experts(found["towers"]).numpy()  # (B, T, h)
    order = [LAYOUT.tasks.index(task) for task in sequence or LAYOUT.tasks]
    handed = model.transfer(tf.constant(own[:, order])).numpy()
    for place, t in enumerate(order):
        np.testing.assert_array_equal(found[f"mix_{LAYOUT.tasks[t]}"], handed[:, place])
    first = order[0]
    np.testing.assert_array_equal(found[f"mix_{LAYOUT.tasks[first]}"], own[:, first])


def test_a_sequence_of_three_tasks_is_another_one_backwards(randomize: Callable[..., None]) -> None:
    """An order of two tasks is its own inverse; c, a, b of a, b, c is not."""
    three = replace(LAYOUT, tasks=("a", "b", "c"))
    sizes = SIZES.model_copy(update={"sequence": ["c", "a", "b"], "calibrator": 0.5})
    model, batch = AITM(three, NETWORK, EMBEDDINGS, sizes, seed=1), random_batch()
    model(batch)
    randomize(model)
    found = model.represent(batch)
    own = model.experts(found["towers"]).numpy()  # of a, b, c
    handed = model.transfer(tf.constant(own[:, [2, 0, 1]])).numpy()  # of c, a, b
    for task, place in {"c": 0, "a": 1, "b": 2}.items():
        np.testing.assert_array_equal(found[f"mix_{task}"], handed[:, place])
    weights = np.random.default_rng(1).uniform(size=(12, 3)).astype(np.float32)
    labels = tf.zeros([12, 3])
    terms = model.loss_terms(
        {**batch, "labels": labels, "weights": tf.constant(weights)}, training=False
    )
    a, b, c = (1 / (1 + np.exp(-model(batch).numpy().astype(np.float64)))).T
    above = weights[:, 0] * np.maximum(a - c, 0) + weights[:, 1] * np.maximum(b - a, 0)
    assert above.any()
    assert_close(terms["calibrator"], 0.5 * above.mean(), terms=60, magnitude=2.0)


@pytest.mark.parametrize("sequence", [[], ["buy", "click"]])
def test_the_calibrator_is_what_later_tasks_lie_above_earlier_ones(
    sequence: list[str], randomize: Callable[..., None]
) -> None:
    model, batch = made(randomize, sequence=sequence, calibrator=0.3), random_batch()
    # both probabilities about one half, so that either may be above the other
    bias = model.heads.logit_bias
    bias[:, 0, 0].assign(bias[:, 0, 0] - tf.reduce_mean(model(batch), axis=0))
    terms = model.loss_terms(batch, training=False)
    assert list(terms) == ["tasks", "calibrator"]
    p = 1 / (1 + np.exp(-model(batch).numpy().astype(np.float64)))
    above = p[:, 1] - p[:, 0] if not sequence else p[:, 0] - p[:, 1]
    assert (above > 0).any() and (above < 0).any()
    expected = 0.3 * np.maximum(above, 0).mean()
    assert_close(terms["calibrator"], expected, terms=60, magnitude=1.0)
    plain = made(randomize, sequence=sequence)
    assert list(plain.loss_terms(batch, training=False)) == ["tasks"]


@pytest.mark.parametrize("sequence", [[], ["buy", "click"]])
@pytest.mark.parametrize("shape", ["rows", "tasks"])
def test_rows_count_in_the_calibrator_by_their_weights(
    sequence: list[str], shape: str, randomize: Callable[..., None]
) -> None:
    model, batch = made(randomize, sequence=sequence, calibrator=0.3), random_batch()
    later = LAYOUT.tasks.index((sequence or LAYOUT.tasks)[1])
    weights = np.random.default_rng(3).uniform(0, 2, (12, 2)).astype(np.float32)
    weights[::3] = 0
    of_rows = weights[:, later]
    given = of_rows if shape == "rows" else weights
    p = 1 / (1 + np.exp(-model(batch).numpy().astype(np.float64)))
    above = np.maximum(p[:, later] - p[:, 1 - later], 0)
    assert (above[of_rows > 0] > 0).any() and (above[of_rows == 0] > 0).any()
    terms = model.loss_terms({**batch, "weights": tf.constant(given)}, training=False)
    expected = 0.3 * (of_rows * above).mean()
    assert_close(terms["calibrator"], expected, terms=60, magnitude=2.0)


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        (["click", "bye"], "unknown task 'bye'. Did you mean 'buy'?"),
        (["click"], "not one of all tasks"),
        (["click", "click"], "not one of all tasks"),
    ],
)
def test_a_sequence_that_is_none_is_refused(sequence: list[str], message: str) -> None:
    options = SIZES.model_copy(update={"sequence": sequence})
    with pytest.raises(UserError) as refused:
        AITM.refuse(options, EmbeddingsConfig(), LAYOUT.tasks)
    assert message in str(refused.value)
