"""The launcher, with made-up processes: `nodes.py` says what a plan is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lfm4ads_tf.cluster import supervisor as module
from lfm4ads_tf.cluster.supervisor import Supervisor
from tests.cluster.nodes import Command

_ROOT = Path(__file__).resolve().parents[2]
_WAIT = 20.0


class Case:
    """A folder with a plan, and what came of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[str] = []

    def run(self, plan: dict[str, Any], workers: int = 2, servers: int = 2, **options: Any) -> int:
        """Runs the plan to its end; the exit code."""
        self.plan(plan)
        supervisor = Supervisor(
            Command(self.folder),
            self.folder / "logs",
            workers=workers,
            servers=servers,
            tell=self.told.append,
            **options,
        )
        code = supervisor.run()
        assert not [s["task"] for s in self.starts if _runs(s["pid"])]
        return code

    def plan(self, plan: dict[str, Any]) -> None:
        """Writes what the processes do."""
        (self.folder / "plan.json").write_text(json.dumps(plan))

    @property
    def starts(self) -> list[dict[str, Any]]:
        """All starts, in order."""
        path = self.folder / "starts.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def counts(self) -> dict[str, int]:
        """Task -> how often it was started, as was told: some may end before they note it."""
        return dict(Counter(line.split()[0] for line in self.told if "  pid " in line))

    @property
    def text(self) -> str:
        """All that was told."""
        return "\n".join(self.told)


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


