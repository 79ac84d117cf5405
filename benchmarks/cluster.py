"""What training on a cluster costs beside one process, and how large its processes grow.

    python -m benchmarks.cluster training [--rounds 3] [--steps 100] [--stock-ops] [--json FILE]
    python -m benchmarks.cluster memory [--rows 20000000] [--dim 16] [--json FILE]

Two workers and two servers on this machine. `training` makes steps of the upstream of
`synthetic.yaml` in turns with a single process; `memory` makes, trains, saves and restores a table
with row-wise Adagrad. The loopback device is counted as a whole: run it where nobody else uses it,
such as in a network of its own, `unshare -n sh -c "ip link set lo up; ..."`. See
`docs/benchmarks.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Worker, interleave
from lfm4ads_tf.cluster.addresses import free_ports
from lfm4ads_tf.cluster.child import Child
from lfm4ads_tf.cluster.cluster_config import VARIABLE, ClusterConfig
from lfm4ads_tf.cluster.lifeline import LIFELINE
from lfm4ads_tf.cluster.serving_line import serving_line
from lfm4ads_tf.cluster.threads import shared_threads
from lfm4ads_tf.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
WORKERS, SERVERS = 2, 2
SPEC = ("--spec", "synthetic", "--set", "dataset_options.rows=60000",
        "--set", "upstream.training.auto=false")  # fmt: skip
SINGLE, CLUSTER = "single", "cluster"
LOOKED_UP = 50
"""Steps on the large table, between initialising and saving and again before restoring."""
_BATCH = 4096
_STARTS = 120.0  # seconds in which servers and workers come up
_TICKS = os.sysconf("SC_CLK_TCK")
_MODULE = "benchmarks.cluster_worker"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Processes:
    """A chief that answers, and the other processes of its cluster.

    Attributes:
        chief: The chief, or a process alone.
        pids: Task -> number of its process.
    """

    chief: Worker
    pids: Mapping[str, int]

    def ask(self, **request: Any) -> dict[str, Any]:
        """Has the chief do something."""
        return self.chief.ask(request)

    def used_seconds(self) -> float:
        """Processor time of all processes since they began."""
        return sum(cpu_seconds(pid) for pid in self.pids.values())

    def sizes_mb(self) -> dict[str, dict[str, float]]:
        """Task -> `now` and `peak`, its resident memory."""
        return {task: memory_mb(pid) for task, pid in self.pids.items()}


@contextmanager
def alone(folder: Path, environment: Mapping[str, str]) -> Iterator[Processes]:
    """A process that trains alone."""
    with _chief(SINGLE, folder, {**environment, VARIABLE: ""}) as worker:
        yield Processes(worker, {SINGLE: worker.pid})


@contextmanager
def cluster(folder: Path, environment: Mapping[str, str]) -> Iterator[Processes]:
    """A cluster of this machine, with the threads that the launcher gives its processes.

    Raises:
        UserError: A process does not come up.
    """
    ports = [f"127.0.0.1:{port}" for port in free_ports(WORKERS + SERVERS + 1)]
    config = ClusterConfig(ports[-1], tuple(ports[:WORKERS]), tuple(ports[WORKERS:-1]))
    common = {**os.environ, **environment, **shared_threads(len(ports)), "PYTHONPATH": str(ROOT)}
    children: dict[Any, Child] = {}
    try:
        for task in config.tasks:
            if task != config.first:
                own = {VARIABLE: config.to_tf_config(task), LIFELINE: "1"}
                command = [sys.executable, "-m", _MODULE]
                log = folder / f"{task.job}_{task.index}.log"
                children[task] = Child(command, {**common, **own}, log)
        _wait_for(children)
        chiefs = {**common, VARIABLE: config.to_tf_config(config.first)}
        with _chief(CLUSTER, folder, chiefs) as chief:
            pids = {"chief": chief.pid, **{str(t): child.pid for t, child in children.items()}}
            yield Processes(chief, pids)
    finally:
        for child in children.values():
            child.kill()


def training(
    *, steps: int, rounds: int, folder: Path, stock_ops: bool = False, say: Say = print
) -> dict[str, Any]:
    """Steps of the cluster beside those of a process alone.

    Args:
        steps: Steps of a turn.
        rounds: Turns of each.
        folder: Where run folders and logs go.
        stock_ops: Whether all processes do without the compiled ops.
        say: Takes a line of progress.

    Returns:
        See `docs/benchmarks.md`.
    """
    environment = {"LFM4ADS_KERNELS": "0"} if stock_ops else {}
    for name in (SINGLE, CLUSTER):
        say(f"{name}: encoding")
        command = [sys.executable, "-m", "lfm4ads_tf.command_line", "prepare", *SPEC, "--quiet"]
        subprocess.run([*command, "--out", str(folder / name)], cwd=ROOT, check=True)
    with alone(folder, environment) as single, cluster(folder, environment) as several:
        about = {}
        for name, processes in ((SINGLE, single), (CLUSTER, several)):
            say(f"{name}: making the model")
            about[name] = processes.ask(do="train", out=str(folder / name), warmup=steps)
        taken: dict[str, list[dict[str, float]]] = {SINGLE: [], CLUSTER: []}

        def turn(name: str, processes: Processes) -> float:
            found = _measured(processes, partial(processes.ask, do="steps", count=steps))
            found = {key: value / steps for key, value in found.items()}
            taken[name].append(found)
            say(f"{name}: {1 / found['seconds']:.1f} steps/s")
            return found["seconds"]

        turns = {SINGLE: partial(turn, SINGLE, single), CLUSTER: partial(turn, CLUSTER, several)}
        interleave(turns, rounds=rounds, warmup=0, pause=1.0)
    least = about[CLUSTER]["least_bytes"]
    found = {
        name: {key: float(np.median([one[key] for one in of])) for key in of[0]}
        for name, of in taken.items()
    }
    return {
        "stock_ops": stock_ops,
        **about[CLUSTER],
        "steps": steps,
        "per_step": found,
        "examples_per_s": {n: about[n]["batch"] / of["seconds"] for n, of in found.items()},
        "speed_ratio": found[SINGLE]["seconds"] / found[CLUSTER]["seconds"],
        "cpu_ratio": found[CLUSTER]["cpu"] / found[SINGLE]["cpu"],
        "bytes_ratio": found[CLUSTER]["bytes"] / least,
        "rounds": taken,
    }


def memory(*, rows: int, dim: int, folder: Path, say: Say = print) -> dict[str, Any]:
    """One large table with row-wise Adagrad: made, trained, saved, restored.

    Args:
        rows, dim: Of the table.
        folder: Where it is saved for a while, and where logs go.
        say: Takes a line of progress.

    Returns:
        See `docs/benchmarks.md`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stages = {
        "initialise": {"do": "tables", "rows": rows, "dim": dim},
        "steps": {"do": "look-ups", "count": LOOKED_UP, "batch": _BATCH},
        "save": {"do": "save", "folder": str(folder / "tables")},
        "more_steps": {"do": "look-ups", "count": LOOKED_UP, "batch": _BATCH},
        "restore": {"do": "restore", "folder": str(folder / "tables")},
    }
    seconds: dict[str, float] = {}
    equal = False
    with cluster(folder, {}) as processes:
        processes.ask(do="join")
        sizes = {"before": processes.sizes_mb()}
        for name, request in stages.items():
            began = time.perf_counter()
            equal = processes.ask(**request).get("equal", equal)
            seconds[name] = time.perf_counter() - began
            sizes[name] = processes.sizes_mb()
            say(f"{name}: {seconds[name]:.1f} s, {_told(sizes[name])}")
    servers = [task for task in sizes["before"] if task.startswith("ps")]
    plan = (rows + 1) * (dim + 1) * 4 / SERVERS / 2**20
    return {
        "rows": rows,
        "dim": dim,
        "seconds": seconds | {"all": sum(seconds.values())},
        "planned_mb": plan,
        "growth_over_plan": {
            name: max(sizes[name][s]["now"] - sizes["before"][s]["now"] for s in servers) / plan
            for name in stages
        },
        "peak_growth_over_plan": max(
            sizes["restore"][s]["peak"] - sizes["before"][s]["now"] for s in servers
        )
        / plan,
        "chief_peak_mb": sizes["restore"]["chief"]["peak"],
        "restored_equal": equal,
        "memory_mb": sizes,
    }


