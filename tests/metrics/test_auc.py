"""AUC against scikit-learn, and the properties of a rank statistic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.metrics import auc

pytestmark = pytest.mark.processor

ROWS = st.integers(2, 60)


@st.composite
def labelled_scores(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Draws labels of both classes and whole scores with many ties."""
    rows = draw(ROWS)
    labels = draw(hnp.arrays(np.int64, rows, elements=st.integers(0, 1)))
    labels[0], labels[-1] = 0, 1
    scores = draw(hnp.arrays(np.int64, rows, elements=st.integers(-8, 8)))
    return labels, scores.astype(np.float64)


@given(labelled_scores())
def test_equals_scikit_learn_with_ties(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    assert auc(*drawn) == pytest.approx(roc_auc_score(*drawn), abs=1e-9)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_equals_scikit_learn_on_many_rows(dtype: type) -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=50_000).astype(dtype)
    labels = rng.random(50_000) < 1 / (1 + np.exp(-scores.astype(np.float64)))
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)


def test_weights_equal_scikit_learn_and_repeated_rows() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 500)
    scores = rng.integers(0, 40, 500).astype(float)
    weights = rng.integers(0, 4, 500)
    value = auc(labels, scores, weights)
    assert value == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights), abs=1e-9)
    repeated = np.repeat(np.arange(500), weights)
    assert value == pytest.approx(auc(labels[repeated], scores[repeated]), abs=1e-12)


@given(labelled_scores())
def test_keeps_under_increasing_maps_and_turns_under_decreasing(
    drawn: tuple[np.ndarray, np.ndarray],
) -> None:
    labels, scores = drawn
    value = auc(labels, scores)
    assert value is not None
    assert auc(labels, np.exp(scores / 4.0)) == value
    assert auc(labels, -scores) == pytest.approx(1.0 - value, abs=1e-12)
    assert auc(1 - labels, scores) == pytest.approx(1.0 - value, abs=1e-12)


@given(labelled_scores(), st.integers(0, 2**32 - 1))
def test_unlabelled_rows_do_not_count(drawn: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    labels, scores = drawn
    rng = np.random.default_rng(seed)
    more = np.r_[labels.astype(float), np.full(5, np.nan)]
    other = np.r_[scores, rng.normal(size=4), np.inf]
    order = rng.permutation(more.size)
    assert auc(more[order], other[order]) == auc(labels, scores)


@pytest.mark.parametrize("labels", [[], [1, 1], [0, 0, 0], [np.nan, np.nan], [1, np.nan]])
def test_is_none_for_one_class(labels: list[float]) -> None:
    assert auc(labels, np.arange(len(labels))) is None


def test_is_none_when_a_class_has_no_weight() -> None:
    assert auc([0, 1, 1], [0.1, 0.2, 0.3], [0.0, 1.0, 1.0]) is None


@pytest.mark.parametrize(
    ("labels", "scores", "weights", "message"),
    [
        ([0, 1], [0.1, np.nan], None, "finite"),
        ([0, 1], [0.1, np.inf], None, "finite"),
        ([0, 2], [0.1, 0.2], None, "0, 1 or NaN"),
        ([0, 1, 1], [0.1, 0.2], None, "one length"),
        ([[0, 1]], [[0.1, 0.2]], None, "one length"),
        ([0, 1], [0.1, 0.2], [1.0], "as long as"),
        ([0, 1], [0.1, 0.2], [1.0, -1.0], "not negative"),
    ],
)
def test_refuses_bad_input(
    labels: list[float], scores: list[float], weights: list[float] | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        auc(labels, scores, weights)
