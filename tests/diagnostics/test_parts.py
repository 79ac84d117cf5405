from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lfm4ads_tf.diagnostics import parts as module
from lfm4ads_tf.diagnostics.correlation import token_correlations
from lfm4ads_tf.diagnostics.parts import parts
from lfm4ads_tf.diagnostics.rank import sample_eranks, token_ranks


@pytest.mark.parametrize("numbers", [0, 10, 2**22, 2**24, 2**40])
def test_parts_make_the_whole_and_are_small(numbers: int) -> None:
    size = 10
    slices = list(parts(size, numbers))
    assert np.concatenate([np.arange(size)[some] for some in slices]).tolist() == [*range(size)]
    longest = max(some.stop - some.start for some in slices)
    assert longest == 1 or longest * numbers <= size * 2**22


def test_parts_change_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = np.random.default_rng(0).normal(size=(5, 31, 7))

    def told() -> list[Any]:
        return [token_ranks(tokens)["centred"], sample_eranks(tokens), token_correlations(tokens)]

    whole = told()
    monkeypatch.setattr(module, "_NUMBERS", 2 * 31 * 7)
    assert len(list(parts(5, 5 * 31 * 7))) == 3
    for values, expected in zip(told(), whole, strict=True):
        assert np.allclose(values, expected, rtol=1e-9)
