"""Progress display for anything that takes more than a second."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

_LOG = logging.getLogger(__name__)
EVERY = 15.0
"""Seconds between two lines about work that no bar shows."""
_BEAT = 1.0


class Activity:
    """Work that is told of in the log, one line every 15 s, while no bar shows it.

    Of nested activities the innermost one is told. Use it as a context.

    Args:
        label: What is going on.
        total: Steps in all; None where they are not known.
        quiet: Says nothing.
        shown: Whether a bar shows it, so that no line is needed.
        pulse: What writes the lines; that of the process when absent.
    """

    def __init__(
        self,
        label: str,
        total: int | None = None,
        *,
        quiet: bool = False,
        shown: bool = False,
        pulse: Pulse | None = None,
    ) -> None:
        self.label = label
        self.shown = shown
        self.text = ""
        self._total = total
        self._done = self._counted = 0
        self._quiet = quiet
        self._pulse = pulse or _PULSE
        self._began = self._marked = 0.0

    def __enter__(self) -> Activity:
        if not self._quiet:
            self._began = self._marked = self._pulse.clock()
            self._pulse.enter(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._quiet:
            self._pulse.leave(self)

    def advance(self, steps: int) -> None:
        """Counts steps that are done; at the very start they are an earlier process's."""
        if not self._done and self._pulse.clock() - self._began < _BEAT:
            self._counted = steps
        self._done += steps

    def line(self, now: float) -> str:
        """How far it is: steps, share, rate since its last line, and time that is left by it."""
        if self._total is None:
            return f"{self.label}: {_duration(now - self._began)} so far"
        share = f" ({100 * self._done / self._total:.0f} %)" if self._total else ""
        rate = (self._done - self._counted) / max(now - self._marked, 1e-9)
        self._marked, self._counted = now, self._done
        parts = [f"{self.label}: {self._done:,} of {self._total:,}{share}"]
        if rate > 0:
            left = max(self._total - self._done, 0) / rate
            parts += [f"{rate:.3g} a second", f"at most {_duration(left)} left"]
        else:
            parts.append(f"{_duration(now - self._began)} so far")
        return ", ".join([*parts, *([self.text] if self.text else [])])


class Pulse:
    """Writes a line about the innermost open activity when none was written for a while.

    Args:
        every: Seconds between two lines.
        beat: Seconds between two looks by a thread of its own; None without a thread.
        clock: Seconds that go on.
        say: What takes a line.
    """

    def __init__(
        self,
        *,
        every: float = EVERY,
        beat: float | None = _BEAT,
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = _LOG.info,
    ) -> None:
        self.clock = clock
        self._every = every
        self._beat = beat
        self._say = say
        self._lock = threading.RLock()
        self._open: list[Activity] = []
        self._thread: threading.Thread | None = None
        self._last = self._left = -math.inf

    def enter(self, activity: Activity) -> None:
        """Opens an activity."""
        with self._lock:
            now = self.clock()
            if not self._open and now - self._left > self._every:
                self._last = now  # the first of a row of activities
            self._open.append(activity)
            if self._beat is not None and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
                self._thread.start()

    def leave(self, activity: Activity) -> None:
        """Closes an activity."""
        with self._lock:
            self._open.remove(activity)
            self._left = self.clock()

    def look(self) -> None:
        """Writes a line if it is time for one."""
        with self._lock:
            now = self.clock()
            if not self._open or self._open[-1].shown or now - self._last < self._every:
                return
            line, self._last = self._open[-1].line(now), now
        self._say(line)

    def _run(self) -> None:
        while True:
            time.sleep(self._beat or _BEAT)
            with self._lock:
                if not self._open:
                    self._thread = None
                    return
            self.look()


_PULSE = Pulse()


class Progress:
    """A bar on standard error that disappears when it is done; log lines where it is no terminal.

    Args:
        label: What is going on.
        total: Steps in all.
        quiet: Shows nothing.
        pulse: See `Activity`.
    """

    def __init__(
        self,
        label: str,
        total: int,
        *,
        quiet: bool = False,
        pulse: Pulse | None = None,
    ) -> None:
        console = Console(stderr=True)
        shown = console.is_terminal
        self._activity = Activity(label, total, quiet=quiet, shown=shown, pulse=pulse)
        self._bar = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
            disable=quiet or not shown,
        )
        self._task = self._bar.add_task(label, total=total, note="")

    def __enter__(self) -> Progress:
        self._bar.start()
        self._activity.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._activity.__exit__(kind, error, trace)
        self._bar.stop()

    def advance(self, steps: int) -> None:
        """Moves the bar on."""
        self._bar.advance(self._task, steps)
        self._activity.advance(steps)

    def note(self, text: str) -> None:
        """Shows a short text beside the bar."""
        self._bar.update(self._task, note=text)
        self._activity.text = text


def _duration(seconds: float) -> str:
    """A time in the unit that reads best."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if seconds < 3600 else f"{seconds / 3600:.1f} h"
