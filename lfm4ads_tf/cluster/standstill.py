"""The end of a process whose interpreter stands still."""

from __future__ import annotations

import faulthandler
import signal
import sys
import threading
import time

_THREAD = "standstill"
_BEATS = 10  # in the time allowed


def end_at_standstill(seconds: float) -> None:
    """Ends this process by SIGALRM when it ran no Python code for some time.

    TensorFlow sends every new function to all processes of a cluster, and waits for them with the
    interpreter's lock held: where one of them does not answer, no Python code runs any more, so
    that none can count the seconds. The kernel does. Where the process stood is written to
    standard error. Does nothing when it is called again, and on systems without such a timer.

    Args:
        seconds: The time allowed.
    """
    if not hasattr(signal, "setitimer"):  # pragma: no cover - depends on the system
        return
    if any(thread.name == _THREAD for thread in threading.enumerate()):
        return
    faulthandler.register(signal.SIGALRM, file=sys.stderr, all_threads=True, chain=True)

    def beat() -> None:
        while True:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            time.sleep(seconds / _BEATS)

    threading.Thread(target=beat, name=_THREAD, daemon=True).start()
