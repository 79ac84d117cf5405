"""A process of a cluster that does not answer, though nobody has ended it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lfm4ads_tf.cluster.addresses import free_ports
from lfm4ads_tf.cluster.child import Child
from lfm4ads_tf.cluster.cluster_config import VARIABLE, ClusterConfig
from lfm4ads_tf.cluster.exit_codes import TRY_AGAIN
from lfm4ads_tf.cluster.task import Task
from tests.cluster.scripts import ROOT

_CHIEF = """
import time
import lfm4ads_tf
import tensorflow as tf
from lfm4ads_tf.cluster.cluster_config import ClusterConfig
from lfm4ads_tf.cluster.cluster_lost import ClusterLost
from lfm4ads_tf.cluster.config import ClusterSettings
from lfm4ads_tf.cluster.node import begin
from lfm4ads_tf.cluster.parameter_servers import ParameterServers
config, task = ClusterConfig.read("env")
begin(config, task)
servers = ParameterServers(config, ClusterSettings(stall_s=10))
function = tf.function(lambda: tf.constant(1.0))
print(len([*servers.finished(function, iter([(), ()]))]), flush=True)
input()
try:
    [*servers.finished(function, iter([()]))]
except ClusterLost as error:
    print(error, flush=True)
    time.sleep(100)  # as an op that TensorFlow sends to all tasks would
"""


@pytest.mark.slow
def test_what_does_not_answer_is_named_and_not_waited_for(tmp_path: Path) -> None:
    addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
    config = ClusterConfig(addresses[0], (addresses[1],), (addresses[2],))
    common = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    serving = [sys.executable, "-m", "lfm4ads_tf.command_line", "pretrain", "--cluster", "env"]
    nodes = {
        name: Child(
            serving,
            common | {VARIABLE: config.to_tf_config(Task.parse(name))},
            tmp_path / name.replace(":", "_"),
        )
        for name in ("worker:0", "ps:0")
    }
    chief = subprocess.Popen(
        [sys.executable, "-c", _CHIEF],
        cwd=ROOT,
        env=common | {VARIABLE: config.to_tf_config(Task("chief", 0))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert chief.stdout is not None
        assert chief.stdout.readline() == "2\n"
        os.kill(nodes["worker:0"].pid, signal.SIGSTOP)
        out, errors = chief.communicate("go on\n", timeout=120)
        assert chief.returncode == TRY_AGAIN, errors[-3000:]
        assert "Cluster lost: No work was finished for 10 s" in errors
        assert "No work was finished for 10 s (cluster.stall_s)." in out
        assert "Received: no answer of worker:0\n" in out
    finally:
        chief.kill()
        for child in nodes.values():
            child.kill()
