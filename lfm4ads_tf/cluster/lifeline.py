"""Processes of a launcher do not outlive it, however it ends."""

from __future__ import annotations

import os
import signal
import threading

LIFELINE = "LFM4ADS_LIFELINE"
"""Set to 1 where standard input is the read end of a pipe that the launcher alone can write to."""
_LEFT = 3
_STDIN = 0
_THREAD = "lifeline"


def follow_launcher() -> None:
    """Ends this process, and its process group where it leads one, when its launcher ends.

    A thread reads standard input, which the kernel closes with the launcher, after `kill -9` too.
    (`PR_SET_PDEATHSIG` would also fire when merely the thread ends that started this process.)
    Does nothing unless the variable LFM4ADS_LIFELINE is 1, or when it is called again.
    """
    watched = any(thread.name == _THREAD for thread in threading.enumerate())
    if os.environ.get(LIFELINE) == "1" and not watched:
        threading.Thread(target=_watch, name=_THREAD, daemon=True).start()


def _watch() -> None:
    """Waits for the end of standard input."""
    try:
        while os.read(_STDIN, 4096):
            pass
    except OSError:
        pass  # no standard input: nobody is there either
    if os.getpgrp() == os.getpid():  # else the group is somebody else's
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(_LEFT)