@pytest.fixture
def launcher(case: Case) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a launcher of a plan in a process of its own, and waits until all processes serve."""
    started: list[subprocess.Popen[str]] = []

    def start(plan: dict[str, Any]) -> subprocess.Popen[str]:
        case.plan(plan)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.launcher", str(case.folder), "1", "1", "3"],
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        _until(lambda: len(list(case.folder.glob("*.served"))) == 3)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_all_start_with_their_place_and_end_with_the_chief(case: Case) -> None:
    assert case.run({"chief:0": ["wait:worker_1.served:0"]}) == 0
    assert case.counts == {"ps:0": 1, "ps:1": 1, "worker:0": 1, "worker:1": 1, "chief:0": 1}
    (cluster,) = {json.dumps(s["cluster"]) for s in case.starts}
    sizes = {job: len(addresses) for job, addresses in json.loads(cluster).items()}
    assert sizes == {"chief": 1, "worker": 2, "ps": 2}
    assert len({a for addresses in json.loads(cluster).values() for a in addresses}) == 5
    for start in case.starts:
        job, index = start["task"].split(":")
        address = json.loads(cluster)[job][int(index)]
        log = case.folder / "logs" / f"{job}_{index}.log"
        assert f"{start['task']}  pid {start['pid']}  {address}  {log}" in case.told
        assert {"TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"} < set(start["threads"])
        assert int(start["threads"]["TF_NUM_INTEROP_THREADS"]) >= 4
    log = case.folder / "logs" / "worker_1.log"
    assert log.read_text().startswith("serving worker:1 at 127.0.0.1:")


@pytest.mark.parametrize("code", [1, 2, 3, 130])
def test_a_final_code_of_the_chief_is_the_run_s(case: Case, code: int) -> None:
    assert case.run({"chief:0": [code]}) == code
    assert case.counts["chief:0"] == 1
    assert f"chief:0 ended with exit code {code}" in case.text
    assert f"  chief:0 leaves with {code}" in case.told[-1]  # the end of its log


def test_a_lost_worker_is_restarted_alone(case: Case) -> None:
    plan = {"worker:1": ["crash", 0, "serve"], "chief:0": ["wait:worker_1.served:0"]}
    assert case.run(plan, max_restarts=0) == 0
    assert case.counts == {"ps:0": 1, "ps:1": 1, "worker:0": 1, "worker:1": 3, "chief:0": 1}
    assert "worker:1 was ended by SIGKILL; it is restarted" in case.text
    assert "worker:1 ended with exit code 0; it is restarted" in case.text


def test_a_worker_that_never_comes_up_ends_the_run(case: Case) -> None:
    assert case.run({"worker:0": [1]}) == 1
    assert case.counts == {"ps:0": 1, "ps:1": 1, "worker:0": 5, "worker:1": 1, "chief:0": 1}
    assert "worker:0 ended with exit code 1 5 times without serving" in case.told[-1]
    assert str(case.folder / "logs" / "worker_0.log") in case.told[-1]


def test_a_worker_that_served_may_be_lost_often(case: Case) -> None:
    """Six losses one after another, each after it came up."""
    times = 6
    log = case.folder / "logs" / "worker_0.log"

    def kill(line: str) -> None:
        case.told.append(line)
        if not line.startswith("worker:0  pid"):
            return
        started = case.counts["worker:0"]
        _until(lambda: log.read_text().count("serving") == started)
        if started <= times:
            os.kill(int(line.split()[2]), signal.SIGKILL)
        else:
            (case.folder / "enough").touch()

    case.plan({"chief:0": ["wait:enough:0"]})
    node = Command(case.folder)
    assert Supervisor(node, log.parent, workers=1, servers=1, tell=kill).run() == 0
    assert case.counts == {"ps:0": 1, "worker:0": times + 1, "chief:0": 1}


def test_an_error_of_the_user_s_is_not_tried_again(case: Case) -> None:
    assert case.run({"worker:1": [2]}) == 2
    assert case.counts["worker:1"] == 1 and "worker:1 leaves with 2" in case.told[-1]


@pytest.mark.parametrize("end", ["crash", 75])
def test_a_lost_chief_comes_back_with_new_servers(case: Case, end: Any) -> None:
    plan = {"chief:0": [end, end, "wait:worker_0.served:0"]}
    assert case.run(plan, max_restarts=2) == 0
    # who gave up had no answer, maybe of a worker
    workers, what = (3, "all processes") if end == 75 else (1, "all servers and the chief")
    counts = {"worker:0": workers, "worker:1": workers}
    assert case.counts == {"ps:0": 3, "ps:1": 3, "chief:0": 3, **counts}
    assert f"{what} are restarted (2 of 2)" in case.text
    assert len({json.dumps(s["cluster"]) for s in case.starts}) == 1  # the same addresses


def test_restarts_are_bounded(case: Case) -> None:
    assert case.run({"chief:0": [75]}, max_restarts=2) == 1
    assert case.counts["chief:0"] == 3
    assert "chief:0 ended with exit code 75 after 2 restarts, the most allowed" in case.told[-1]
    assert str(case.folder / "logs" / "chief_0.log") in case.told[-1]
    assert case.told[-1].count("chief:0 leaves with 75") == 1  # of the last start alone


@pytest.mark.parametrize("end", [0, 1, "crash"])
def test_a_lost_server_takes_all_servers_and_the_chief_along(case: Case, end: Any) -> None:
    """The first chief does not notice and is killed after some patience."""
    plan = {"ps:1": [end, "serve"], "chief:0": ["serve", "wait:ps_1.served:0"]}
    assert case.run(plan, patience=0.5) == 0
    assert case.counts == {"ps:0": 2, "ps:1": 2, "worker:0": 1, "worker:1": 1, "chief:0": 2}
    assert "ps:1 " in case.text and "restarted (1 of 3)" in case.text


@pytest.mark.parametrize("code", [75, 1])
def test_a_chief_may_leave_by_itself_when_a_server_is_lost(case: Case, code: int) -> None:
    """Beside a lost server a defect of the chief's is its consequence; patience is not waited."""
    plan = {
        "ps:0": ["crash", "serve"],
        "chief:0": [f"wait:ps_1.served:{code}", "wait:ps_0.served:0"],
    }
    began = time.monotonic()
    assert case.run(plan, patience=100.0) == 0
    assert case.counts["chief:0"] == 2 and time.monotonic() - began < 100


def test_a_chief_that_finishes_without_the_server_has_finished(case: Case) -> None:
    plan = {"ps:0": ["crash"], "chief:0": ["wait:ps_1.served:0"]}
    assert case.run(plan, patience=_WAIT) == 0
    assert case.counts["ps:0"] == 1


