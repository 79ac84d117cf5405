"""A command of train.py on real processes of this machine, some of which are killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster.scripts import ROOT

_STARTED = re.compile(r"^(\w+:\d+)  pid (\d+)")
_TWICE = re.compile(r"(\d+) batches up to step \d+ were learned twice")


class ClusterRun:
    """The launcher and its processes.

    Args:
        out: Run folder.
        arguments: Of train.py, `--out` apart.
        workers, servers, max_restarts: Of the launcher.
    """

    def __init__(
        self,
        out: Path,
        *arguments: str,
        workers: int = 2,
        servers: int = 2,
        max_restarts: int = 5,
    ) -> None:
        self.out = out
        options = {"workers": workers, "ps": servers, "max-restarts": max_restarts}
        words = [word for name, n in options.items() for word in (f"--{name}", str(n))]
        command = [sys.executable, "-m", "lfm4ads_tf.cluster.local", *words, "--"]
        self._process = subprocess.Popen(
            [*command, *arguments, "--out", str(out)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._pids: list[tuple[str, int]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self.lines.append(line.rstrip())
            found = _STARTED.match(line)
            if found:
                self._pids.append((found[1], int(found[2])))

    @property
    def told(self) -> str:
        """What the launcher printed."""
        return "\n".join(self.lines)

    def starts(self, task: str) -> list[int]:
        """Process numbers of a task, the first one first."""
        return [pid for name, pid in self._pids if name == task]

    def log(self, task: str) -> str:
        """What a task wrote, all its processes together."""
        path = self.out / "cluster" / f"{task.replace(':', '_')}.log"
        return path.read_text("utf-8") if path.exists() else ""

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
        """Waits for a condition; fails with all that was printed where it does not come."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{what} did not come:\n{self.told}\n{self.log('chief:0')}")
            time.sleep(0.05)

    @property
    def is_over(self) -> bool:
        """Whether the launcher has ended."""
        return self._process.poll() is not None

    def kill(self, task: str) -> int:
        """Kills the newest process of a task with signal 9."""
        pid = self.starts(task)[-1]
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_launcher(self) -> None:
        """Kills the launcher with signal 9."""
        self._process.kill()
        self._process.wait()

    def alive(self) -> list[int]:
        """The processes that were started and are there, zombies apart."""
        return [pid for _, pid in self._pids if _is_alive(pid)]

    def memory_mb(self, task: str) -> float:
        """Resident memory of the newest process of a task."""
        text = Path(f"/proc/{self.starts(task)[-1]}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024

    def finish(self, seconds: float = 300.0) -> int:
        """Waits for the end; the launcher's exit code."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            raise AssertionError(
                f"not done in {seconds:.0f} s:\n{self.told}\n{self.log('chief:0')[-3000:]}"
            ) from None
        self._reader.join()
        return code

    @property
    def learned_twice(self) -> int:
        """Batches that the chief said were learned twice."""
        return sum(map(int, _TWICE.findall(self.log("chief:0"))))


def test_auc(out: Path, seed: int = 0) -> dict[str, float]:
    """Task -> AUC of the upstream on all test rows, the frozen state."""
    entries = json.loads((out / f"upstream/seed_{seed}/results.json").read_text())["entries"]
    wanted = {"scenario": "all", "slice": "all", "split": "test", "refresh": "frozen"}
    return {
        e["task"]: e["metrics"]["auc"]
        for e in entries
        if all(e[key] == value for key, value in wanted.items())
    }


test_auc.__test__ = False


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
