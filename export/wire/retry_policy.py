"""When a request is sent again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from lfm4ads_tf.export.wire.serving_error import ServingError

T = TypeVar("T")


class Deadline:
    """A moment that all attempts of one call share.

    Args:
        seconds: From now.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self._end - time.monotonic())


@dataclass(frozen=True)
class RetryPolicy:
    """Attempts after an `UNAVAILABLE`, and after nothing else.

    Any other code may come from a request that the server has worked on; sending it again would
    only add load. The pause before attempt n + 1 is drawn from [p / 2, p] with
    p = min(longest_pause, first_pause 2^(n-1)), so that clients do not come back all at once.

    Args:
        retries: Further attempts after the first.
        first_pause, longest_pause: Seconds.
    """

    retries: int = 3
    first_pause: float = 0.02
    longest_pause: float = 0.5

    def run(self, attempt: Callable[[Deadline], T], deadline: Deadline) -> T:
        """Calls `attempt` until it answers.

        Args:
            attempt: Takes the deadline and raises ServingError.
            deadline: Of all attempts and pauses together.

        Raises:
            ServingError: The last attempt's; `DEADLINE_EXCEEDED` when no time is left for another.
        """
        for number in range(self.retries + 1):
            try:
                return attempt(deadline)
            except ServingError as error:
                if error.code != "UNAVAILABLE" or number == self.retries:
                    raise
                longest = min(self.longest_pause, self.first_pause * 2**number)
                pause = random.uniform(longest / 2, longest)
                if pause >= deadline.remaining():
                    raise ServingError(
                        "DEADLINE_EXCEEDED",
                        f"No answer within the deadline of {deadline.seconds:g} s, after "
                        f"{number + 1} attempts.",
                        received=str(error).replace("\n", " "),
                        fix="check the address and the server, or raise the deadline",
                    ) from error
                time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")
