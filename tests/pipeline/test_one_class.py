"""Held-out labels of one class are told with their number, for all rows and by scenario."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from lfm4ads_tf.pipeline.one_class import warn_one_class


def spoilt(tables: Any) -> None:
    for row in tables["log"]:
        if row["day"] == 7:
            row["click"] = "" if row["hour"] % 2 else 1  # all known ones of the test split
        if row["day"] == 6:
            row["stars"] = 1 if row["tab"] == "t1" else row["stars"]
            row["click"] = ""


def test_one_class_and_no_known_label_are_told_once(
    make_ads: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    cache = make_ads(spoilt).cache
    caplog.clear()  # what encoding them said
    with caplog.at_level(logging.WARNING):
        warn_one_class(cache, min_rows=100)
    in_t1 = len(cache.rows_of("valid", "t1"))
    assert 10 < in_t1 < 50
    assert caplog.messages == [
        "task 'click': none of the 60 labels of the valid split is known: no metric is defined "
        "there",
        f"task 'love': all {in_t1} known labels of the valid split of 't1' are 0: its AUC is "
        "undefined there",
        "task 'click': all 30 known labels of the test split are 1: its AUC is undefined there",
    ]


def test_only_scenarios_with_a_model_are_looked_at(
    make_ads: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    cache = make_ads(spoilt).cache
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        warn_one_class(cache, min_rows=10_000)
        assert len(caplog.messages) == 2 and "t1" not in caplog.text
        warn_one_class(cache, min_rows=1, scenarios=["t0"])
        assert "t1" not in caplog.text
        warn_one_class(cache, min_rows=10_000, scenarios=["t1"])
    assert "'t1' are 0" in caplog.text


def test_both_classes_everywhere_say_nothing(ads: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_one_class(ads.cache, min_rows=1)
    assert not caplog.records
