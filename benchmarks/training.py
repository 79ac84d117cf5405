"""Our training step against five libraries' on the same rows, network by network.

    python -m benchmarks.training --json FILE [--quick] [--peers none|all] [--ids uniform|zipf]
                                  [--models NAME ...] [--batches N ...]
    python -m benchmarks.training --json FILE --against CHECKOUT [--models NAME ...]

Each library runs in its own process and environment (`python -m benchmarks.environments`), on two
threads, and all take turns. `--against` measures our step of another checkout instead, in pairs.
`docs/benchmarks.md` says what is equal between the contenders and what is not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import environments
from benchmarks.measure import (
    Summary,
    Worker,
    WorkerError,
    interleave,
    summary,
)
from benchmarks.peers.networks import NETWORKS, REFERENCE, Network, flops
from benchmarks.peers.rows import Distribution, write_rows
from lfm4ads_tf.errors import UserError

OURS = "ours"
BFLOAT16 = "ours_bfloat16"
PRODUCTS = "products"
PAIRS = 15  # of turns, against another checkout


@dataclass(frozen=True)
class Plan:
    """What is measured, and for how long.

    Attributes:
        networks: Model -> the network that ours is measured on.
        peers: Model -> peer -> its network, or why it has none.
        batches: Batch sizes.
        rows: Rows that the contenders go through again and again.
        ids: Distribution of the ids over a feature's rows.
        rounds: Rounds that count.
        warmup: Rounds before them.
        turn_seconds: Length that a turn aims at.
        threads: Threads of each contender.
        environments: Folder of the peers' environments.
        seed: Seed of the rows.
    """

    networks: Mapping[str, Network]
    peers: Mapping[str, Mapping[str, Network | str]]
    batches: Sequence[int] = (1024, 4096, 16_384)
    rows: int = 131_072
    ids: Distribution = "uniform"
    rounds: int = 9
    warmup: int = 2
    turn_seconds: float = 1.0
    threads: int = 2
    environments: Path = environments.FOLDER
    seed: int = 0


@dataclass
class Entrant:
    """A worker and what is known of it.

    Attributes:
        worker: Its process.
        network: What it was asked to build.
        flops: Operations per example of what it built.
        about: Its versions and choices.
        failure: Why it is out, None while it is not.
    """

    worker: Worker
    network: Network
    flops: int = 0
    about: str = ""
    failure: str | None = None
    rates: dict[int, Summary] = field(default_factory=dict)


def _say(message: str) -> None:
    print(message, flush=True)


def run(plan: Plan, say: Callable[[str], None] = _say) -> dict[str, Any]:
    """Measures a plan.

    Returns:
        `{"runs": [...]}`, one entry per model and batch size, see `docs/benchmarks.md`.

    Raises:
        UserError: An environment is missing, or our own step failed.
    """
    runs: list[dict[str, Any]] = []
    interpreters = {
        peer: environments.python_of(peer, plan.environments)
        for peers in plan.peers.values()
        for peer, network in peers.items()
        if isinstance(network, Network)
    }
    with tempfile.TemporaryDirectory(prefix="lfm4ads_training_") as name:
        folder = Path(name)
        _write_rows(folder, plan)
        for model, reference in plan.networks.items():
            runs += _model(plan, model, reference, interpreters, folder, say)
    return {"runs": runs}


def _model(
    plan: Plan,
    model: str,
    reference: Network,
    interpreters: Mapping[str, Path],
    folder: Path,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """The entries of one model."""
    peers = plan.peers.get(model, {})
    with ExitStack() as stack:
        entrants: dict[str, Entrant] = {}

        def enter(name: str, network: Network, python: Path, module: str) -> None:
            command = [str(python), "-m", f"benchmarks.peers.{module}_worker"]
            entrants[name] = _enter(stack, plan, folder, f"{model}_{name}", name, network, command)

        # Each network once, the reference first.
        networks = dict.fromkeys([reference, *_known(peers)])
        ours = {network: f"{OURS}_{k}" for k, network in enumerate(networks)}
        for own, name in ours.items():
            enter(name, own, Path(sys.executable), "ours")
        enter(BFLOAT16, reference, Path(sys.executable), BFLOAT16)
        for peer, network in peers.items():
            if isinstance(network, Network):
                enter(peer, network, interpreters[peer], peer)
        for entrant in entrants.values():
            _guard(entrant, partial(_prepare, entrant, say))
        entries = []
        for batch in plan.batches:
            say(f"{model}, batch {batch}: {plan.warmup} + {plan.rounds} rounds")
            seconds = _measure(plan, batch, entrants, ours[reference])
            entries.append(_entry(model, batch, reference, peers, ours, entrants, seconds))
        return entries


def _enter(
    stack: ExitStack,
    plan: Plan,
    folder: Path,
    file: str,
    name: str,
    network: Network,
    command: Sequence[str],
    checkout: Path = environments.ROOT,
) -> Entrant:
    """Starts a worker and tells it to prepare, without waiting for it.

    Args:
        stack: Closes the worker at its end.
        folder: Folder of the rows and of what the worker reads and prints.
        file: Name of its files there.
        checkout: Where the command runs, whose modules it finds.
    """
    worker = Worker(
        name,
        command,
        folder=checkout,
        log=folder / f"{file}.log",
        environment={
            "OMP_NUM_THREADS": str(plan.threads),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
    )
    stack.callback(worker.close)
    config = folder / f"{file}.json"
    document = {"network": network.to_json(), "rows": str(folder), "threads": plan.threads}
    config.write_text(json.dumps(document), "utf-8")
    worker.send({"do": "prepare", "config": str(config)})
    return Entrant(worker, network)


def run_against(plan: Plan, checkout: Path, say: Callable[[str], None] = _say) -> dict[str, Any]:
    """Measures our step of the plan's networks here and in another checkout, in pairs of turns.

    Args:
        plan: Its peers are not read.
        checkout: Root of the other checkout, which has our worker and the networks' models.
        say: Gets a line for each step.

    Returns:
        `{"against": path, "runs": [...]}`: for each model and batch size `examples_per_s` and
        `spread` of `this` and `other`, `ratios` this / other by pair, their median `ratio`.

    Raises:
        UserError: It is no such checkout, or a step failed.
    """
    if not (checkout / "benchmarks" / "peers" / "ours_worker.py").exists():
        raise UserError(
            "There is no checkout of this project with its benchmarks.",
            received=str(checkout),
            fix="make one: git worktree add FOLDER COMMIT, with the compiled kernels "
            "(python -m lfm4ads_tf.kernels.build there)",
        )
    command = [sys.executable, "-m", "benchmarks.peers.ours_worker"]
    runs = []
    with tempfile.TemporaryDirectory(prefix="lfm4ads_training_") as name:
        folder = Path(name)
        _write_rows(folder, replace(plan, peers={}))
        for model, network in plan.networks.items():
            with ExitStack() as stack:
                both = {
                    # both are ours, which `_guard` tells by the name
                    of: _enter(
                        stack,
                        plan,
                        folder,
                        f"{model}_{of}",
                        f"{OURS}_{of}",
                        network,
                        command,
                        where,
                    )
                    for of, where in (("this", environments.ROOT), ("other", checkout))
                }
                for entrant in both.values():
                    _guard(entrant, partial(_prepare, entrant, say))
                for batch in plan.batches:
                    say(f"{model}, batch {batch}: {plan.warmup} + {plan.rounds} pairs")
                    runs.append(_pairs(plan, model, batch, both))
    return {"against": str(checkout), "runs": runs}


def _pairs(plan: Plan, model: str, batch: int, both: Mapping[str, Entrant]) -> dict[str, Any]:
    """The entry of one model and batch size."""
    turns: dict[str, Callable[[], float]] = {}
    for name, entrant in both.items():
        first = {"do": "steps", "batch": batch, "n": 1}
        _guard(entrant, partial(entrant.worker.ask, first))  # traces
        turn = _turn(entrant, batch, "steps", plan.turn_seconds)
        if turn is not None:
            turns[name] = turn
    seconds = interleave(turns, rounds=plan.rounds, warmup=plan.warmup)
    ratios = [b / a for a, b in zip(seconds["this"], seconds["other"], strict=True)]
    measured = {name: summary(own) for name, own in seconds.items()}
    return {
        "model": model,
        "batch": batch,
        "examples_per_s": {name: batch / one.median for name, one in measured.items()},
        "spread": {name: one.spread for name, one in measured.items()},
        "ratios": ratios,
        "ratio": summary(ratios).median,
    }


def _prepare(entrant: Entrant, say: Callable[[str], None]) -> None:
    answer = entrant.worker.receive()
    entrant.flops = flops(answer["kernels"])
    entrant.about = answer["about"]
    if entrant.flops != flops(entrant.network.kernels()):
        raise WorkerError(
            f"it built a network of {entrant.flops:,} operations per example, not of "
            f"{flops(entrant.network.kernels()):,}"
        )
    say(f"{entrant.worker.name}: {entrant.about}; {entrant.flops:,} FLOPs per example")


def _measure(
    plan: Plan, batch: int, entrants: Mapping[str, Entrant], reference: str
) -> dict[str, float]:
    """Fills the entrants' rates at one batch size; returns the median seconds of a step by name."""
    turns: dict[str, Callable[[], float]] = {}
    for name, entrant in entrants.items():
        first = {"do": "steps", "batch": batch, "n": 1}
        _guard(entrant, partial(entrant.worker.ask, first))  # traces
        turn = _turn(entrant, batch, "steps", plan.turn_seconds)
        if turn is not None:
            turns[name] = turn
    alone = _turn(entrants[reference], batch, "products", plan.turn_seconds)
    if alone is not None:
        turns[PRODUCTS] = alone
    values = interleave(turns, rounds=plan.rounds, warmup=plan.warmup)
    seconds: dict[str, float] = {}
    for name, own in values.items():
        if np.all(np.isfinite(own)):
            measured = summary(own)
            seconds[name] = measured.median
            if name in entrants:
                rate = batch / measured.median
                entrants[name].rates[batch] = Summary(rate, measured.spread)
    return seconds


