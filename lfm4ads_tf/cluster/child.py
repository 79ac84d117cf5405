"""One process of the launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_STEP = 0.05  # seconds between two looks


class Child:
    """A process that leads a group of its own and has the launcher's lifeline as standard input.

    Whatever it started itself ends with it: as long as nobody asked for its exit code, its group
    cannot be another's, so the group is killed just before.

    Args:
        command: The command line.
        environment: All of its variables.
        log: File that its output is appended to.

    Raises:
        OSError: It cannot be started, or the log not be written.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        self.began = time.monotonic()
        with log.open("ab") as stream:
            self._log_begins = stream.seek(0, os.SEEK_END)
            # The write end of the pipe is inherited by no other process (PEP 446), so it closes
            # with the launcher.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
                close_fds=True,
            )

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def ended(self) -> int | None:
        """The exit code, negative after a signal; None while it runs."""
        if self._process.returncode is None:
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            if os.waitid(os.P_PID, self.pid, options) is None:
                return None
            self._signal_group(signal.SIGKILL)
            self._process.wait()
            self._close()
        return self._process.returncode

    def end(self) -> str:
        """How it ended, in words."""
        code = self.ended()
        if code is None:
            return "runs"
        if code >= 0:
            return f"ended with exit code {code}"
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
        return f"was ended by signal {-code}"

    def wait(self, seconds: float) -> int | None:
        """The exit code; None if it still runs after some seconds."""
        deadline = time.monotonic() + seconds
        while (code := self.ended()) is None and time.monotonic() < deadline:
            time.sleep(_STEP)
        return code

    def ask_to_end(self) -> None:
        """Asks the process to end (SIGTERM)."""
        if self.ended() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Ends the process and whatever it started, and waits until it is gone."""
        if self.ended() is None:
            self._signal_group(signal.SIGKILL)
            self._process.wait()
            self._close()

    def log_text(self) -> str:
        """What it wrote to its log."""
        with self.log.open("rb") as stream:
            stream.seek(self._log_begins)
            return stream.read().decode("utf-8", "replace")

    def _signal_group(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
