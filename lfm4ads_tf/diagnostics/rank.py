"""How many dimensions tokens span."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 512  # rows


def token_ranks(tokens: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
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
    ranks = {name: np.zeros(rows) for name in ("erank", "centred", "stable")}
    for start in range(0, rows, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        matrices = tokens[:, part].astype(np.float64).transpose(1, 0, 2)  # (B', N, D)
        spectrum = _spectrum(matrices)
        ranks["erank"][part] = _effective(spectrum)
        ranks["centred"][part] = _effective(
            _spectrum(matrices - matrices.mean(axis=1, keepdims=True))
        )
        ranks["stable"][part] = _stable(spectrum)
    most = min(count, width)
    return ranks | {f"{name}_share": value / most for name, value in ranks.items()}


def sample_eranks(tokens: NDArray[Any]) -> NDArray[np.float64]:
    """Effective rank of each token over a sample, of its matrix (B, D) as it is, not centred.

    `exp(-sum p ln p)` with p = s / sum s, at most min(B, D): 1 of a token that is the same for all
    rows but for its length. See `token_ranks`.

    Args:
        tokens: Token by token, (N, B, D).

    Returns:
        (N,).
    """
    spectra = [_spectrum(token.astype(np.float64)) for token in tokens]
    return _effective(np.stack(spectra))


def _spectrum(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Singular values of matrices (..., n, d), (..., min(n, d))."""
    flipped = np.swapaxes(matrices, -1, -2)
    wide = matrices.shape[-2] <= matrices.shape[-1]
    gram = matrices @ flipped if wide else flipped @ matrices
    return np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0.0))


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
