from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, mutual_info_score

from lfm4ads_tf.diagnostics.mutual_information import (
    _clusters,
    entropy,
    label_information,
    mutual_information,
    pair_informations,
    token_codes,
)


def drawn_codes(tokens: int, rows: int, most: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, most, (tokens, rows))


def test_information_is_that_of_scikit_learn() -> None:
    codes = drawn_codes(2, 200, 9)
    codes[1] = (codes[0] + (codes[1] == 0)) % 5
    found = mutual_information(*codes)
    assert found == pytest.approx(mutual_info_score(*codes))
    assert found == pytest.approx(mutual_information(*codes[::-1]))
    assert entropy(codes[0]) == pytest.approx(stats.entropy(np.bincount(codes[0])))
    assert mutual_information(codes[0], codes[0]) == pytest.approx(entropy(codes[0]))


def test_information_has_known_values() -> None:
    two = np.array([0, 0, 1, 1])
    assert entropy(two) == pytest.approx(math.log(2))  # nats
    assert mutual_information(two, 1 - two) == pytest.approx(math.log(2))
    assert mutual_information(two, np.array([0, 1, 0, 1])) == pytest.approx(0.0, abs=1e-12)
    assert mutual_information(two, np.zeros(4, int)) == 0.0
    assert entropy(np.zeros(0, int)) == entropy(np.zeros(3, int)) == 0.0


def test_pairs_stand_beside_what_chance_gives() -> None:
    rows, most = 1000, 20
    codes = drawn_codes(3, rows, most)
    codes[2] = codes[0] // 2
    plain, chance = pair_informations(codes, seed=1)
    assert plain[0, 2] == plain[2, 0] == pytest.approx(entropy(codes[2]))
    assert np.diag(plain) == pytest.approx([entropy(c) for c in codes])
    assert plain[0, 1] == pytest.approx(mutual_info_score(codes[0], codes[1]))
    # G = 2 B I of independent codes has a chi-square distribution of (k - 1)^2 degrees
    low, high = (stats.chi2.ppf(p, (most - 1) ** 2) / (2 * rows) for p in (1e-4, 1 - 1e-4))
    assert low < plain[0, 1] < high and low < chance[1, 0] < high
    assert chance[0, 2] < plain[0, 2] / 5 and not np.diag(chance).any()
    again = pair_informations(codes, seed=1)
    assert np.array_equal(chance, again[1]) and np.array_equal(chance, chance.T)
    assert not np.array_equal(chance, pair_informations(codes, seed=2)[1])


def test_tokens_may_change_places() -> None:
    codes = drawn_codes(4, 100, 3)
    plain = pair_informations(codes)[0]
    order = np.array([2, 0, 3, 1])
    assert pair_informations(codes[order])[0] == pytest.approx(plain[np.ix_(order, order)])


def test_a_token_tells_of_labels() -> None:
    labels = np.array([0.0, 1.0, np.nan] * 100)
    codes = np.where(labels == 1, 3, 0)
    told = label_information(codes, labels, seed=4)
    assert told["rows"] == 200
    assert (
        told["mutual_information"] == pytest.approx(told["entropy"]) == pytest.approx(math.log(2))
    )
    # one degree of freedom; the seed is fixed
    assert told["mutual_information_shuffled"] < stats.chi2.ppf(1 - 1e-4, 1) / 400
    nothing = label_information(codes, np.full(300, np.nan))
    assert set(nothing.values()) == {0}


def test_few_different_vectors_have_a_code_each() -> None:
    values = np.random.default_rng(0).normal(size=(5, 3))
    which = np.random.default_rng(1).integers(0, 5, 40)
    tokens = np.stack([values[which], np.ones((40, 3))])
    codes = token_codes(tokens, clusters=8)
    assert adjusted_rand_score(codes[0], which) == 1.0 and not codes[1].any()


def test_codes_are_clusters() -> None:
    rng = np.random.default_rng(0)
    centres, which = 10.0 * np.eye(4), rng.integers(0, 4, 300)
    tokens = (centres[which] + rng.normal(size=(300, 4), scale=0.1))[np.newaxis]
    codes = token_codes(tokens, clusters=12, seed=3)
    assert np.array_equal(codes, token_codes(tokens, clusters=12, seed=3))
    assert 4 <= len(np.unique(codes)) <= 12
    of_codes = [np.unique(which[codes[0] == code]) for code in np.unique(codes)]
    assert all(len(groups) == 1 for groups in of_codes)  # no code is of two groups


def test_clusters_are_those_of_scikit_learn() -> None:
    values = np.random.default_rng(0).normal(size=(2, 300, 4)).astype(np.float32) + 50.0
    first = values[:, :12]
    found = _clusters(tf.constant(values), tf.constant(first))
    for codes, rows, centres in zip(found, values, first, strict=True):
        # as many passes; a row between two centres may go either way by rounding
        expected = KMeans(12, init=centres, n_init=1, max_iter=10, tol=0.0).fit(rows)
        assert (codes == expected.labels_).mean() > 0.98


def test_a_centre_without_rows_stays() -> None:
    values = np.array([[[0.0], [0.1], [1.0], [1.1]]], np.float32)
    first = np.array([[[0.0], [9.0], [1.0]]], np.float32)
    assert _clusters(tf.constant(values), tf.constant(first)).tolist() == [[0, 0, 2, 2]]
