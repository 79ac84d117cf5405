"""Timing side by side: workers in processes of their own, turns in rounds, medians and spread."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import IO, Any

import numpy as np

_ANSWER_SECONDS = 600.0  # longest wait for one answer; tracing on a busy machine takes a minute


class WorkerError(Exception):
    """A worker said that a request failed, ended, or did not answer in time."""


class Worker:
    """A process that answers one JSON object per line; it waits for input between two requests.

    Args:
        name: Name in messages.
        command: Command line of the process.
        folder: Its working directory.
        log: File that gets what the process prints.
        environment: Variables beside those of this process.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._log = log
        with log.open("w") as sink:
            self._process = subprocess.Popen(
                list(command),
                cwd=folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
            )

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def send(self, request: Mapping[str, Any]) -> None:
        """Sends a request without waiting for its answer."""
        try:
            _pipe(self._process.stdin).write(json.dumps(request) + "\n")
            _pipe(self._process.stdin).flush()
        except BrokenPipeError:
            pass  # `receive` tells why the process ended

    def receive(self) -> dict[str, Any]:
        """Waits for the answer to the oldest request.

        Raises:
            WorkerError: The request failed, the process ended or did not answer in time.
        """
        timer = Timer(_ANSWER_SECONDS, self._process.kill)
        timer.start()
        try:
            line = _pipe(self._process.stdout).readline()
        finally:
            timer.cancel()
        if not line:
            tail = self._log.read_text("utf-8", "replace")[-2000:]
            raise WorkerError(f"{self.name} ended (exit code {self._process.wait()}):\n{tail}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.name} failed:\n{answer['error']}")
        return answer

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Sends a request and waits for its answer, see `receive`."""
        self.send(request)
        return self.receive()

    def close(self) -> None:
        """Ends the process."""
        try:
            _pipe(self._process.stdin).close()
            self._process.wait(timeout=10)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()


@dataclass(frozen=True)
class Summary:
    """Repeated measurements of one quantity.

    Attributes:
        median: The median.
        spread: Interquartile range over median.
    """

    median: float
    spread: float


def summary(values: Sequence[float]) -> Summary:
    """Median and relative interquartile range."""
    low, middle, high = np.percentile(np.asarray(values), [25, 50, 75])
    return Summary(float(middle), float((high - low) / middle))


def interleave(
    turns: Mapping[str, Callable[[], float]], *, rounds: int, warmup: int, pause: float = 0.02
) -> dict[str, list[float]]:
    """Takes turns, so that what slows the machine for a while slows all alike.

    Each round begins with another contender, and every turn after a pause in which the threads of
    the one before go to sleep.

    Args:
        turns: Name -> measures once.
        rounds: Rounds that count.
        warmup: Rounds before them that do not.
        pause: Seconds before each turn.

    Returns:
        Name -> one value per counted round.
    """
    names = list(turns)
    values: dict[str, list[float]] = {name: [] for name in names}
    for index in range(warmup + rounds):
        first = index % len(names)
        for name in [*names[first:], *names[:first]]:
            time.sleep(pause)
            value = turns[name]()
            if index >= warmup:
                values[name].append(value)
    return values


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise RuntimeError("the process was started without pipes")
    return stream
