"""Workers and servers as processes of their own, and what they do before they serve."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lfm4ads_tf.cluster import node
from lfm4ads_tf.cluster.addresses import free_ports
from lfm4ads_tf.cluster.child import Child
from lfm4ads_tf.cluster.cluster_config import ClusterConfig
from lfm4ads_tf.cluster.task import Task
from lfm4ads_tf.errors import UserError

_SERVE = """
import logging, sys
logging.basicConfig(format="%(message)s", level=logging.INFO)
from lfm4ads_tf.cluster import node
from lfm4ads_tf.cluster.cluster_config import ClusterConfig
if "late" in sys.argv:  # the address is taken after it was looked at
    answers = iter([False, True])
    node.is_taken = lambda port: next(answers)
node.serve(*ClusterConfig.read("env"))
"""
_TASK = Task("worker", 0)


def _cluster(port: int) -> ClusterConfig:
    return ClusterConfig("127.0.0.1:1", (f"127.0.0.1:{port}",), ("127.0.0.1:2",))


class _Left(Exception):
    """Instead of the end of the process."""


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves TensorFlow's settings of this process alone."""

    def leave(code: int) -> Any:
        raise _Left(code)

    monkeypatch.setattr(node, "leave", leave)
    monkeypatch.setattr(node.tf.config.threading, "set_inter_op_parallelism_threads", lambda n: n)
    monkeypatch.setenv("GRPC_FAIL_FAST", "use_caller")


def test_a_taken_address_is_left(quiet: None, caplog: pytest.LogCaptureFixture) -> None:
    (port,) = free_ports(1)
    node.begin(_cluster(port), _TASK)  # free
    with socket.socket() as other, caplog.at_level(logging.ERROR):
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(_Left, match="76"):
            node.begin(_cluster(port), _TASK)
    assert f"worker:0 cannot serve: the port of 127.0.0.1:{port} belongs to" in caplog.text


def test_a_port_that_one_may_not_listen_on(quiet: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(port: int) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(node, "is_taken", refuse)
    with pytest.raises(UserError, match="worker:0 may not listen on the port of 127.0.0.1:80"):
        node.begin(_cluster(80), _TASK)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Child, Child, int, int]]:
    """A worker at a free port, one at a port that is taken meanwhile, and the ports."""
    folder = tmp_path_factory.mktemp("nodes")
    root = Path(__file__).resolve().parents[2]
    ports = free_ports(2)
    with socket.socket() as other:
        other.bind(("", ports[1]))
        other.listen()
        children = []
        for name, port in zip(("serving", "late"), ports, strict=True):
            own = {"TF_CONFIG": _cluster(port).to_tf_config(_TASK), "LFM4ADS_LIFELINE": "1"}
            environment = {**os.environ, **own, "PYTHONPATH": str(root)}
            command = [sys.executable, "-c", _SERVE, name]
            children.append(Child(command, environment, folder / name))
        try:
            yield children[0], children[1], *ports
        finally:
            for child in children:
                child.kill()


@pytest.mark.slow
def test_a_port_taken_meanwhile_is_left(processes: tuple[Child, Child, int, int]) -> None:
    _, late, _, port = processes
    assert late.wait(120) == 76, late.log_text()
    assert f"the port of 127.0.0.1:{port} belongs to another process" in late.log_text()


@pytest.mark.slow
def test_a_worker_serves_until_its_launcher_ends(
    processes: tuple[Child, Child, int, int],
) -> None:
    serving, _, port, _ = processes
    deadline = time.monotonic() + 120
    while f"serving worker:0 at 127.0.0.1:{port}" not in serving.log_text():
        assert serving.ended() is None and time.monotonic() < deadline, serving.log_text()
        time.sleep(0.1)
    socket.create_connection(("127.0.0.1", port), 10).close()
    assert serving.wait(0.5) is None
    serving._close()  # as the kernel does when the launcher ends
    assert serving.wait(20) == -9
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 10)
