from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.tuning.budget import seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("2h", 7200),
        ("1.5m", 90),
        ("90", 90),
        (" 7s ", 7),
    ],
)
def test_durations_as_people_write_them(text: str, expected: float) -> None:
    assert seconds(text) == expected


@given(st.integers(0, 9), st.integers(0, 90), st.integers(1, 90))
def test_parts_add_up(hours: int, minutes: int, rest: int) -> None:
    assert seconds(f"{hours}h{minutes}m{rest}s") == 3600 * hours + 60 * minutes + rest


@pytest.mark.parametrize("text", ["", "0", "0s", "-5m", "5 m", "m", "30m1h", "five", "1d", "nan"])
def test_what_is_no_duration_is_one_message(text: str) -> None:
    with pytest.raises(UserError) as error:
        seconds(text, "timeout")
    for part in ("The timeout is no duration above zero", "1h30m"):
        assert part in str(error.value)
