"""Progress display for anything that takes more than a second."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress


class Progress:
    """A bar on standard error that disappears when it is done.

    Args:
        label: What is going on.
        total: Steps in all.
        quiet: Shows nothing.
    """

    def __init__(self, label: str, total: int, *, quiet: bool = False) -> None:
        console = Console(stderr=True)
        self._bar = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task(label, total=total, note="")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def advance(self, steps: int) -> None:
        """Moves the bar on."""
        self._bar.advance(self._task, steps)

    def note(self, text: str) -> None:
        """Shows a short text beside the bar."""
        self._bar.update(self._task, note=text)
