"""A small cluster in one process, and functions that are run with it in a process of their own.

A process that joined a cluster cannot leave it, so no test joins one itself.
"""

from __future__ import annotations

import importlib
import json
import socket
import sys
from typing import Any

from tests.cluster.scripts import report_and_leave, report_of_module


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
    arguments = json.dumps([function, workers, servers, options])
    return report_of_module("tests.cluster.servers", arguments, kernels=kernels)


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


def _report() -> Any:
    function, workers, servers, options = json.loads(sys.argv[1])
    module, name = function.split(":")
    body = getattr(importlib.import_module(module), name)
    strategy, coordinator = join(workers, servers)
    return body(strategy, coordinator, **options)


if __name__ == "__main__":
    report_and_leave(_report)
