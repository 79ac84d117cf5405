"""Whether our multi-task upstreams are the same functions as torch-rechub's.

    python -m benchmarks.peer_functions [--json FILE]

torch-rechub's models get random weights, biases and batch-norm statistics and are evaluated in
float64, in a process of their own; their weights, batch norm folded, are loaded into ours, and the
logits of 1,000 rows compared. The error is |ours - theirs| over the sum of the magnitudes of the
terms of a logit w u + c, |w| |u| + |c|. Exit code 1 where it is above 1e-5; 2 where the environment
is missing (`python -m benchmarks.environments torch_rechub`).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from benchmarks import environments
from benchmarks.folding import layout_of, load, upstream_of
from benchmarks.measure import Worker, WorkerError
from benchmarks.peers.task_network import TaskNetwork
from benchmarks.reference_network import ReferenceNetwork, Terms, joint
from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.pipeline import build

BOUND = 1e-5
ROWS = 1000
_FIELDS = (
    ("user", "user", 60),
    ("city", "user", 9),
    ("item", "item", 40),
    ("brand", "item", 7),
    ("tags", "item", 5),
)
_NUMBERS = (("age", "user"), ("price", "item"))
NETWORKS: dict[str, TaskNetwork] = {
    "shared_bottom": TaskNetwork("shared_bottom", _FIELDS, _NUMBERS, units=(24, 12), tasks=3),
    "mmoe": TaskNetwork("mmoe", _FIELDS, _NUMBERS, units=(24, 12), tasks=3, experts=4),
    "ple": TaskNetwork(
        "ple", _FIELDS, _NUMBERS, units=(24, 12), tasks=3, levels=2, own=2, shared=3
    ),
    "aitm": TaskNetwork("aitm", _FIELDS, _NUMBERS, units=(24, 12), tasks=3),
    "esmm": TaskNetwork("esmm", _FIELDS, units=(24, 12)),
}
"""Model -> what is compared; small networks of every part that the library's models have."""


@dataclass(frozen=True)
class Compared:
    """One function.

    Attributes:
        name: The model, and what of it.
        rows: Rows.
        above: Rows with a logit whose error is above the bound.
        error: Largest |ours - theirs| over the sum of the terms' magnitudes.
        allowed: The largest difference that the bound allows over the deviation of the task's
            logits over the rows: far below 1, or the comparison says nothing.
        through: Largest |ours - theirs| over the sum of magnitudes through all layers, see
            `Terms.magnitudes`.
        oracle: Largest |NumPy - theirs| over the sum of the terms' magnitudes, both in float64.
    """

    name: str
    rows: int
    above: int
    error: float
    allowed: float
    through: float
    oracle: float


