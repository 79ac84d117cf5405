"""Geometry of the bars."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.analysis.bar_panel import Bar, bar_panel

LIMITS = (-2.0, 6.0)


def _bar(panel: str) -> tuple[float, float]:
    found = re.search(r'<rect x="([\d.]+)%" y="2" width="([\d.]+)%"', panel)
    assert found is not None
    return float(found[1]), float(found[2])


@given(st.floats(-2, 6))
def test_bar_spans_start_to_value(value: float) -> None:
    bars = [Bar("m", "text", value, None, "red")]
    left, width = _bar(bar_panel("p", [("", bars)], start=0.0, limits=LIMITS, digits=1))
    ends = sorted((0.0, value))
    assert left == pytest.approx(100 * (ends[0] + 2) / 8, abs=0.02)
    assert width == pytest.approx(100 * (ends[1] - ends[0]) / 8, abs=0.02)


def test_undefined_value_has_no_bar_but_its_text() -> None:
    panel = bar_panel(
        "p", [("", [Bar("m", "–", None, None, "red")])], start=0.0, limits=LIMITS, digits=1
    )
    assert "<rect" not in panel and "<span>–</span>" in panel


def test_axis_is_labelled_and_whiskers_are_cut_at_its_ends() -> None:
    bars = [Bar("m", "5 ± 4", 5.0, 4.0, "red")]
    panel = bar_panel("p", [("head", bars)], start=0.0, limits=LIMITS, digits=1)
    assert re.findall(r'left:([\d.]+)%">([^<]*)<', panel) == [
        ("0.0", "-2.0"),
        ("25.0", "0.0"),
        ("100.0", "+6.0"),
    ]
    assert 'x1="37.5%" x2="100.0%"' in panel  # 1 to 9, cut at 6
