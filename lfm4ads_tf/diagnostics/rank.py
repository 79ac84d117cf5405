"""How many dimensions tokens span.

The products and eigenvalues of many small matrices are TensorFlow's: on a busy machine NumPy's took
ten times as long, as the threads of its BLAS wait for each other at every one of them.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lfm4ads_tf.diagnostics.parts import parts

_RANKS = ("erank", "centred", "stable")


def token_ranks(tokens: tf.Tensor) -> dict[str, NDArray[np.float64]]:
    """Ranks of each row's matrix of tokens X (N, D), none of them a whole number.

        erank    exp(-sum p ln p),  p = s / sum s        singular values s of X
        centred  the same of X less the mean over its tokens
        stable   sum s^2 / max s^2

    All lie between 1 and min(N, D), and 0 stands for X = 0. More tokens raise that bound, so
    `erank_share` and the others are divided by it. Singular values are the roots of the eigenvalues
    of the smaller Gram matrix, in float64: those below 1e-7 of the largest are rounding.

    Args:
        tokens: Token by token, (N, B, D).

    Returns:
        Name -> (B,) float64.

    Source: Roy and Vetterli, The Effective Rank (EUSIPCO 2007), as RankUp (arXiv 2604.17878) takes
    it per row; the stable rank as in RankElastor (arXiv 2605.23191).
    """
    count, rows, width = tokens.shape
    ranks: dict[str, list[NDArray[np.float64]]] = {name: [] for name in _RANKS}
    for some in parts(rows, count * rows * width):
        few = tf.transpose(tokens[:, some], [1, 0, 2])  # (B', N, D)
        matrices = tf.cast(few, tf.float64)
        spectrum = _spectrum(matrices)
        centred = _spectrum(matrices - tf.reduce_mean(matrices, axis=1, keepdims=True))
        told = (_effective(spectrum), _effective(centred), _stable(spectrum))
        for name, values in zip(_RANKS, told, strict=True):
            ranks[name].append(values)
    whole = {name: np.concatenate(values) for name, values in ranks.items()}
    most = min(count, width)
    return whole | {f"{name}_share": value / most for name, value in whole.items()}


def sample_eranks(tokens: tf.Tensor) -> NDArray[np.float64]:
    """Effective rank of each token over a sample, of its matrix (B, D) as it is, not centred.

    `exp(-sum p ln p)` with p = s / sum s, at most min(B, D): 1 of a token that is the same for all
    rows but for its length. See `token_ranks`.

    Args:
        tokens: Token by token, (N, B, D).

    Returns:
        (N,).
    """
    count, rows, width = tokens.shape
    spectra = [
        _spectrum(tf.cast(tokens[some], tf.float64)) for some in parts(count, count * rows * width)
    ]
    return _effective(np.concatenate(spectra))


def _spectrum(matrices: tf.Tensor) -> NDArray[np.float64]:
    """Singular values of matrices (..., n, d), (..., min(n, d))."""
    wide = matrices.shape[-2] <= matrices.shape[-1]
    gram = tf.matmul(matrices, matrices, transpose_a=not wide, transpose_b=wide)
    values: NDArray[np.float64] = tf.sqrt(tf.maximum(tf.linalg.eigvalsh(gram), 0.0)).numpy()
    return values


def _effective(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp of the entropy of singular values (..., n), 0 where all of them are; (...,)."""
    total = values.sum(axis=-1, keepdims=True)
    shares = values / np.where(total > 0.0, total, 1.0)
    logs = np.log(np.where(shares > 0.0, shares, 1.0))
    entropy = -(shares * logs).sum(axis=-1)
    return np.where(total[..., 0] > 0.0, np.exp(entropy), 0.0)


def _stable(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """sum s^2 / max s^2 of singular values (..., n), 0 where all of them are; (...,)."""
    energy = np.square(values)
    largest = energy.max(axis=-1)
    return energy.sum(axis=-1) / np.where(largest > 0.0, largest, 1.0)
