"""Load test of a model server on loopback: latency, throughput, ranking, retrieval, swaps.

    python -m benchmarks.serving --json serving.json               # makes a small run first
    python -m benchmarks.serving --out runs/kuairand --json serving.json
    python -m benchmarks.serving --out runs/kuairand --server grpc://127.0.0.1:8500 \\
        --rest http://127.0.0.1:8501 --served-from /models --json serving.json

Without `--server`, `python -m lfm4ads_tf.export.local_server` is started in a process of its own,
and ended. Requests are serialized before, from the samples of the run: building them, and reading
the answers, is no part of any time. Client threads send them from this process, each over a
connection of its own, in closed loops. All kinds of requests take turns in rounds, so that what
slows the machine for a while slows all alike. Every loop is bounded in requests and in seconds.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.serving_load import GrpcSender, Load, RestSender, Sender, closed_loop
from benchmarks.serving_requests import ServingRequests
from benchmarks.serving_server import ROOT, ServerProcess, loopback
from benchmarks.serving_swap import measure_swap
from lfm4ads_tf.errors import ExportRefused, UserError
from lfm4ads_tf.export.publishing import versions
from lfm4ads_tf.progress import Progress

CANDIDATES = 500
SHARE = 0.8  # of the request time at batch 512 that the model call should be, at least
RETRIEVAL = ("retrieval_exact", "retrieval_ann")
_METRICS = "/monitoring/prometheus/metrics"
_SUM = re.compile(r"^:tensorflow:serving:(request|runtime)_latency_sum\{([^}]*)\} (\S+)$", re.M)


@dataclass(frozen=True)
class Cell:
    """One kind of request at one concurrency.

    Attributes:
        name: `predict`, `rank`, or the name of a retrieval model.
        api: `gRPC` or `REST`.
        batch: Rows a request; candidates of `rank`.
        threads: Requests under way at a time.
    """

    name: str
    api: str
    batch: int
    threads: int

    def __str__(self) -> str:
        return f"{self.name} {self.api} {self.batch}x{self.threads}"


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        cells: What.
        rounds: Turns of every cell.
        seconds: Of one turn, at most.
        requests: Of one turn, at most: about as many at every batch size as fit into the seconds.
        swaps: New versions.
        steady: Seconds of constant load before each.
        budget: Seconds after which no further round begins.
    """

    cells: Sequence[Cell]
    rounds: int
    seconds: float
    requests: int
    swaps: int
    steady: float
    budget: float


