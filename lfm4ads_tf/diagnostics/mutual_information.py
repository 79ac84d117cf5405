"""What tokens tell of each other, and of labels."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from lfm4ads_tf.seeding import derive

CLUSTERS = 48
"""k, the most codes of a token; RankUp's figures are of 48 and 64."""
_PASSES = 10  # of k-means


def token_codes(
    tokens: NDArray[Any], *, clusters: int = CLUSTERS, seed: int = 0
) -> NDArray[np.int64]:
    """The number of the k-means cluster of every row of each token.

    A token of at most k different vectors has a code for each of them.

    Args:
        tokens: Token by token, (N, B, D).
        clusters: k.
        seed: Seed of the first centres, which are rows.

    Returns:
        (N, B).
    """
    codes = np.zeros(tokens.shape[:2], np.int64)
    for n, token in enumerate(tokens.astype(np.float32)):
        distinct, places = np.unique(token, axis=0, return_inverse=True)
        if len(distinct) <= clusters:
            codes[n] = places.reshape(-1)
            continue
        draw = np.random.default_rng(derive(seed, f"codes/{n}"))
        first = distinct[draw.choice(len(distinct), clusters, replace=False)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="One of the clusters is empty")
            codes[n] = kmeans2(token, first, iter=_PASSES, minit="matrix")[1]
    return codes


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