def _turn(
    entrant: Entrant, batch: int, what: str, turn_seconds: float
) -> Callable[[], float] | None:
    """Seconds of one step (or of the products alone), averaged over a turn; NaN once it failed."""
    trial = _guard(entrant, lambda: entrant.worker.ask({"do": what, "batch": batch, "n": 2}))
    if trial is None:
        return None
    count = int(np.clip(round(turn_seconds / (trial["seconds"] / 2)), 2, 64))
    request = {"do": what, "batch": batch, "n": count}

    def turn() -> float:
        answer = _guard(entrant, lambda: entrant.worker.ask(request))
        return float("nan") if answer is None else answer["seconds"] / count

    return turn


def _guard(entrant: Entrant, action: Callable[[], Any]) -> Any:
    """An action's value; None, with the reason kept, when the worker fails or has failed.

    Raises:
        UserError: The worker is our own: there is nothing to compare without it.
    """
    if entrant.failure is not None:
        return None
    try:
        return action()
    except WorkerError as error:
        if entrant.worker.name.startswith(OURS):
            raise UserError("Our own step could not be measured.", received=error) from error
        entrant.failure = str(error)
        return None


def _entry(
    model: str,
    batch: int,
    reference: Network,
    peers: Mapping[str, Network | str],
    ours: Mapping[Network, str],
    entrants: Mapping[str, Entrant],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """One entry of the result."""
    own, apart = entrants[ours[reference]], entrants[BFLOAT16]
    entry: dict[str, Any] = {
        "model": model,
        "batch": batch,
        "examples_per_s": {
            OURS: own.rates[batch].median,
            BFLOAT16: apart.rates[batch].median,
        },
        "ratio": {},
        "matmul_share": seconds[PRODUCTS] / seconds[ours[reference]],
        "flops_per_example": {OURS: own.flops, BFLOAT16: apart.flops},
        "ours_for": {},
        "reason": {},
        "spread": {OURS: own.rates[batch].spread, BFLOAT16: apart.rates[batch].spread},
    }
    for peer, network in peers.items():
        rate = entrants[peer].rates.get(batch) if peer in entrants else None
        if rate is None or isinstance(network, str):
            reason = network if isinstance(network, str) else entrants[peer].failure
            for key in ("examples_per_s", "ratio", "flops_per_example", "spread"):
                entry[key][peer] = None
            entry["reason"][peer] = reason
            continue
        same = entrants[ours[network]]
        entry["examples_per_s"][peer] = rate.median
        entry["ratio"][peer] = same.rates[batch].median / rate.median
        entry["flops_per_example"][peer] = entrants[peer].flops
        entry["spread"][peer] = rate.spread
        entry["ours_for"][peer] = {
            "examples_per_s": same.rates[batch].median,
            "flops_per_example": same.flops,
            "spread": same.rates[batch].spread,
        }
    return entry


def table(result: Mapping[str, Any]) -> Table:
    """The result for a person."""
    shown = Table(title="Training, examples/s")
    for head in ("model", "batch", "contender", "examples/s", "spread", "FLOPs/example"):
        shown.add_column(head)
    for head in ("ours", "its FLOPs/example", "ratio"):
        shown.add_column(head)
    for column in shown.columns:
        column.justify = "left" if column.header in ("model", "contender") else "right"
    for entry in result["runs"]:
        for name, rate in entry["examples_per_s"].items():
            cells = [entry["model"], f"{entry['batch']:,}", name]
            if rate is None:
                shown.add_row(*cells, "null")
                continue
            cells += [f"{rate:,.0f}", f"{entry['spread'][name]:.1%}"]
            cells.append(f"{entry['flops_per_example'][name]:,}")
            same = entry["ours_for"].get(name)
            if same is not None:
                cells += [f"{same['examples_per_s']:,.0f}", f"{same['flops_per_example']:,}"]
                cells.append(f"{entry['ratio'][name]:.2f}")
            shown.add_row(*cells)
        shown.add_row("", "", "matmul_share", f"{entry['matmul_share']:.2f}", end_section=True)
    return shown


def table_against(result: Mapping[str, Any]) -> Table:
    """The result of `run_against` for a person."""
    shown = Table(title=f"Our step, examples/s, against {result['against']}")
    for head in ("model", "batch", "this", "other", "ratio", "lowest", "highest"):
        shown.add_column(head, justify="left" if head == "model" else "right")
    for entry in result["runs"]:
        rates = (f"{entry['examples_per_s'][name]:,.0f}" for name in ("this", "other"))
        ratios = entry["ratio"], min(entry["ratios"]), max(entry["ratios"])
        cells = (f"{ratio:.3f}" for ratio in ratios)
        shown.add_row(entry["model"], f"{entry['batch']:,}", *rates, *cells)
    return shown


def plan_of(options: argparse.Namespace) -> Plan:
    """The plan that the command line asks for."""
    plan = Plan(REFERENCE, {} if options.peers == "none" else NETWORKS, ids=options.ids)
    if options.environments is not None:
        plan = replace(plan, environments=options.environments)
    models, batches = options.models, options.batches
    if options.quick:
        models, batches = models or ["DCNv2"], batches or [4096]
        plan = replace(plan, rounds=7, turn_seconds=0.6)
    if options.against is not None:
        models, batches = models or ["DCNv2", "MMoE"], batches or [4096]
        plan = replace(plan, rounds=PAIRS)
    if models is not None:
        only = {model: REFERENCE[model] for model in models}
        plan = replace(plan, networks=only)
        plan = replace(plan, peers={m: p for m, p in plan.peers.items() if m in only})
    return plan if batches is None else replace(plan, batches=batches)


def main(arguments: list[str] | None = None) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="DCNv2 at batch 4,096, short rounds")
    parser.add_argument("--models", nargs="+", choices=REFERENCE, help="these alone")
    parser.add_argument("--batches", nargs="+", type=int, metavar="N", help="these sizes alone")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="CHECKOUT",
        help=f"our step of another checkout instead of the peers, {PAIRS} pairs",
    )
    parser.add_argument("--peers", choices=("none", "all"), default="all")
    parser.add_argument("--ids", choices=("zipf", "uniform"), default="uniform")
    parser.add_argument("--environments", type=Path, help="folder of the peers' environments")
    plan = plan_of(parsed := parser.parse_args(arguments))
    against = parsed.against
    try:
        result = run(plan) if against is None else run_against(plan, against.resolve())
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    parsed.json.parent.mkdir(parents=True, exist_ok=True)
    parsed.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    Console(width=140).print(table(result) if against is None else table_against(result))
    if against is not None:
        return 0
    failed = {
        (entry["model"], peer)
        for entry in result["runs"]
        for peer in entry["reason"]
        if isinstance(plan.peers[entry["model"]][peer], Network)
    }
    for model, peer in sorted(failed):
        print(f"{peer} failed on {model}; the reason is in {parsed.json}", file=sys.stderr)
    return 1 if failed else 0


def _write_rows(folder: Path, plan: Plan) -> None:
    """The rows for the plan's networks, which differ in nothing that concerns them but tasks."""
    peers = [network for own in plan.peers.values() for network in _known(own)]
    networks = [*plan.networks.values(), *peers]
    sizes = {(network.features, network.rows) for network in networks}
    if len(sizes) > 1:
        raise ValueError(f"the networks read different rows: {sizes}")
    ((features, rows),) = sizes
    tasks = max(network.tasks for network in networks)
    write_rows(
        folder,
        plan.rows,
        features=features,
        rows=rows,
        tasks=tasks,
        ids=plan.ids,
        seed=plan.seed,
    )


def _known(peers: Mapping[str, Network | str]) -> list[Network]:
    """The networks of the peers that have the model."""
    return [network for network in peers.values() if isinstance(network, Network)]


if __name__ == "__main__":
    sys.exit(main())