def cells(
    batches: Sequence[int], threads: Sequence[int], rest: Sequence[tuple[int, int]]
) -> list[Cell]:
    """Predict over gRPC at every batch size and concurrency, over REST at some; the rest once."""
    found = [Cell("predict", "gRPC", batch, n) for batch in batches for n in threads]
    found += [Cell("predict", "REST", batch, n) for batch, n in rest]
    found += [Cell("rank", "gRPC", CANDIDATES, n) for n in sorted({1, max(threads) // 4 or 1})]
    found += [Cell(name, "gRPC", batch, 1) for name in RETRIEVAL for batch in (1, 32)]
    return found


DEFAULT = Plan(
    cells((1, 32, 512), (1, 2, 8), ((1, 1), (32, 1), (512, 1), (32, 8))),
    rounds=3, seconds=2.5, requests=1000, swaps=3, steady=4.0, budget=200.0,
)  # fmt: skip
QUICK = Plan(
    [
        *(Cell("predict", "gRPC", batch, n) for batch, n in ((1, 1), (1, 8), (32, 1), (512, 1))),
        *(Cell("predict", "REST", batch, 1) for batch in (1, 512)),
        Cell("rank", "gRPC", CANDIDATES, 1),
        *(Cell(name, "gRPC", 1, 1) for name in RETRIEVAL),
    ],
    rounds=2, seconds=0.5, requests=200, swaps=1, steady=1.5, budget=30.0,
)  # fmt: skip


@dataclass(frozen=True)
class Servers:
    """Addresses, host:port.

    Attributes:
        grpc: Of gRPC.
        rest: Of REST; None: neither REST nor the server's metrics are measured.
    """

    grpc: str
    rest: str | None


def measure(
    out: Path, servers: Servers, plan: Plan, *, model: str | None = None, quiet: bool = True
) -> dict[str, Any]:
    """Measures all cells of a plan that the exports and the server can answer.

    Args:
        out: The run folder.
        servers: A server of its exports.
        plan: What to measure.
        model: Of `predict` and `rank`; the first ranker, or else the foundation, when absent.
        quiet: Prints no progress.

    Returns:
        `model`, `rounds`, `cells` (see `_described`) and `left_out` (cell -> why).
    """
    wanted = model or chosen_model(out / "exports")
    left_out: dict[str, str] = {}
    made: dict[str, ServingRequests] = {}
    payloads: dict[Cell, list[bytes]] = {}
    for cell in plan.cells:
        name = cell.name if cell.name in RETRIEVAL else wanted
        if not (out / "exports" / name).is_dir():
            left_out[str(cell)] = f"'{name}' is not exported"
            continue
        requests = made.setdefault(name, ServingRequests(out, name))
        if cell.name == "rank" and not requests.has("rank"):
            left_out[str(cell)] = f"'{name}' has no signature 'rank'"
        elif cell.api == "REST" and servers.rest is None:
            left_out[str(cell)] = "no address of REST"
        else:
            payloads[cell] = _payloads(requests, cell)
    loads: dict[Cell, list[Load]] = {cell: [] for cell in payloads}
    times = {cell: np.zeros(2) for cell in payloads}  # model call and request
    end = time.monotonic() + plan.budget
    rounds = 0
    with Progress("requests", plan.rounds * len(payloads), quiet=quiet) as progress:
        while rounds < plan.rounds and (not rounds or time.monotonic() < end):
            order = list(payloads)
            first = rounds * len(order) // plan.rounds
            for cell in [*order[first:], *order[:first]]:
                name = cell.name if cell.name in RETRIEVAL else wanted
                progress.note(str(cell))
                load, spent = _turn(servers, cell, name, payloads[cell], plan)
                loads[cell].append(load)
                times[cell] += np.nan if spent is None else spent
                progress.advance(1)
            rounds += 1
    return {
        "model": wanted,
        "rounds": rounds,
        "k": {name: made[name].k for name in RETRIEVAL if name in made},
        "cells": [_described(cell, loads[cell], times[cell]) for cell in payloads],
        "left_out": left_out,
    }


def chosen_model(exports: Path) -> str:
    """The first ranker, or else the foundation.

    Raises:
        UserError: There is neither.
    """
    for folder in [*sorted(exports.glob("ranker_*")), exports / "foundation"]:
        if folder.is_dir() and versions(folder):
            return folder.name
    raise UserError(
        "There is neither a ranker nor a foundation model.",
        received=str(exports),
        fix="export the run: `train.py export`",
    )


def model_times(page: str, model: str) -> np.ndarray:
    """Sums of a server's `runtime_latency` and `request_latency` of a model so far, (2,).

    Args:
        page: Its metrics in Prometheus' text format.
        model: Name of the model.
    """
    sums = {"runtime": 0.0, "request": 0.0}
    for kind, labels, value in _SUM.findall(page):
        if f'model_name="{model}"' in labels:
            sums[kind] += float(value)
    return np.array([sums["runtime"], sums["request"]])


def _payloads(requests: ServingRequests, cell: Cell) -> list[bytes]:
    count = max(4, min(64, 4096 // cell.batch))
    if cell.name == "rank":
        return requests.rank(cell.batch, count)
    if cell.api == "REST":
        return requests.predict_json(cell.batch, count)
    return requests.predict(cell.batch, count)


def _turn(
    servers: Servers, cell: Cell, model: str, payloads: Sequence[bytes], plan: Plan
) -> tuple[Load, np.ndarray | None]:
    """One turn of a cell, and the server's own times of it."""
    before: list[np.ndarray] = []

    def connect() -> Sender:
        if cell.api == "REST":
            return RestSender(servers.rest or "", f"/v1/models/{model}:predict")
        return GrpcSender(servers.grpc)

    load = closed_loop(
        connect,
        payloads,
        threads=cell.threads,
        requests=plan.requests,
        seconds=plan.seconds,
        warmup=10,
        ready=lambda: before.extend(_times(servers, model)),
    )
    after = _times(servers, model)
    return load, after[0] - before[0] if before and after else None


def _times(servers: Servers, model: str) -> list[np.ndarray]:
    """`model_times` now; nothing where the server does not tell."""
    if servers.rest is None:
        return []
    connection = http.client.HTTPConnection(servers.rest, timeout=10)
    try:
        connection.request("GET", _METRICS)
        response = connection.getresponse()
        page = response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return []
    finally:
        connection.close()
    return [model_times(page, model)] if response.status == 200 else []


def _described(cell: Cell, loads: Sequence[Load], times: np.ndarray) -> dict[str, Any]:
    """A cell's numbers.

    Returns:
        The cell; `requests` answered and `failed` of all rounds, `failures`; `ms`: percentiles of
        all rounds' requests; `requests_per_s` and `rows_per_s`, medians of the rounds, and their
        spread (largest less smallest over median); `model_share`: the model call's share of the
        request time in the server, None where it does not tell.
    """
    taken = 1000 * np.concatenate([load.seconds for load in loads])
    rates = [len(load.seconds) / load.wall for load in loads]
    rate = float(np.median(rates))
    failures = sum((Counter(load.failures) for load in loads), Counter[str]())
    ms: dict[str, float | None] = dict.fromkeys(("p50", "p90", "p95", "p99", "max"))
    if len(taken):
        ms = {f"p{q}": round(float(np.percentile(taken, q)), 3) for q in (50, 90, 95, 99)}
        ms["max"] = round(float(taken.max()), 3)
    return {
        **vars(cell),
        "requests": len(taken),
        "failed": sum(failures.values()),
        "failures": dict(failures),
        "ms": ms,
        "requests_per_s": round(rate, 1),
        "rows_per_s": round(rate * cell.batch, 1),
        "spread": round((max(rates) - min(rates)) / rate, 3) if rate else None,
        "model_share": round(float(times[0] / times[1]), 3) if times[1] > 0 else None,
    }


def swap(out: Path, model: str, plan: Plan, scratch: Path) -> dict[str, Any]:
    """Swaps versions of a copy of a model, in a local server of its own.

    Args:
        out: The run folder.
        model: Name of the model.
        plan: How often.
        scratch: Folder for the copy.
    """
    newest = max(versions(out / "exports" / model))
    folder = scratch / "exports" / model
    shutil.copytree(out / "exports" / model / str(newest), folder / str(newest))
    payloads = ServingRequests(out, model).predict(32, 64)
    with ServerProcess(folder.parent, scratch / "swap.log", poll_seconds=0.5) as server:
        return measure_swap(
            server.grpc_address, model, folder, payloads, swaps=plan.swaps, steady=plan.steady
        )


def make_run(out: Path, *, rows: int = 6000) -> None:
    """Runs `train.py` with all its stages on a small generated log.

    Raises:
        UserError: It failed.
    """
    spec = ROOT / "feature_specs" / "synthetic.yaml"
    command = [sys.executable, "-m", "train", "run", "--spec", str(spec), "--out", str(out)]
    command += ["--quiet", "--scenarios", "feed"]
    for setting in (
        f"dataset_options.rows={rows}",
        "upstream.training.auto=false",
        "downstream.training.auto=false",
        "upstream.training.replay=0",
        "downstream.training.epochs=1",
    ):
        command += ["--set", setting]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise UserError(
            "The small run failed.",
            received=(done.stderr or done.stdout)[-2000:],
            fix="give an exported run with --out",
        )


@contextmanager
def _served(options: argparse.Namespace, out: Path, scratch: Path) -> Iterator[Servers]:
    """The given server, or one of our own."""
    if options.server is not None:
        yield Servers(options.server, options.rest)
        return
    with ServerProcess(out / "exports", scratch / "server.log") as server:
        yield Servers(server.grpc_address, server.rest_address)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measures what the command line asks for."""
    plan = QUICK if options.quick else DEFAULT
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        out = options.out
        if out is None:
            out = scratch / "run"
            print("Making a small run, which takes minutes", file=sys.stderr, flush=True)
            make_run(out)
        model = options.model or chosen_model(out / "exports")
        served_from = options.served_from
        with _served(options, out, scratch) as servers:
            result: dict[str, Any] = {
                "server": "given" if options.server else "lfm4ads_tf.export.local_server"
            }
            result |= measure(out, servers, plan, model=model, quiet=False)
            if options.server and served_from is not None:
                payloads = ServingRequests(out, model).predict(32, 64)
                result["swap"] = measure_swap(
                    servers.grpc,
                    model,
                    served_from / model,
                    payloads,
                    swaps=plan.swaps,
                    steady=plan.steady,
                )
        if not options.server:
            result["swap"] = swap(out, model, plan, scratch)
        elif served_from is None:
            result["left_out"]["swap"] = "no --served-from"
    return result


def _tables(result: Mapping[str, Any]) -> list[Table]:
    """What is printed."""
    shown = Table(title=f"{result['model']}, {result['server']}: latency and throughput")
    for head in ("request", "api"):
        shown.add_column(head, no_wrap=True)
    for head in ("batch", "threads", "requests", "failed", "p50 ms", "p90", "p95", "p99", "max",
                 "requests/s", "rows/s", "spread", "model call"):  # fmt: skip
        shown.add_column(head, justify="right")
    for cell in result["cells"]:
        name = cell["name"]
        shown.add_row(
            f"{name}, {result['k'][name]}" if name in result["k"] else name,
            cell["api"],
            *(f"{cell[key]:,}" for key in ("batch", "threads", "requests", "failed")),
            *("-" if ms is None else f"{ms:.2f}" for ms in cell["ms"].values()),
            f"{cell['requests_per_s']:,.1f}",
            f"{cell['rows_per_s']:,.0f}",
            *("-" if cell[k] is None else f"{cell[k]:.0%}" for k in ("spread", "model_share")),
        )
    found = [shown]
    if "swap" in result:
        of = result["swap"]
        swaps = Table(
            title=f"Versions swapped: {of['swaps']}, at {of['rate']} requests/s of 32 rows"
        )
        for head in ("", "requests", "failed", "p50 ms", "p99 ms", "max ms"):
            swaps.add_column(head, justify="right" if head else "left")
        for name in ("before", "during"):
            part = of[name]
            values = [part[key] for key in ("p50_ms", "p99_ms", "max_ms")]
            swaps.add_row(
                name, str(part["requests"]), "",
                *("-" if value is None else f"{value:.2f}" for value in values),
            )  # fmt: skip
        swaps.add_row("all", str(of["requests"]), str(of["failed"]), "", "", "")
        found.append(swaps)
    return found


def _verdicts(result: Mapping[str, Any]) -> list[str]:
    """What is said below the tables."""
    lines = []
    for cell in result["cells"]:
        wanted = (cell["name"], cell["api"], cell["batch"], cell["threads"])
        if wanted == ("predict", "gRPC", 512, 1):
            share = cell["model_share"]
            told = "not told by the server" if share is None else f"{share:.1%}"
            lines.append(
                f"Model call at batch 512: {told} of the request time (wanted: {SHARE:.0%})"
            )
    if "swap" in result:
        of = result["swap"]
        answered = ", ".join(f"version {v}: {n}" for v, n in of["answered_by"].items())
        lines.append(f"Swaps took {of['seconds']} s; answered by {answered}")
        lines.append(f"Failed requests in swaps: {of['failed']} of {of['requests']} (wanted: 0)")
        if not of["completed"]:
            lines.append("A swap was not completed in time.")
    lines += [f"Left out: {cell}: {why}" for cell, why in result["left_out"].items()]
    return lines


def _passed(result: Mapping[str, Any]) -> bool:
    """Whether every request was answered and every swap completed."""
    of = result.get("swap", {"failed": 0, "completed": True})
    return of["completed"] and not of["failed"] and not any(c["failed"] for c in result["cells"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, help="exported run folder [a small one is made]")
    parser.add_argument("--server", help="grpc://127.0.0.1:<port> of a running server")
    parser.add_argument("--rest", help="its http://127.0.0.1:<port>")
    parser.add_argument(
        "--served-from",
        type=Path,
        help="folder that the running server reads its models from; swaps add versions to it",
    )
    parser.add_argument("--model", help="model of predict and rank [the first ranker]")
    parser.add_argument("--quick", action="store_true", help="few cells, short turns")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    return parser


def _checked(options: argparse.Namespace) -> argparse.Namespace:
    """Options with addresses as host:port.

    Raises:
        UserError: An address is not of the loopback, or options do not go together.
    """
    if options.server is None and (options.rest or options.served_from):
        raise UserError("--rest and --served-from go with --server.", fix="give --server too")
    if options.server is not None:
        options.server = loopback(options.server, "grpc")
        options.rest = options.rest and loopback(options.rest, "http")
        if options.out is None:
            raise UserError(
                "Requests are built from the samples of a run.",
                fix="give the run folder whose exports the server serves with --out",
            )
    if options.out is not None and not (options.out / "exports").is_dir():
        raise UserError(
            "There are no exports.",
            received=str(options.out),
            fix="give a run folder after `train.py export`",
        )
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module's text.

    Returns:
        0; 1 when a request failed or a swap was not completed; 2 for what the user can mend;
        3 when the copy of an export that a swap publishes is refused.
    """
    options = _parser().parse_args(arguments)
    try:
        result = run(_checked(options))
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except ExportRefused as refused:
        print(f"Refused: {refused}", file=sys.stderr)
        return 3
    console = Console(width=170)
    for table in _tables(result):
        console.print(table)
    for line in _verdicts(result):
        console.print(line, markup=False, highlight=False)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 0 if _passed(result) else 1


def _end(*_: object) -> None:
    """Ends this process by an exception, so that the server is ended first."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would interrupt that
    sys.exit(143)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main())