def _measured(processes: Processes, function: Callable[[], Any]) -> dict[str, float]:
    """Seconds, processor time and bytes of the loopback device that a call takes."""
    cpu, sent, began = processes.used_seconds(), _loopback_bytes(), time.perf_counter()
    function()
    return {
        "seconds": time.perf_counter() - began,
        "cpu": processes.used_seconds() - cpu,
        "bytes": float(_loopback_bytes() - sent),
    }


@contextmanager
def _chief(name: str, folder: Path, environment: Mapping[str, str]) -> Iterator[Worker]:
    command = [sys.executable, "-m", _MODULE]
    log = folder / f"{name}_chief.log"
    worker = Worker(name, command, folder=ROOT, log=log, environment=environment)
    try:
        yield worker
    finally:
        worker.close()


def _wait_for(children: Mapping[Any, Child]) -> None:
    """Waits until all serve."""
    deadline = time.monotonic() + _STARTS
    for task, child in children.items():
        while serving_line(task) not in child.log_text():
            if child.ended() is not None or time.monotonic() > deadline:
                raise UserError(f"{task} does not serve.", received=child.log_text()[-2000:])
            time.sleep(0.1)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process, in user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_mb(pid: int) -> dict[str, float]:
    """Resident memory of a process: `now`, and `peak` since it began."""
    text = Path(f"/proc/{pid}/status").read_text("utf-8")
    found = {"now": re.search(r"VmRSS:\s+(\d+)", text), "peak": re.search(r"VmHWM:\s+(\d+)", text)}
    return {name: int(size[1]) / 1024 for name, size in found.items() if size is not None}


