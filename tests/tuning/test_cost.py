from __future__ import annotations

import pytest

from lfm4ads_tf.tuning.cost import Cost


def test_the_table_in_closed_form() -> None:
    cost = Cost(columns=20, weights=50_000)
    row = 4e-6 + 20 * 1e-7 + 50_000 * 6e-11
    assert cost.trained(10_000, 256) == pytest.approx(10_000 * row + 10_000 / 256 * 2.5e-3)
    assert cost.scored(3_000) == pytest.approx(3_000 * row / 3)
    assert (cost.start(False), cost.start(True)) == (5.0, 0.5)
