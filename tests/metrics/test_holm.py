"""Holm's adjustment against its definition and the textbook procedure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.metrics import holm


def test_a_worked_example() -> None:
    # sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1 -> at least 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_missing_tests_do_not_count() -> None:
    assert holm([None, 0.02, None, 0.03]) == [None, 0.04, None, 0.04]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.sampled_from([0.01, 0.05, 0.1, 0.3]))
def test_rejects_what_the_step_down_procedure_rejects(p_values: list[float], level: float) -> None:
    """Go up the sorted values and reject while p_(k) < level / (m - k + 1); stop at the first."""
    rejected = np.zeros(len(p_values), bool)
    for step, k in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[k] * (len(p_values) - step) >= level:
            break
        rejected[k] = True
    adjusted = holm(p_values)
    assert [q is not None and q < level for q in adjusted] == rejected.tolist()
    assert all(q is not None and p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
