from __future__ import annotations

import pytest

from lfm4ads_tf.tuning.cost import Cost


def test_the_table_in_closed_form() -> None:
    cost = Cost(columns=20, weights=50_000)
    row = 1.7e-6 + 20 * 4e-8 + 50_000 * 2.5e-11
    assert cost.trained(10_000, 256) == pytest.approx(10_000 * row + 10_000 / 256 * 1e-3)
    assert cost.scored(3_000) == pytest.approx(3_000 * row / 3)
    assert (cost.start(False), cost.start(True)) == (2.0, 0.2)
