"""A small cluster in one process, and functions that are run with it in a process of their own.

A process that joined a cluster cannot leave it, so no test joins one itself.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def report_of(
    function: str, *, workers: int = 2, servers: int = 2, kernels: bool = True, **options: Any
) -> Any:
    """What a function says that was run on the chief of a cluster.

    Args:
        function: Module and name, `tests.cluster.bodies:lookups`; it is given the strategy, the
            coordinator and the options.
        workers, servers: Tasks of the cluster.
        kernels: Whether compiled kernels may be used.
        **options: JSON values.
    """
    changes = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "GRPC_FAIL_FAST": "use_caller"}
    if not kernels:
        changes["LFM4ADS_KERNELS"] = "0"
    arguments = json.dumps([function, workers, servers, options])
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster.servers", arguments],
        cwd=ROOT,
        env=os.environ | changes,
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return json.loads(done.stdout.splitlines()[-1])


def join(workers: int, servers: int) -> tuple[Any, Any]:
    """Starts the servers and joins them; the strategy and its coordinator.

    Before it a process must not have made a variable.
    """
    import tensorflow as tf

    import lfm4ads_tf  # noqa: F401 - settles which Keras is used

    ports = _free_ports(workers + servers)
    addresses = [f"localhost:{port}" for port in ports]
    cluster = tf.train.ClusterSpec({"ps": addresses[:servers], "worker": addresses[servers:]})
    config = tf.compat.v1.ConfigProto()
    config.inter_op_parallelism_threads = 4  # closures wait for each other with fewer
    for job in ("ps", "worker"):
        for index in range(cluster.num_tasks(job)):
            tf.distribute.Server(cluster, job, index, protocol="grpc", config=config)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(cluster, rpc_layer="grpc")
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    return strategy, tf.distribute.coordinator.ClusterCoordinator(strategy)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _main() -> None:
    function, workers, servers, options = json.loads(sys.argv[1])
    module, name = function.split(":")
    body = getattr(importlib.import_module(module), name)
    strategy, coordinator = join(workers, servers)
    print(json.dumps(body(strategy, coordinator, **options)), flush=True)


if __name__ == "__main__":
    code = 1
    try:
        _main()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)  # the coordinator's threads would keep the process