def draw_rows(network: TaskNetwork, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids (rows, F) int64, one in ten missing, and numbers (rows, N) float32."""
    rng = np.random.default_rng(seed)
    ids = np.stack([rng.integers(0, count, rows) for _, _, count in network.fields], axis=1)
    ids[rng.random(ids.shape) < 0.1] = -1
    return ids, rng.normal(size=(rows, len(network.numbers))).astype(np.float32)


def our_logits(
    network: TaskNetwork,
    state: dict[str, np.ndarray],
    ids: np.ndarray,
    numbers: np.ndarray,
    **options: Any,
) -> np.ndarray:
    """What our upstream gives with the weights of torch-rechub's.

    Args:
        network, state, ids, numbers: See `ReferenceNetwork`.
        options: Further options of the model.

    Returns:
        (N, T) float32.
    """
    layout = layout_of(network)
    upstream = upstream_of(network, layout.tasks)
    upstream[network.model] |= options
    model = build.upstream(layout, RunConfig.model_validate({"upstream": upstream}), seed=0)
    load(model, network, state)
    zeros = tf.zeros([len(ids)], tf.int64)
    batch = {
        "ids": tf.constant(ids, tf.int64),
        "bags": {},
        "dense": tf.constant(numbers, tf.float32),
        "scenario": zeros,
        "item": zeros,
        "representations": {},
    }
    logits: np.ndarray = model(batch).numpy()
    return logits


def compare(name: str, ours: np.ndarray, theirs: np.ndarray, oracle: Terms) -> Compared:
    """Holds logits (N, T) against each other."""
    apart = np.abs(ours.astype(np.float64) - theirs)
    error = apart / oracle.last
    return Compared(
        name,
        rows=len(ours),
        above=int((~(error <= BOUND)).any(axis=1).sum()),
        error=float(error.max()),
        allowed=float(BOUND * (oracle.last.max(axis=0) / theirs.std(axis=0)).max()),
        through=float((apart / oracle.magnitudes).max()),
        oracle=float((np.abs(oracle.values - theirs) / oracle.last).max()),
    )


def run(rows: int = ROWS, folder: Path = environments.FOLDER, seed: int = 0) -> list[Compared]:
    """Compares all functions.

    Raises:
        UserError: The environment is missing, or the peer failed.
    """
    python = environments.python_of("torch_rechub", folder)
    with tempfile.TemporaryDirectory(prefix="lfm4ads_functions_") as temporary:
        place = Path(temporary)
        worker = Worker(
            "torch_rechub",
            [str(python), "-m", "benchmarks.peers.torch_rechub_logits_worker"],
            folder=environments.ROOT,
            log=place / "log.txt",
            environment={"PYTHONDONTWRITEBYTECODE": "1"},
        )
        try:
            return [
                one
                for k, network in enumerate(NETWORKS.values())
                for one in _functions(network, worker, place, rows, seed + k)
            ]
        except WorkerError as error:
            raise UserError("torch-rechub gave no logits.", received=str(error)) from None
        finally:
            worker.close()


def _functions(
    network: TaskNetwork, worker: Worker, place: Path, rows: int, seed: int
) -> Iterator[Compared]:
    """The functions of one network: one, or esmm's two kinds of logits."""
    ids, numbers = draw_rows(network, rows, seed)
    np.save(place / "ids.npy", ids)
    np.save(place / "numbers.npy", numbers)
    files = {key: str(place / f"{key}.npy") for key in ("ids", "numbers")}
    into = place / "found.npz"
    request = {"do": "logits", "network": network.to_json(), "seed": seed, "into": str(into)}
    worker.ask({**request, **files})
    with np.load(into) as found:
        theirs, scores = found["logits"], found["scores"]
        names = [name for name in found.files if name.startswith("state/")]
        state = {name.removeprefix("state/"): found[name] for name in names}
    oracle = ReferenceNetwork(network, state).logits(ids, numbers)
    if network.model != "esmm":
        ours = our_logits(network, state, ids, numbers)
        yield compare(network.model, ours, theirs, oracle)
        return
    ours = our_logits(network, state, ids, numbers, output="conditional")
    yield compare("esmm, conversion given click", ours, theirs, oracle)
    both = scores[:, 2]  # the library's own p(click) p(conversion | click)
    of_both = np.stack([theirs[:, 0], np.log(both) - np.log1p(-both)], axis=1)
    ours = our_logits(network, state, ids, numbers, output="joint")
    yield compare("esmm, click and conversion", ours, of_both, joint(oracle))


def table(found: Sequence[Compared]) -> Table:
    """The result for a person."""
    shown = Table(title="Equal functions: ours against torch-rechub's")
    heads = ("rows", "above 1e-5", "largest error", "bound / deviation", "all layers", "NumPy's")
    shown.add_column("model")
    for head in heads:
        shown.add_column(head, justify="right")
    for one in found:
        numbers = (f"{value:.1e}" for value in (one.error, one.allowed, one.through, one.oracle))
        shown.add_row(one.name, f"{one.rows:,}", str(one.above), *numbers)
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peer_functions")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--environments", type=Path, default=environments.FOLDER)
    options = parser.parse_args(arguments)
    try:
        found = run(folder=options.environments)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    Console(width=120).print(table(found))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        document = {"bound": BOUND, "functions": [asdict(one) for one in found]}
        options.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return 1 if any(one.above for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
