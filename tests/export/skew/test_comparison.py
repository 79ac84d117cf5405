"""Comparison of encoded rows."""

from __future__ import annotations

import json

import numpy as np

from lfm4ads_tf.export.skew.comparison import (
    SkewComparison,
    ids_differ,
    numbers_apart,
    padded,
    same_width,
)
from lfm4ads_tf.export.skew.report import SkewReport


def test_ids_differ_row_by_row() -> None:
    ours, theirs = np.array([[1, 2], [3, -1]]), np.array([[1, 2], [3, 4]])
    assert ids_differ(ours, theirs).tolist() == [False, True]
    assert ids_differ(np.zeros((2, 0)), np.zeros((2, 0))).tolist() == [False, False]


def test_numbers_are_apart_by_more_than_each_of_them_may() -> None:
    ours = np.array([[0.5, 100.0], [np.nan, 0.0], [1.0, 2.0]], np.float32)
    theirs = np.array([[0.25, 101.0], [0.0, 0.0], [1.25, 2.0]], np.float32)
    beyond, apart = numbers_apart(ours, theirs, np.array([[0.2, 2.0], [9.0, 9.0], [0.3, 0.0]]))
    assert beyond.tolist() == [True, True, False]
    assert apart.tolist() == [1.0, np.inf, 0.25]
    beyond, apart = numbers_apart(ours[:, 1], theirs[:, 1], np.array([1.5, 0.0, 0.0]))
    assert beyond.tolist() == [False, False, False] and apart.tolist() == [1.0, 0.0, 0.0]
    nothing = np.zeros((2, 0))
    assert [v.tolist() for v in numbers_apart(nothing, nothing, nothing)] == [[False] * 2, [0, 0]]


def test_lists_as_a_matrix() -> None:
    values, splits = np.array([5, 6, 7, 8]), np.array([0, 2, 2, 3, 4])
    assert padded(values, splits, slice(0, 3), -1).tolist() == [[5, 6], [-1, -1], [7, -1]]
    assert padded(values, splits, slice(2, 4), -1, width=3).tolist() == [[7, -1, -1], [8, -1, -1]]
    assert padded(values, splits, slice(1, 2), -1).shape == (1, 0)
    assert same_width(np.array([[1]]), 3, -1).tolist() == [[1, -1, -1]]
    assert same_width(np.array([[1, 2]]), 1, -1).tolist() == [[1, 2]]


def test_an_infinite_difference_is_null_in_the_report() -> None:
    score = SkewComparison("click", "score", 3, 1, 2, "0.5", "nan", largest=float("inf"))
    report = SkewReport("foundation", "log", "here", 3, 5, [], [], [score], 1e-6, [])
    document = report.to_json()
    assert json.loads(json.dumps(document, allow_nan=False))["scores"][0]["largest"] is None
    assert document["skew"] and not document["drift"]
