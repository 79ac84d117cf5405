"""What tokens tell of each other, and of labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lfm4ads_tf.seeding import derive

CLUSTERS = 48
"""k, the most codes of a token; RankUp's figures are of 48 and 64."""
_PASSES = 10  # of k-means


def token_codes(tokens: tf.Tensor, *, clusters: int = CLUSTERS, seed: int = 0) -> NDArray[np.int64]:
    """The number of the k-means cluster of every row of each token, after ten passes of Lloyd's.

    A token of at most k different vectors has a code for each of them. All others are clustered in
    one batched product a pass: SciPy's and scikit-learn's k-means, token by token, take ten times
    as long, and more on a busy machine.

    Args:
        tokens: Token by token, (N, B, D).
        clusters: k.
        seed: Seed of the first centres, which are k different rows.

    Returns:
        (N, B).
    """
    values = tf.cast(tokens, tf.float32).numpy() + np.float32(0)  # no -0
    codes = np.zeros(values.shape[:2], np.int64)
    many, first = [], []
    for n, token in enumerate(values):
        _, places, which = np.unique(_as_one(token), return_index=True, return_inverse=True)
        if len(places) <= clusters:
            codes[n] = which.reshape(-1)
        else:
            draw = np.random.default_rng(derive(seed, f"codes/{n}"))
            many.append(n)
            first.append(token[draw.choice(np.sort(places), clusters, replace=False)])
    if many:
        codes[many] = _clusters(tf.constant(values[many]), tf.constant(np.stack(first)))
    return codes


def _as_one(rows: NDArray[np.float32]) -> NDArray[np.void]:
    """Each row (B, D) as one value that is equal where all numbers are, (B,)."""
    return rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize)))[:, 0]


def _clusters(values: tf.Tensor, centres: tf.Tensor) -> NDArray[np.int64]:
    """The nearest centre of each row (M, B) after k-means of values (M, B, D) from (M, k, D) on.

    A centre that has lost all rows stays where it is.
    """
    middle = tf.reduce_mean(values, axis=1, keepdims=True)
    values, centres = values - middle, centres - middle  # float32: |x - c|^2 must not cancel
    for _ in range(_PASSES):
        nearest = _nearest(values, centres)
        members = tf.one_hot(nearest, centres.shape[1])  # (M, B, k)
        sizes = tf.reduce_sum(members, axis=1)[..., tf.newaxis]
        means = tf.math.divide_no_nan(tf.matmul(members, values, transpose_a=True), sizes)
        centres = tf.where(sizes > 0, means, centres)
    codes: NDArray[np.int64] = _nearest(values, centres).numpy()
    return codes


def _nearest(values: tf.Tensor, centres: tf.Tensor) -> tf.Tensor:
    """The place of the nearest centre (M, k, D) of each row (M, B, D), (M, B)."""
    lengths = tf.reduce_sum(tf.square(centres), axis=-1)[:, tf.newaxis]
    return tf.argmin(lengths - 2.0 * tf.matmul(values, centres, transpose_b=True), axis=-1)


def mutual_information(codes: NDArray[np.integer], others: NDArray[np.integer]) -> float:
    """I(a; b) = H(a) + H(b) - H(a, b) of the codes of some rows, in nats.

    It is the plug-in estimate, which of B rows is about (k_a - 1) (k_b - 1) / (2 B) too high: hold
    it against that of rows that were shuffled.

    Args:
        codes: (B,), from 0 on.
        others: (B,), from 0 on.
    """
    width = int(others.max(initial=0)) + 1
    joint = entropy(codes * width + others)
    return max(entropy(codes) + entropy(others) - joint, 0.0)


def entropy(codes: NDArray[np.integer]) -> float:
    """H of the codes (B,) of some rows, in nats."""
    counts = np.bincount(codes)
    shares = counts[counts > 0] / max(len(codes), 1)
    return 0.0 - float((shares * np.log(shares)).sum())  # 0 of one code, not -0


def pair_informations(
    codes: NDArray[np.integer], *, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mutual information of every two tokens, as it is and after the rows of one were shuffled.

    Args:
        codes: Of each token, (N, B).
        seed: Seed of the one order into which rows are shuffled.

    Returns:
        Two symmetric matrices (N, N) in nats; the entropy of a token stands on the first one's
        diagonal, and 0 on the other's.
    """
    count, rows = codes.shape
    shuffled = codes[:, np.random.default_rng(derive(seed, "shuffled")).permutation(rows)]
    plain, chance = np.zeros((count, count)), np.zeros((count, count))
    for m in range(count):
        plain[m, m] = entropy(codes[m])
        for n in range(m):
            plain[m, n] = plain[n, m] = mutual_information(codes[m], codes[n])
            chance[m, n] = chance[n, m] = mutual_information(codes[m], shuffled[n])
    return plain, chance


def label_information(
    codes: NDArray[np.integer], labels: NDArray[Any], *, seed: int = 0
) -> dict[str, float | int]:
    """Mutual information of a token and a label.

    Args:
        codes: Of the token, (B,).
        labels: (B,), NaN where unknown: such rows are left out.
        seed: Seed of the order into which labels are shuffled.

    Returns:
        `rows` with a label; in nats `mutual_information`, `mutual_information_shuffled` of
        shuffled labels, and `entropy` of the label, the most that a token can tell of it.
    """
    known = np.isfinite(labels)
    classes = np.unique(labels[known], return_inverse=True)[1].reshape(-1)
    shuffled = np.random.default_rng(derive(seed, "shuffled")).permutation(classes)
    return {
        "rows": int(known.sum()),
        "mutual_information": mutual_information(codes[known], classes),
        "mutual_information_shuffled": mutual_information(codes[known], shuffled),
        "entropy": entropy(classes),
    }
