from __future__ import annotations

import signal
import subprocess
import sys

from tests.cluster.servers import ROOT

SCRIPT = """
import ctypes, sys, time
from lfm4ads_tf.cluster.standstill import end_at_standstill
end_at_standstill(float(sys.argv[1]))
end_at_standstill(float(sys.argv[1]))
def stand():
    ctypes.PyDLL(None).sleep(int(sys.argv[2]))  # a call that keeps the interpreter's lock
time.sleep(0.1)
stand()
print("went on")
"""


def ended(allowed: float, seconds: int) -> subprocess.CompletedProcess[str]:
    """A process that stands still for some seconds."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(allowed), str(seconds)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_a_process_that_stands_still_ends_and_shows_where() -> None:
    done = ended(2.0, 60)
    assert done.returncode == -signal.SIGALRM and not done.stdout
    assert "in stand" in done.stderr


def test_a_short_stop_is_none() -> None:
    done = ended(90.0, 1)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")
