"""The Kubernetes example of docs/cluster.md: its documents; its script with a made-up train.py."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lfm4ads_tf.cluster.cluster_config import ClusterConfig

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "cluster.md"
_TRAIN = """#!/bin/sh
task=$(echo "$@" | sed 's/.*--task //')
echo "$@" >> "$OUT/$task.starts"
count=$(wc -l < "$OUT/$task.starts")
code=$(sed -n "${count}p" "$OUT/plan.$task" 2>/dev/null)
if [ -n "$code" ]; then
  [ $code = kill ] && kill -9 $$
  exit $code
fi
exec sleep 60
"""


def _documents() -> list[dict[str, Any]]:
    blocks = re.findall(r"```yaml\n(.*?)```", _PAGE.read_text("utf-8"), re.DOTALL)
    (example,) = [block for block in blocks if "kind: StatefulSet" in block]
    return list(yaml.safe_load_all(example))


def test_the_documents_belong_together(tmp_path: Path) -> None:
    config, service, pods = _documents()
    (tmp_path / "cluster.yaml").write_text(config["data"]["cluster.yaml"])
    cluster, _ = ClusterConfig.read(str(tmp_path / "cluster.yaml"), "ps:1")
    job, replicas = pods["metadata"]["name"], pods["spec"]["replicas"]
    port = service["spec"]["ports"][0]["port"]
    expected = tuple(f"{job}-{k}.{service['metadata']['name']}:{port}" for k in range(replicas))
    assert cluster.addresses(job) == expected
    assert pods["spec"]["serviceName"] == service["metadata"]["name"]
    labels = pods["spec"]["template"]["metadata"]["labels"]
    assert labels == pods["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    (container,) = pods["spec"]["template"]["spec"]["containers"]
    volumes = {volume["name"] for volume in pods["spec"]["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Runs the script of a pod."""
    (tmp_path / "bin").mkdir()
    train = tmp_path / "bin" / "lfm4ads-train"
    train.write_text(_TRAIN)
    train.chmod(0o755)
    script = tmp_path / "process.sh"
    script.write_text(_documents()[0]["data"]["process.sh"])
    running: list[subprocess.Popen[str]] = []

    def begin(pod: str) -> subprocess.Popen[str]:
        own = {"HOSTNAME": pod, "OUT": str(tmp_path), "CLUSTER": "c", "SETTLE": "0.1", "IDLE": "0"}
        path = f"{train.parent}:{os.environ['PATH']}"
        process = subprocess.Popen(
            ["sh", str(script), "run", "--seed", "1"],
            env={**os.environ, **own, "PATH": path},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        try:
            os.killpg(process.pid, 9)
        except ProcessLookupError:
            pass
        process.communicate()


def _starts(folder: Path, task: str) -> int:
    path = folder / f"{task}.starts"
    return len(path.read_text().splitlines()) if path.exists() else 0


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_lost_chief_starts_again_until_it_is_done(tmp_path: Path, start: Any) -> None:
    (tmp_path / "plan.chief:0").write_text("75\nkill\n0\n")
    process = start("chief-0")
    assert process.wait(20) == 0 and "the run is complete" in process.stdout.read()
    lines = (tmp_path / "chief:0.starts").read_text().splitlines()
    assert lines == [f"run --seed 1 --out {tmp_path} --cluster c --task chief:0"] * 3


@pytest.mark.parametrize(("pod", "code"), [("chief-0", 1), ("chief-0", 2), ("worker-3", 2)])
def test_what_no_restart_mends_is_final(tmp_path: Path, start: Any, pod: str, code: int) -> None:
    (tmp_path / f"plan.{pod.replace('-', ':')}").write_text(f"{code}\n")
    assert start(pod).wait(20) == code


def test_servers_leave_in_a_new_round_and_workers_stay(tmp_path: Path, start: Any) -> None:
    (tmp_path / "plan.worker:1").write_text("1\n")  # lost once
    start("ps-0"), start("worker-1")
    _until(lambda: _starts(tmp_path, "ps:0") == 1 and _starts(tmp_path, "worker:1") == 2)
    (tmp_path / "cluster" / "round").write_text("1")
    _until(lambda: _starts(tmp_path, "ps:0") == 2)
    assert _starts(tmp_path, "worker:1") == 2


def test_a_lost_server_starts_again(tmp_path: Path, start: Any) -> None:
    (tmp_path / "plan.ps:1").write_text("kill\n")
    start("ps-1")
    _until(lambda: _starts(tmp_path, "ps:1") == 2)
