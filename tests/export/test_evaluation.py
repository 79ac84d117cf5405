"""An export against its evaluation: what is taken as golden, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from export.evaluation import Evaluation
from lfm4ads_tf.errors import ExportRefused

TRAINED = {"click": np.array([0.5, 0.25, 0.001, 0.9], np.float32)}
NOT_EVALUATED = np.array([np.nan, np.nan, np.nan], np.float32)


def test_the_evaluations_scores_are_the_golden_ones() -> None:
    """The last row has no values and was not evaluated, nor was the second."""
    evaluated = np.array([0.5 + 4e-7, np.nan, 0.001], np.float32)
    of = Evaluation.of(TRAINED, TRAINED, {"click": evaluated}, "float32")
    assert (of.rows, of.tolerance) == (2, 1e-6)
    assert of.scores["click"].tolist() == [evaluated[0], *TRAINED["click"][1:]]


def test_other_scores_than_the_evaluations_are_refused() -> None:
    evaluated = np.array([0.5, 0.25, 0.0011], np.float32)
    with pytest.raises(
        ExportRefused, match="'click' of sample 2 is 0.001, in the evaluation 0.0011"
    ):
        Evaluation.of(TRAINED, TRAINED, {"click": evaluated}, "float32")
    nan = {"click": np.array([0.5, np.nan, 0.001, 0.9], np.float32)}
    with pytest.raises(ExportRefused, match="NaN as 'click', first for sample 1"):
        Evaluation.of(nan, nan, {"click": evaluated}, "float32")


@pytest.mark.parametrize(
    ("tables", "step", "fits"),
    [("int8", 0.079, True), ("int8", 0.081, False), ("float16", 0.0019, True),
     ("float16", 0.0021, False)],
)  # fmt: skip
def test_smaller_tables_may_move_the_log_odds_a_little(tables, step, fits) -> None:  # type: ignore[no-untyped-def]
    """Scores near 0 as well: a constant 0 instead of 0.001 is refused."""
    odds = np.log(TRAINED["click"] / (1 - TRAINED["click"]))
    served = {"click": (1 / (1 + np.exp(-(odds + step)))).astype(np.float32)}
    if fits:
        of = Evaluation.of(TRAINED, served, {"click": NOT_EVALUATED}, tables)
        assert of.rows == 0 and of.scores["click"].tolist() == served["click"].tolist()
        assert of.largest_difference == pytest.approx(step, rel=1e-2)
    else:
        with pytest.raises(ExportRefused, match=f"{tables} tables change 'click' too much"):
            Evaluation.of(TRAINED, served, {"click": NOT_EVALUATED}, tables)
    constant = {"click": np.array([0.5, 0.25, 0.0, 0.9], np.float32)}
    with pytest.raises(ExportRefused, match="inf"):
        Evaluation.of(TRAINED, constant, {"click": NOT_EVALUATED}, tables)


def test_items_may_be_padded() -> None:
    scores = {"ids": np.array([[b"a", b""]]), "scores": np.array([[2.0, -np.inf]], np.float32)}
    of = Evaluation.of(scores, scores, {}, "float32")
    assert of.largest_difference == 0.0 and of.scores["ids"].tolist() == [[b"a", b""]]
    other = {**scores, "scores": np.array([[2.1, -np.inf]], np.float32)}
    with pytest.raises(ExportRefused, match="'scores'"):
        Evaluation.of(scores, other, {}, "int8")
