from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.cluster.cluster_config import ClusterConfig
from lfm4ads_tf.cluster.task import Task
from lfm4ads_tf.errors import UserError

DOCUMENT: dict[str, Any] = {
    "chief": ["chief.example:2222"],
    "worker": ["10.0.0.1:2222", "10.0.0.2:2222"],
    "ps": ["[::1]:2222", "ps-1:2222", "ps-2:65535"],
}


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)


def _file(tmp_path: Path, document: Any) -> str:
    path = tmp_path / "cluster.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document), "utf-8")
    return str(path)


def _refused(given: str, task: str | None = "worker:0") -> str:
    with pytest.raises(UserError) as refused:
        ClusterConfig.read(given, task)
    return str(refused.value)


def test_a_file(tmp_path: Path) -> None:
    config, own = ClusterConfig.read(_file(tmp_path, DOCUMENT), "ps:2")
    assert own == Task("ps", 2) and config.address(own) == "ps-2:65535"
    assert config.mode == "parameter_servers" and config.first == Task("chief", 0)
    assert config.as_spec() == DOCUMENT
    names = "ps:0 ps:1 ps:2 worker:0 worker:1 chief:0"
    assert list(map(str, config.tasks)) == names.split()
    assert tf.train.ClusterSpec(config.as_spec()).num_tasks("ps") == 3


def test_workers_alone_are_mirrored(tmp_path: Path) -> None:
    given = _file(tmp_path, "worker: [a:1, 'b:2']\nps: []\nchief:\n")
    config, own = ClusterConfig.read(given, "worker:1")
    assert (config.mode, config.first) == ("mirrored", Task("worker", 0))
    assert config.as_spec() == {"worker": ["a:1", "b:2"]} and config.address(own) == "b:2"


def test_an_address_that_yaml_takes_for_a_number(tmp_path: Path) -> None:
    """`10:20` is 620 in YAML 1.1; here it is host 10, port 20."""
    config, _ = ClusterConfig.read(_file(tmp_path, "worker: [10:20]\n"), "worker:0")
    assert config.worker == ("10:20",)


def test_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    task = {"type": "worker", "index": 1}
    value = {"cluster": DOCUMENT, "task": task, "environment": "cloud"}
    monkeypatch.setenv("TF_CONFIG", json.dumps(value))
    config, own = ClusterConfig.read("env")
    assert own == Task("worker", 1) and config.as_spec() == DOCUMENT
    assert ClusterConfig.read("env", "ps:0")[1] == Task("ps", 0)  # the option goes before it
    given = _file(tmp_path, {"worker": ["x:1", "y:2"]})
    assert ClusterConfig.read(given)[1] == Task("worker", 1)  # a file, and the variable's task
    assert ClusterConfig.read(given, "worker:0")[1] == Task("worker", 0)
    value["task"] = {"type": "worker", "index": "1"}  # as some schedulers write it
    monkeypatch.setenv("TF_CONFIG", json.dumps(value))
    assert ClusterConfig.read("env")[1] == Task("worker", 1)


@given(
    st.integers(1, 3), st.integers(0, 3), st.lists(st.integers(1, 65535), min_size=7, unique=True)
)
def test_the_variable_of_a_task_reads_back(workers: int, servers: int, ports: list[int]) -> None:
    addresses = [f"127.0.0.1:{port}" for port in ports]
    chief = addresses[-1] if servers else None
    config = ClusterConfig(chief, tuple(addresses[:workers]), tuple(addresses[3 : 3 + servers]))
    assert len(config.tasks) == workers + servers + bool(servers)
    for task in config.tasks:
        text = config.to_tf_config(task)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TF_CONFIG", text)
            assert ClusterConfig.read("env") == (config, task)
            resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
            assert resolver.cluster_spec().as_dict() == config.as_spec()
            assert (resolver.task_type, resolver.task_id) == (task.job, task.index)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wroker": ["a:1"]}, "unknown job 'wroker'. Did you mean 'worker'?"),
        ({"evaluator": ["a:1"]}, "unknown job 'evaluator'"),
        ({"master": ["a:1"]}, "Fix: call it `chief`"),
        ({"chief": []}, "parameter servers but no chief"),
        ({"chief": ["a:1", "b:2"]}, "more than one chief"),
        ({"worker": []}, "no worker"),
        ({"worker": None}, "no worker"),
        ({"ps": []}, "a chief but no parameter servers"),
        ({"worker": "a:1"}, "a list of addresses for 'worker'"),
        ({"worker": ["a"]}, "an address of 'worker' that is not host:port"),
        ({"worker": [2222]}, "not host:port"),
        ({"worker": [None]}, "not host:port"),
        ({"worker": ["grpc://a:1"]}, "not host:port"),
        ({"worker": ["a:b"]}, "not host:port"),
        ({"worker": ["::1:2222"]}, "not host:port"),
        ({"worker": ["a:0"]}, "port is out of range"),
        ({"worker": ["a:65536"]}, "port is out of range"),
        ({"worker": ["a:1", "A:01"]}, "Received: A:1 for worker:0 and worker:1"),
        ({"worker": ["ps-1:2222"]}, "Received: ps-1:2222 for worker:0 and ps:1"),
    ],
)
def test_clusters_that_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    assert message in _refused(_file(tmp_path, {**DOCUMENT, **change}))


def test_files_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    assert f"{path} cannot be read" in _refused(str(path))
    assert "cannot be read" in _refused(str(tmp_path))
    for text, message in (
        ("worker: [a:1", "is not valid YAML"),
        ("worker: [a:1]\nworker: [b:1]\n", "is not valid YAML"),
        ("- a:1\n", "the addresses of each job"),
        ("", "the addresses of each job"),
    ):
        assert message in _refused(_file(tmp_path, text))
    path.write_bytes(b"\xff\xfe\x00")
    assert "is not valid YAML" in _refused(str(path))


def test_tasks_that_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = _file(tmp_path, DOCUMENT)
    found = _refused(path, "worker:2")
    assert "no task worker:2" in found and "worker:1, chief:0" in found
    assert "no task chief:0" in _refused(_file(tmp_path, {"worker": ["a:1"]}), "chief:0")
    assert "--task worker:0" in _refused(path, None)
    for task, message in (
        (None, "does not say which process"),
        ({"type": "worker"}, "does not say which process"),
        ({"type": "master", "index": 0}, "call it `chief`"),
        ({"type": "worker", "index": -1}, "needs the form job:index"),
    ):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": DOCUMENT, "task": task}))
        assert message in _refused("env", None)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "is not set"),
        (" ", "is not set"),
        ("{", "is not JSON"),
        ("[]", "must hold a JSON object"),
        ('{"task": {"type": "worker", "index": 0}}', "has no key 'cluster'"),
        ('{"cluster": []}', "the addresses of each job"),
    ],
)
def test_variables_that_are_refused(
    monkeypatch: pytest.MonkeyPatch, value: str | None, message: str
) -> None:
    if value is not None:
        monkeypatch.setenv("TF_CONFIG", value)
    assert message in _refused("env")
