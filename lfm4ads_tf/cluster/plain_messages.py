"""One line for what happens to a cluster, instead of what TensorFlow writes about it."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from typing import IO

_LOG = logging.getLogger(__name__)
_TENSORFLOW = "tensorflow"  # the logger of its coordinator
_RETRACED = re.compile("tf_function_(save|restore)")  # of every checkpoint, by design
_TASK = re.compile(r"/job:(\w+)/replica:0/task:(\d+)")
# The first line of a native message about a peer that is gone, and the lines that follow it.
_FIRST = re.compile(rb"E\d{4} .*(context\.cc|grpc_|rpc_|eager_client).*")
_FURTHER = (b"Additional GRPC error", b":UNKNOWN:", b":{", b"This could happen if the remote")


def tell_plainly() -> None:
    """Writes a line for a lost and for a returned worker; keeps back TensorFlow's own.

    One lost worker makes TensorFlow write hundreds of lines, from Python and from native code, that
    say no more. For the chief of a cluster; once a process.
    """
    logger = logging.getLogger(_TENSORFLOW)
    if any(isinstance(f, _Coordinator) for f in logger.filters):
        return
    logger.setLevel(logging.INFO)
    logger.addFilter(_Coordinator())
    _filter_native_stderr()


class _Coordinator(logging.Filter):
    """Translates what the coordinator logs; of others only warnings and errors pass."""

    def __init__(self) -> None:
        super().__init__()
        self._lost: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = str(record.msg)
        if text.startswith("Worker %s failed"):
            for task in self._task(record):
                if task not in self._lost:
                    self._lost.add(task)
                    _LOG.warning("%s was lost; its batches are given to the others", task)
            return False
        if text.startswith("Worker %s has been recovered"):
            for task in self._task(record):
                if task in self._lost:
                    self._lost.discard(task)
                    _LOG.warning("%s is back", task)
            return False
        noise = "Remote function on worker", "Cluster update failed"
        if text.startswith(noise) or _RETRACED.search(record.getMessage()):
            return False
        return record.levelno >= logging.WARNING

    @staticmethod
    def _task(record: logging.LogRecord) -> list[str]:
        arguments = record.args if isinstance(record.args, tuple) else ()
        found = _TASK.search(str(arguments[0])) if arguments else None
        return [] if found is None else [f"{found[1]}:{found[2]}"]


def _filter_native_stderr() -> None:
    """Keeps native messages about lost peers out of standard error; Python's own is as before."""
    try:
        shown = os.dup(2)
        read, write = os.pipe()
    except OSError:
        return  # a process without standard error
    sys.stderr.flush()
    plain = os.fdopen(shown, "w", buffering=1, errors="backslashreplace")
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr:
            handler.setStream(plain)
    sys.stderr = plain
    os.dup2(write, 2)
    os.close(write)
    threading.Thread(target=_pass_on, args=(os.fdopen(read, "rb"), shown), daemon=True).start()


def _pass_on(lines: IO[bytes], shown: int) -> None:
    hidden = False
    for line in lines:
        hidden = bool(_FIRST.match(line)) or (hidden and line.startswith(_FURTHER))
        if not hidden:
            os.write(shown, line)