def _loopback_bytes() -> int:
    """What the loopback device has carried; it counts each byte as sent and as received."""
    lines = Path("/proc/net/dev").read_text("ascii").splitlines()
    (line,) = [line for line in lines if line.strip().startswith("lo:")]
    return int(line.partition(":")[2].split()[0])


def _told(sizes: Mapping[str, Mapping[str, float]]) -> str:
    return ", ".join(
        f"{task} {size['now']:,.0f} MB (peak {size['peak']:,.0f})" for task, size in sizes.items()
    )


def _tell_training(found: Mapping[str, Any]) -> None:
    for name, of in found["per_step"].items():
        print(
            f"{name:<8}{found['examples_per_s'][name]:10,.0f} examples/s"
            f"{1000 * of['cpu']:8.1f} ms of processors{of['bytes'] / 1000:10,.0f} KB"
        )
    print(
        f"cluster / single: examples/s {found['speed_ratio']:.2f}, processor time "
        f"{found['cpu_ratio']:.2f}; bytes / least bytes {found['bytes_ratio']:.2f}"
    )


def _tell_memory(found: Mapping[str, Any]) -> None:
    for name, value in found["growth_over_plan"].items():
        seconds = found["seconds"][name]
        print(f"{name:<12}{seconds:8.1f} s   a server grew by {value:.2f} of its plan")
    print(
        f"{found['rows']:,} rows: {found['seconds']['all']:.0f} s; planned "
        f"{found['planned_mb']:,.0f} MB a server, peak {found['peak_growth_over_plan']:.2f} of it; "
        f"peak of the chief {found['chief_peak_mb']:,.0f} MB; "
        f"restored {'equal' if found['restored_equal'] else 'NOT EQUAL'}"
    )


def main(arguments: list[str] | None = None) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="what", required=True)
    steps = commands.add_parser("training")
    steps.add_argument("--rounds", type=int, default=3)
    steps.add_argument("--steps", type=int, default=100)
    steps.add_argument("--stock-ops", action="store_true")
    large = commands.add_parser("memory")
    large.add_argument("--rows", type=int, default=20_000_000)
    large.add_argument("--dim", type=int, default=16)
    for command in (steps, large):
        command.add_argument("--json", type=Path, metavar="FILE")
        command.add_argument("--folder", type=Path, help="on a disk that can hold the table")
    options = parser.parse_args(arguments)
    say = partial(print, file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="lfm4ads_cluster_", dir=options.folder) as name:
        folder = Path(name)
        if options.what == "training":
            result = training(
                steps=options.steps,
                rounds=options.rounds,
                folder=folder,
                stock_ops=options.stock_ops,
                say=say,
            )
            _tell_training(result)
        else:
            result = memory(rows=options.rows, dim=options.dim, folder=folder, say=say)
            _tell_memory(result)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
