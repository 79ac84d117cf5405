from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy, ortho_group

from lfm4ads_tf.diagnostics.rank import sample_eranks, token_ranks

ROUNDING = 1e-5
"""Roots of eigenvalues that are zero are of the size of sqrt(2^-52) of the largest value."""


def drawn(tokens: int, rows: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(tokens, rows, width))


def erank(matrix: np.ndarray) -> float:
    spectrum = np.linalg.svd(matrix, compute_uv=False)
    return float(np.exp(entropy(spectrum))) if spectrum.any() else 0.0


def ranks_of(x: np.ndarray) -> dict[str, float]:
    spectrum = np.linalg.svd(x, compute_uv=False)
    length = np.linalg.norm(x, 2)
    ranks = {
        "erank": erank(x),
        "centred": erank(x - x.mean(axis=0)) if len(x) > 1 else 0.0,
        "stable": float(np.square(spectrum).sum() / length**2) if length else 0.0,
    }
    return ranks | {f"{name}_share": value / min(x.shape) for name, value in ranks.items()}


@pytest.mark.parametrize(("tokens", "width"), [(3, 8), (6, 4), (1, 5)])
def test_ranks_are_those_of_the_singular_values(tokens: int, width: int) -> None:
    x = drawn(tokens, 5, width)
    x[:, 1] = np.outer(np.arange(1, tokens + 1), x[0, 1])  # collapsed
    x[:, 2] = 0.0
    ranks = token_ranks(x)
    for row in range(5):
        told = {name: values[row] for name, values in ranks.items()}
        assert told == pytest.approx(ranks_of(x[:, row]), abs=ROUNDING)
    assert ranks["erank"][1] == pytest.approx(1.0, abs=ROUNDING) and ranks["erank"][2] == 0.0


def test_ranks_have_known_values() -> None:
    x = np.zeros((3, 1, 4))
    x[range(3), 0, range(3)] = (1.0, 1.0, 2.0)
    ranks = token_ranks(x)
    assert ranks["erank"][0] == pytest.approx(2**1.5)  # H of (1/4, 1/4, 1/2) is 1.5 bits
    assert ranks["erank_share"][0] == pytest.approx(2**1.5 / 3)
    assert ranks["stable"][0] == pytest.approx(6 / 4)


@given(st.integers(0, 2**31), st.sampled_from([(4, 6), (5, 3)]), st.floats(1e-3, 1e3))
@settings(max_examples=20, deadline=None)
def test_ranks_stay_where_tokens_change_places_are_turned_or_scaled(
    seed: int, shape: tuple[int, int], factor: float
) -> None:
    tokens, width = shape
    x = drawn(tokens, 3, width, seed)
    turn = ortho_group(width, seed=seed).rvs()
    order = np.random.default_rng(seed).permutation(tokens)
    moved = token_ranks(factor * x[order] @ turn)
    for name, values in token_ranks(x).items():
        assert moved[name] == pytest.approx(values, abs=ROUNDING)
        most = 1 if name.endswith("share") else min(shape)
        assert (values > 0).all() and (values <= most + ROUNDING).all()


def test_a_shift_of_all_tokens_leaves_the_centred_rank() -> None:
    x = drawn(4, 3, 6)
    moved = x + drawn(1, 3, 6, seed=1)
    assert token_ranks(moved)["centred"] == pytest.approx(token_ranks(x)["centred"])
    assert abs(token_ranks(moved)["erank"] - token_ranks(x)["erank"]).min() > 1e-2


@pytest.mark.parametrize("rows", [3, 40])
def test_a_token_has_its_rank_over_the_sample(rows: int) -> None:
    x = drawn(3, rows, 5)
    x[1] = np.outer(np.arange(1, rows + 1), x[1, 0])  # one direction
    ranks = sample_eranks(x)
    assert ranks == pytest.approx([erank(token) for token in x], abs=ROUNDING)
    assert ranks[1] == pytest.approx(1.0, abs=ROUNDING)
    assert sample_eranks(x[::-1])[::-1] == pytest.approx(ranks)
    shifted = sample_eranks(x + 100.0)  # the mean is not taken off
    assert shifted[0] < 1.5 < ranks[0]
