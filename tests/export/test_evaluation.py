"""An export against its evaluation: what is taken as golden, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from lfm4ads_tf.errors import ExportRefused
from lfm4ads_tf.export.evaluation import Evaluation
from lfm4ads_tf.export.rounding import Rounding

TRAINED = {"click": np.array([0.5, 0.25, 0.001, 0.9], np.float32)}
ROUNDINGS = {"click": Rounding("logit", 2e-6)}
NOT_EVALUATED = np.array([np.nan, np.nan, np.nan], np.float32)


def test_the_evaluations_scores_are_the_golden_ones() -> None:
    """The last row has no values and was not evaluated, nor was the second."""
    evaluated = np.array([0.5 + 4e-7, np.nan, 0.001], np.float32)
    of = Evaluation.of(TRAINED, TRAINED, {"click": evaluated}, "float32", ROUNDINGS)
    assert (of.rows, of.largest_difference, of.largest_share) == (2, 0.0, 0.0)
    assert of.scores["click"].tolist() == [evaluated[0], *TRAINED["click"][1:]]


def test_other_scores_than_the_evaluations_are_refused() -> None:
    evaluated = np.array([0.5, 0.25, 0.0011], np.float32)
    with pytest.raises(
        ExportRefused, match="'click' of sample 2 is 0.001, in the evaluation 0.0011"
    ):
        Evaluation.of(TRAINED, TRAINED, {"click": evaluated}, "float32", ROUNDINGS)
    nan = {"click": np.array([0.5, np.nan, 0.001, 0.9], np.float32)}
    with pytest.raises(ExportRefused, match="NaN as 'click', first for sample 1"):
        Evaluation.of(nan, nan, {"click": evaluated}, "float32", ROUNDINGS)


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
        of = Evaluation.of(TRAINED, served, {"click": NOT_EVALUATED}, tables, ROUNDINGS)
        assert of.rows == 0 and of.scores["click"].tolist() == served["click"].tolist()
        assert of.largest_difference == pytest.approx(step, rel=1e-2)
        assert 0.9 < of.largest_share <= 1
    else:
        with pytest.raises(ExportRefused, match=f"{tables} tables change 'click' too much"):
            Evaluation.of(TRAINED, served, {"click": NOT_EVALUATED}, tables, ROUNDINGS)
    constant = {"click": np.array([0.5, 0.25, 0.0, 0.9], np.float32)}
    with pytest.raises(ExportRefused, match="inf"):
        Evaluation.of(TRAINED, constant, {"click": NOT_EVALUATED}, tables, ROUNDINGS)


@pytest.mark.parametrize(("off", "fits"), [(2e-7, True), (2e-5, False)])
def test_scores_of_the_evaluation_may_differ_by_rounding_alone(off: float, fits: bool) -> None:
    """0.25 bound = 5e-7 at a score of 0.5, and less near 0: there 1e-7 is refused as well."""
    evaluated = {"click": np.array([0.5 + off, np.nan, np.nan], np.float32)}
    if fits:
        Evaluation.of(TRAINED, TRAINED, evaluated, "float32", ROUNDINGS)
    else:
        with pytest.raises(ExportRefused, match="does not give the scores"):
            Evaluation.of(TRAINED, TRAINED, evaluated, "float32", ROUNDINGS)
    small = {"click": np.array([np.nan, np.nan, 0.001 + 1e-7], np.float32)}
    with pytest.raises(ExportRefused, match="does not give the scores"):
        Evaluation.of(TRAINED, TRAINED, small, "float32", ROUNDINGS)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_other_numbers_may_move_by_a_share_of_their_terms(scale: float) -> None:
    rounding = {"r": Rounding("value", 1e-6 * scale)}
    trained = {"r": np.array([[2.0, 0.0], [-4.0, 1.0]], np.float32) * np.float32(scale)}
    near = {"r": trained["r"] + np.float32(0.019 * 2 * scale)}
    far = {"r": trained["r"] + np.float32(0.021 * 2 * scale)}
    assert Evaluation.of(trained, near, {}, "int8", rounding).largest_share <= 1
    with pytest.raises(ExportRefused, match="int8 tables change 'r' too much"):
        Evaluation.of(trained, far, {}, "int8", rounding)
    terms = {"r": np.array([[4.0], [4.0]]) * scale}  # the terms are larger than the sum
    assert Evaluation.of(trained, far, {}, "int8", rounding, terms).largest_share <= 1


def test_items_may_be_padded() -> None:
    scores = {"ids": np.array([[b"a", b""]]), "scores": np.array([[2.0, -np.inf]], np.float32)}
    rounding = {"scores": Rounding("value", 1e-6)}
    of = Evaluation.of(scores, scores, {}, "float32", rounding)
    assert of.largest_difference == 0.0 and of.scores["ids"].tolist() == [[b"a", b""]]
    other = {**scores, "scores": np.array([[2.1, -np.inf]], np.float32)}
    with pytest.raises(ExportRefused, match="'scores'"):
        Evaluation.of(scores, other, {}, "int8", rounding)
