"""Proves and publishes exports while the next ones are written."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from lfm4ads_tf.errors import ExportRefused
from lfm4ads_tf.export.clean_process import CleanProcess
from lfm4ads_tf.export.exporter import WrittenExport
from lfm4ads_tf.export.verify import is_small, verifying_process

_LOG = logging.getLogger(__name__)


class Proofs:
    """One export after another is proven and published, beside the writing of the next.

    Writing and each program that proves take one of `processors` places: the times that a blessing
    tells are measured with a processor for each, and on a single one everything happens in turn. An
    export that one may not want in memory beside the next is waited for. Where the context is left
    early, what is not published yet is removed.

    Args:
        processors: Number of places; the processors of this process when absent.
    """

    def __init__(self, processors: int | None = None) -> None:
        self._places = _Places(processors or _processors())
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="proof")
        self._process: CleanProcess = verifying_process()
        self._written: list[WrittenExport] = []

    def start(self) -> None:
        """Starts the verifying process, which first imports TensorFlow."""
        self._process.start()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Takes a place while an export is written."""
        with self._places:
            yield

    def submit(self, written: WrittenExport) -> Future[Path]:
        """Has an export proven and published.

        Returns:
            Its version folder, or what `WrittenExport.publish` raises.
        """
        self._written.append(written)
        small = is_small(written.staging)
        future = self._worker.submit(self._publish, written)
        if not small:
            future.exception()
        return future

    def close(self) -> None:
        """Stops; removes what was written and is not published.

        What waits for a place begins nothing more.
        """
        self._worker.shutdown(wait=False, cancel_futures=True)
        self._places.close()
        self._process.close()
        self._worker.shutdown(wait=True)
        for written in self._written:
            written.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _publish(self, written: WrittenExport) -> Path:
        folder = written.publish(process=self._process, processors=self._places)
        note = f" ({written.note})" if written.note else ""
        _LOG.info("exported %s version %s%s, verified", written.name, folder.name, note)
        return folder


class _Places:
    """A number of places; whoever enters takes one, and is refused once they are closed."""

    def __init__(self, count: int) -> None:
        self._free, self._closed = count, False
        self._changed = threading.Condition()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._free > 0 or self._closed)
            if self._closed:
                raise ExportRefused("it was not proven: the exports were ended before")
            self._free -= 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._free += 1
            self._changed.notify()


def _processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
