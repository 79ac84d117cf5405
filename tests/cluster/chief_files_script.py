"""Writes a checkpoint on the chief of a cluster whose server works in another folder.

The last line is a JSON list: the files below the chief's folder, those below the server's, and what
was read back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cluster.scripts import report_and_leave

_SERVER = """
import json, sys
import tensorflow as tf
cluster, job = json.loads(sys.argv[1])
config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=4)
servers = [tf.distribute.Server(cluster, j, 0, protocol="grpc", config=config) for j in job]
print("up", flush=True)
sys.stdin.read()  # until the chief ends
"""


def main(chief: Path, server: Path) -> list[Any]:
    """Runs the cluster; both folders exist."""
    from tests.cluster.servers import _free_ports

    spec = {
        job: [f"localhost:{port}"]
        for job, port in zip(("ps", "worker"), _free_ports(2), strict=True)
    }
    node = subprocess.Popen(
        [sys.executable, "-c", _SERVER, json.dumps([spec, ["ps", "worker"]])],
        cwd=server,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert node.stdout is not None and node.stdout.readline().strip() == b"up"
    import tensorflow as tf

    from lfm4ads_tf.embeddings.placement.chief_files import checkpoint_options

    os.chdir(chief)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(spec), rpc_layer="grpc"
    )
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    with strategy.scope():
        variable = tf.Variable([1.0, 2.0])
        assert "job:ps" in variable.device
        checkpoint = tf.train.Checkpoint(variable=variable)
        checkpoint.write("files/w", checkpoint_options())
        variable.assign([0.0, 0.0])
        checkpoint.read("files/w", checkpoint_options()).assert_consumed()
        manager = tf.train.CheckpointManager(checkpoint, "files/kept", max_to_keep=1)
        manager.save(checkpoint_number=1, options=checkpoint_options())
    found = [
        sorted({path.name.partition(".")[0] for path in folder.rglob("*") if path.is_file()})
        for folder in (chief, server)
    ]
    return [*found, variable.numpy().tolist()]


if __name__ == "__main__":
    report_and_leave(lambda: main(*(Path(word) for word in sys.argv[1:])))