def test_a_taken_address_is_chosen_again(case: Case) -> None:
    plan = {"ps:0": [76, "serve"], "worker:1": ["serve", 76, "serve"]}
    plan["chief:0"] = ["serve", "serve", "wait:worker_1.served:0"]
    assert case.run(plan, max_restarts=0) == 0
    lines = [line.split() for line in case.told if "  pid " in line]
    assert len(lines) == 15
    clusters = [{line[0]: line[3] for line in lines[k : k + 5]} for k in (0, 5, 10)]
    assert all(len(set(cluster.values())) == len(cluster) == 5 for cluster in clusters)
    for before, after in zip(clusters, clusters[1:], strict=False):
        assert not set(before.values()) & set(after.values())
    assert "the address of ps:0 is taken" in case.text


def test_addresses_that_are_always_taken_end_the_run(case: Case) -> None:
    assert case.run({"worker:0": [76]}, workers=1, servers=1) == 1
    assert case.counts["worker:0"] == 5 and "taken 5 times" in case.told[-1]


def test_without_servers_the_first_worker_is_the_chief(case: Case) -> None:
    assert case.run({"worker:0": ["wait:worker_1.served:0"]}, servers=0) == 0
    assert case.counts == {"worker:0": 1, "worker:1": 1}
    assert set(case.starts[0]["cluster"]) == {"worker"}


def test_mirrored_workers_are_restarted_together(case: Case) -> None:
    plan = {"worker:0": ["serve", "wait:worker_1.served:0"], "worker:1": ["crash", "serve"]}
    assert case.run(plan, servers=0, patience=0.2) == 0
    assert case.counts == {"worker:0": 2, "worker:1": 2}


def test_a_mirrored_worker_may_be_through_first(case: Case) -> None:
    plan = {"worker:0": ["wait:worker_2.served:0"], "worker:1": [0]}
    assert case.run(plan, workers=3, servers=0) == 0
    assert case.counts == {"worker:0": 1, "worker:1": 1, "worker:2": 1}


def test_what_a_process_started_ends_with_it(case: Case) -> None:
    plan = {"chief:0": ["fork"], "ps:0": ["wait:chief_0.served:0"]}
    assert case.run(plan, workers=1, servers=1, max_restarts=0, patience=0.0) == 1
    child = int((case.folder / "child.pid").read_text())
    _until(lambda: not _runs(child))  # killed, which takes a moment


def test_a_command_that_cannot_start_leaves_nothing(case: Case) -> None:
    case.plan({})
    node = Command(case.folder)
    supervisor = Supervisor(
        lambda task: [str(case.folder / "no")] if task.job == "chief" else node(task),
        case.folder / "logs",
        workers=1,
        servers=1,
        tell=case.told.append,
    )
    with pytest.raises(FileNotFoundError):
        supervisor.run()
    pids = [int(line.split()[2]) for line in case.told]
    assert len(pids) == 2 and not any(map(_runs, pids))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_all(
    case: Case, launcher: Callable[..., subprocess.Popen[str]], number: int, code: int
) -> None:
    process = launcher({})
    pids = [start["pid"] for start in case.starts]
    assert len(pids) == 3 and all(map(_runs, pids))
    process.send_signal(number)
    assert process.wait(_WAIT) == code
    assert not any(map(_runs, pids))


def test_a_killed_launcher_leaves_no_process(
    case: Case, launcher: Callable[..., subprocess.Popen[str]]
) -> None:
    process = launcher({"chief:0": ["fork"]})
    pids = [start["pid"] for start in case.starts] + [int((case.folder / "child.pid").read_text())]
    process.kill()
    _until(lambda: not any(map(_runs, pids)))


def test_a_killed_worker_s_restart_does_not_cut_the_lifeline(
    case: Case, launcher: Callable[..., subprocess.Popen[str]]
) -> None:
    process = launcher({})
    first = {s["task"]: s["pid"] for s in case.starts}
    os.kill(first["worker:0"], signal.SIGKILL)
    _until(lambda: sum(s["task"] == "worker:0" for s in case.starts) == 2)
    time.sleep(0.3)
    pids = [s["pid"] for s in case.starts]
    assert sum(map(_runs, pids)) == 3 and process.poll() is None
    process.kill()
    _until(lambda: not any(map(_runs, pids)))


def test_the_line_of_a_process_is_that_of_a_node() -> None:
    assert module.serving_line(module.Task("ps", 1)) == "serving ps:1 at "
