from __future__ import annotations

import subprocess
import sys

from tests.cluster.scripts import ROOT

SCRIPT = """
import logging, os, sys
logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
from lfm4ads_tf.cluster.plain_messages import tell_plainly
tell_plainly()
tell_plainly()
tensorflow = logging.getLogger("tensorflow")
worker = "/job:worker/replica:0/task:1"
for _ in range(3):
    tensorflow.error("Worker %s failed with %r:%s", worker, ValueError(), "long")
tensorflow.info("Cluster now being recovered.")
tensorflow.info("Worker %s has been recovered.", worker)
tensorflow.error("Cluster update failed with error: %s. Retrying...", "gone")
tensorflow.warning("something else")
tensorflow.info("a detail")
tensorflow.warning("5 out of the last 5 calls to %s triggered", "<function tf_function_restore>")
os.write(2, b"E0000 00:00:1.2 3 context.cc:911] Failed to remove function remotely\\n"
            b"Additional GRPC error information from remote target /job:worker\\n"
            b":UNKNOWN:Error received from peer\\n"
            b"This could happen if the remote target has been disconnected\\n"
            b"E0000 00:00:1.2 3 other.cc:1] an error of another kind\\n"
            b"a native line\\n")
print("a line of Python", file=sys.stderr)
import time; time.sleep(0.5)
"""


def test_one_line_for_a_lost_and_for_a_returned_worker() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert sorted(done.stderr.splitlines()) == sorted(
        [
            "worker:1 was lost; its batches are given to the others",
            "worker:1 is back",
            "something else",
            "E0000 00:00:1.2 3 other.cc:1] an error of another kind",
            "a native line",
            "a line of Python",
        ]
    )
