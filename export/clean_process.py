"""The process that proves exports: TensorFlow and NumPy alone, imported once for all of them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

from lfm4ads_tf.errors import ExportRefused
from lfm4ads_tf.export.verify_child import SERVE


class CleanProcess:
    """Runs `verify_child` for one export after another.

    The process imports TensorFlow and waits. For each export it forks one that proves this export
    alone and ends: no model finds anything of another, and one that crashes or hangs is refused
    alone. Where forking is not safe, a process that has proven an export ends, and the next export
    gets another. It is in a group of its own, which is killed when this one closes.

    Args:
        child: The file of `verify_child`.
    """

    def __init__(self, child: Path) -> None:
        self._child = child
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: Any = None  # what the process itself says; a fork writes to a file of its own
        self._lock = threading.Lock()  # held for a whole proof
        self._held = threading.RLock()  # for the moment in which a process comes or goes
        self._closed = False

    def start(self) -> None:
        """Starts the process where none runs, so that it imports TensorFlow beside other work.

        Nothing is to be done where an export is being proven, whose end is not waited for, or where
        this one is closed.
        """
        if self._lock.acquire(blocking=False):
            try:
                if not self._closed:
                    self._running()
            finally:
                self._lock.release()

    def prove(self, folder: Path, warmup: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
        """What `verify_child` reports of an export.

        Args:
            folder: The version folder.
            warmup: Its warm-up requests, `signature` and `inputs`: name -> serialized TensorProto
                in base 64.
            seconds: How long the answer may take.

        Raises:
            ExportRefused: It was refused, the process died or did not answer, or this one is
                closed.
        """
        with self._lock, tempfile.TemporaryDirectory() as scratch:
            asked, told, errors = (Path(scratch) / n for n in ("warmup.json", "report", "errors"))
            asked.write_text(json.dumps(warmup), encoding="utf-8")
            job = {"folder": folder, "warmup": asked, "report": told, "errors": errors}
            try:
                code = self._answer({key: str(path) for key, path in job.items()}, seconds)
            except TimeoutError as error:
                self._kill()
                raise ExportRefused(
                    f"the verifying process did not answer in {seconds:g} s"
                ) from error
            if code or not told.exists():
                raise ExportRefused(
                    f"cannot be loaded: the verifying process ended with {code} "
                    f"({self._last_words(errors)})"
                )
            report: dict[str, Any] = json.loads(told.read_text("utf-8"))
        reason = report.pop("refused")
        if reason is not None:
            raise ExportRefused(reason)
        return report

    def close(self) -> None:
        """Ends the process and whatever it proves; no other one is started."""
        with self._held:
            self._closed = True
            self._kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _running(self) -> subprocess.Popen[bytes]:
        with self._held:
            if self._closed:
                raise ExportRefused("it was not proven: the exports were ended before")
            if self._process is not None and self._process.poll() is None:
                return self._process
            self._kill()
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
            self._process = subprocess.Popen(
                # -P keeps the child's folder off the module path
                [sys.executable, "-P", str(self._child), SERVE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
                process_group=0,
                # NumPy's own threads would make forking unsafe; nothing here multiplies with NumPy
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
            return self._process

    def _answer(self, job: dict[str, str], seconds: float) -> int:
        """Exit code of a job; that of the process where it died of it."""
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        until = time.monotonic() + seconds
        try:
            process.stdin.write(f"{json.dumps(job)}\n".encode())
            answer = b""
            while not answer.endswith(b"\n"):
                left = max(until - time.monotonic(), 0.0)
                if not select.select([process.stdout], [], [], left)[0]:
                    raise TimeoutError
                chunk = process.stdout.read(4096)
                if not chunk:
                    return process.wait()
                answer += chunk
        except TimeoutError:
            raise
        except (OSError, ValueError):  # it is gone, or was closed meanwhile
            return process.wait()
        told = json.loads(answer)
        if told["last"]:
            process.wait()
        return int(told["code"])

    def _last_words(self, errors: Path) -> str:
        """The last line that a job, or else the process, wrote to standard error."""
        said = errors.read_bytes() if errors.exists() else b""
        if not said.strip() and self._errors is not None:
            with contextlib.suppress(ValueError):  # it was closed meanwhile
                self._errors.seek(0)
                said = self._errors.read()
        lines = said.decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "no message"

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
