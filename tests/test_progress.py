"""Log lines about long work: often enough, never too often, by a clock that the test moves."""

from __future__ import annotations

import re
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.progress import EVERY, Activity, Progress, Pulse


class Told:
    """A pulse whose clock is moved by hand, looked at once a second as its thread does."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lines: list[tuple[float, str]] = []
        self.pulse = Pulse(
            beat=None, clock=lambda: self.now, say=lambda line: self.lines.append((self.now, line))
        )

    def wait(self, seconds: float) -> None:
        """Lets seconds pass."""
        for _ in range(round(seconds)):
            self.now += 1.0
            self.pulse.look()

    @property
    def texts(self) -> list[str]:
        return [line for _, line in self.lines]


def test_a_line_says_how_far_it_is_how_fast_and_what_is_left() -> None:
    told = Told()
    with Progress("upstream seed 0", 1000, pulse=told.pulse) as progress:
        for _ in range(45):
            told.wait(1)
            progress.advance(10)
        progress.note("valid 0.7123")
        told.wait(30)
    assert told.texts == [
        "upstream seed 0: 140 of 1,000 (14 %), 9.33 a second, at most 1 min 32 s left",
        "upstream seed 0: 290 of 1,000 (29 %), 10 a second, at most 71 s left",
        "upstream seed 0: 440 of 1,000 (44 %), 10 a second, at most 56 s left",
        "upstream seed 0: 450 of 1,000 (45 %), 0.667 a second, at most 13 min 45 s left, "
        "valid 0.7123",
        "upstream seed 0: 450 of 1,000 (45 %), 75 s so far, valid 0.7123",
    ]


def test_steps_of_an_earlier_process_are_no_speed() -> None:
    told = Told()
    with Progress("resumed", 1000, pulse=told.pulse) as progress:
        progress.advance(600)
        told.wait(5)
        progress.advance(30)
        told.wait(10)
    assert told.texts == ["resumed: 630 of 1,000 (63 %), 2 a second, at most 3 min 5 s left"]


def test_the_innermost_work_is_told_and_a_bar_needs_no_line() -> None:
    told = Told()
    with Activity("transfer", pulse=told.pulse):
        with Activity("model", 10, pulse=told.pulse):
            told.wait(20)
        told.wait(20)
        with Activity("shown", 10, shown=True, pulse=told.pulse):
            told.wait(100)
    assert [text.partition(":")[0] for text in told.texts] == ["model", "transfer"]
    assert told.texts[1] == "transfer: 30 s so far"


def test_quiet_and_finished_work_says_nothing() -> None:
    told = Told()
    with (
        Activity("a", quiet=True, pulse=told.pulse),
        Progress("b", 3, quiet=True, pulse=told.pulse),
    ):
        told.wait(100)
    with Activity("short", pulse=told.pulse):
        told.wait(EVERY - 1)
    told.wait(100)
    assert told.lines == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 2)), min_size=1, max_size=20))
def test_lines_are_neither_rare_nor_frequent(parts: list[tuple[int, int]]) -> None:
    """Work in parts of any length below a stage, and stages after another."""
    told = Told()
    began = told.now
    for seconds, depth in parts:
        with Activity("stage", pulse=told.pulse):
            if depth:
                with Activity("part", 5 if depth > 1 else None, pulse=told.pulse):
                    told.wait(seconds)
            else:
                told.wait(seconds)
    times = [began, *(when for when, _ in told.lines), told.now]
    gaps = [b - a for a, b in zip(times[:-1], times[1:], strict=True)]
    assert max(gaps) <= 20
    assert all(gap >= 10 for gap in gaps[:-1])


def test_a_thread_writes_the_lines_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[str] = []
    pulse = Pulse(every=0.02, beat=0.005, say=lines.append)
    with Activity("work", pulse=pulse):
        deadline = time.monotonic() + 10
        while len(lines) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
    assert len(lines) >= 3 and all(re.fullmatch(r"work: \d+ s so far", text) for text in lines)
    while any(t.name == "progress" for t in threading.enumerate()):
        assert time.monotonic() < deadline + 10
        time.sleep(0.005)
