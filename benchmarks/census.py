"""Our multi-task models against torch-rechub's own training, on Census-Income.

    python -m benchmarks.census --out OUT [--seeds 3] [--models NAME ...] [--epochs N]

Prepares the spec `census` once (`OUT/run`) and gives torch-rechub, in a process and environment of
its own, the same encoded rows; both train networks of the same sizes with the same optimizer, batch
and number of epochs, and each is scored on the test rows after the epoch that is best on the
validation rows. `OUT/census.json` gets all numbers. Exit code 1 where a mean test AUC of ours is
more than 0.002 below theirs. `docs/benchmarks.md` says what is equal and what is not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import environments
from benchmarks.folding import upstream_of
from benchmarks.measure import Worker, WorkerError
from benchmarks.peers.task_network import Model, TaskNetwork
from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.metrics import auc
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.run import open_run
from lfm4ads_tf.pipeline.scoring import mean_auc, predict_rows
from lfm4ads_tf.training.schedule import epochs
from lfm4ads_tf.training.trainer import Trainer

BELOW = 0.002
"""How far a mean test AUC of ours may lie below theirs."""
_THREADS = 1  # of torch: its products are small here, and its threads wait for each other
PARTS = ("train", "valid", "test")
MODELS: tuple[Model, ...] = ("shared_bottom", "mmoe", "ple", "aitm")
"""Those that make sense: income and never married are no funnel, as esmm needs."""


@dataclass(frozen=True)
class Recipe:
    """What both train with; torch-rechub's for Census-Income, apart from the epochs.

    Attributes:
        batch: Rows a step.
        epochs: Passes over the training rows, of which the best one counts.
        learning_rate: Of Adam, for tables and the rest.
        weight_decay: Of torch-rechub's Adam.
    """

    batch: int = 1024
    epochs: int = 12
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4


@dataclass(frozen=True)
class Trained:
    """One training.

    Attributes:
        auc: Task -> test AUC after the best epoch.
        epoch: The epoch, from 1 on.
        valid: Mean validation AUC after each epoch.
        seconds: Seconds of training, without scoring for torch-rechub.
        floats: Trained floats.
    """

    auc: dict[str, float]
    epoch: int
    valid: list[float]
    seconds: float
    floats: int


def network_of(model: Model, cache: EncodedCache) -> TaskNetwork:
    """The sizes of torch-rechub's recipe, over the inputs of a cache.

    Raises:
        UserError: The cache holds lists, which are no part of the comparison.
    """
    layout = cache.layout
    if layout.bags or any(field.width > 1 for field in layout.dense):
        raise UserError("Compared are single-valued features and plain numbers.")
    rows = {table.name: table.rows for table in layout.tables}
    network = TaskNetwork(
        model,
        tuple((field.name, field.owner, rows[field.table]) for field in layout.fields),
        tuple((field.name, field.owner) for field in layout.dense),
        dim=4,
        tasks=len(layout.tasks),
        tower=(8,),
    )
    if model == "shared_bottom":
        return replace(network, units=(117,))
    if model == "mmoe":
        return replace(network, units=(16,), experts=8)
    if model == "ple":
        return replace(network, units=(16,), levels=1, own=2, shared=1)
    return replace(network, units=(32, 16))


def train_ours(
    network: TaskNetwork, cache: EncodedCache, recipe: Recipe, seed: int, folder: Path
) -> Trained:
    """Trains our upstream by the pipeline's trainer.

    Args:
        folder: Where its checkpoints go.
    """
    rate = recipe.learning_rate
    section = upstream_of(network, cache.layout.tasks)
    section["training"] = {
        "auto": False,
        "schedule": "epochs",
        "batch_size": recipe.batch,
        "epochs": recipe.epochs,
        "patience": recipe.epochs,
        "optimizer": {"rule": "adam", "table_learning_rate": rate, "dense_learning_rate": rate},
    }
    config = RunConfig.model_validate({"upstream": section})
    training = config.upstream.training
    model = build.upstream(cache.layout, config, seed)
    valid, test = cache.rows_of("valid"), cache.rows_of("test")
    trainer = Trainer(
        model,
        [model.backbone.embeddings],
        Objective(model.loss_terms, model.optimizers(training.optimizer)),
        cache,
        training,
        seed=seed,
        label=f"{network.model} seed {seed}",
        folder=folder / "training",
        tensorboard=folder / "tensorboard",
        validate=lambda: mean_auc(cache, valid, predict_rows(model, cache, valid)),
        quiet=True,
    )
    began = time.perf_counter()
    result = trainer.fit(epochs(training, cache.train_rows))
    seconds = time.perf_counter() - began
    phases = [entry["phase"] for entry in result.history]
    return Trained(
        auc=_by_task(cache, test, predict_rows(model, cache, test)),
        epoch=phases.index(result.best) + 1,
        valid=[entry["value"] for entry in result.history],
        seconds=seconds,
        floats=sum(int(np.prod(v.shape)) for v in model.trainable_variables),
    )


def train_theirs(
    network: TaskNetwork,
    cache: EncodedCache,
    recipe: Recipe,
    seed: int,
    worker: Worker,
    rows: Path,
) -> Trained:
    """Has torch-rechub train; the epoch is chosen here, as ours is.

    Args:
        worker: Its process.
        rows: What `write_rows` wrote.
    """
    into = rows / "scores.npz"
    request = {"do": "train", "network": network.to_json(), "rows": str(rows), "into": str(into)}
    answer = worker.ask({**request, "seed": seed, "threads": _THREADS, **asdict(recipe)})
    with np.load(into) as scores:
        return chosen(cache, scores["valid"], scores["test"], answer)


def chosen(
    cache: EncodedCache, valid: np.ndarray, test: np.ndarray, answer: dict[str, Any]
) -> Trained:
    """A training of which every epoch's scores are known.

    Args:
        valid, test: Probabilities (epochs, M, T); the first of equal epochs is the best.
        answer: `seconds` and `floats`.
    """
    rows = cache.rows_of("valid")
    values = [mean_auc(cache, rows, scores) or 0.0 for scores in valid]
    best = int(np.argmax(values))
    return Trained(
        auc=_by_task(cache, cache.rows_of("test"), test[best]),
        epoch=best + 1,
        valid=values,
        seconds=answer["seconds"],
        floats=answer["floats"],
    )


def write_rows(cache: EncodedCache, folder: Path) -> None:
    """Writes ids, numbers and training labels as our models read them."""
    for part in PARTS:
        batch = cache.take(cache.rows_of(part))
        np.save(folder / f"{part}_ids.npy", batch["ids"])
        np.save(folder / f"{part}_numbers.npy", batch["dense"])
        if part == "train":
            np.save(folder / f"{part}_labels.npy", batch["labels"])


def run(
    cache: EncodedCache,
    models: Sequence[Model],
    seeds: int,
    recipe: Recipe,
    folder: Path = environments.FOLDER,
) -> list[dict[str, Any]]:
    """Trains everything.

    Args:
        folder: Folder of the peers' environments.

    Returns:
        An entry for each model and task, see `entries`.

    Raises:
        UserError: The environment is missing, or the peer failed.
    """
    python = environments.python_of("torch_rechub", folder)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="lfm4ads_census_") as name:
        place = Path(name)
        write_rows(cache, place)
        for model in models:
            network = network_of(model, cache)
            ours, theirs = [], []
            worker = Worker(
                "torch_rechub",
                [str(python), "-m", "benchmarks.peers.torch_rechub_training_worker"],
                folder=environments.ROOT,
                log=place / f"{model}.log",
                environment={"PYTHONDONTWRITEBYTECODE": "1"},
            )
            try:
                for seed in range(seeds):
                    own = place / f"{model}_{seed}"
                    ours.append(train_ours(network, cache, recipe, seed, own))
                    theirs.append(train_theirs(network, cache, recipe, seed, worker, place))
                    print(_line(model, seed, ours[-1], theirs[-1]), flush=True)
            except WorkerError as error:
                raise UserError("torch-rechub did not train.", received=str(error)) from None
            finally:
                worker.close()
            found += entries(model, ours, theirs)
    return found


def entries(model: str, ours: Sequence[Trained], theirs: Sequence[Trained]) -> list[dict[str, Any]]:
    """One entry for each task: means and deviations over seeds, and whether ours holds."""
    found = []
    for task in ours[0].auc:
        entry: dict[str, Any] = {"model": model, "task": task, "seeds": len(ours)}
        for name, of in (("ours", ours), ("torch_rechub", theirs)):
            values = [one.auc[task] for one in of]
            entry[name] = {
                "mean": float(np.mean(values)),
                "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                "auc": values,
                "epoch": [one.epoch for one in of],
                "valid": [one.valid for one in of],
                "seconds": [one.seconds for one in of],
                "floats": of[0].floats,
            }
        entry["difference"] = entry["ours"]["mean"] - entry["torch_rechub"]["mean"]
        entry["holds"] = entry["difference"] >= -BELOW
        found.append(entry)
    return found


def table(found: Sequence[dict[str, Any]]) -> Table:
    """The entries for a person."""
    shown = Table(title="Census-Income: test AUC")
    for head in ("model", "task", "ours", "torch-rechub", "difference", f">= -{BELOW}"):
        shown.add_column(head, justify="left" if head in ("model", "task") else "right")
    for head in ("best epochs", "theirs", "s", "theirs"):
        shown.add_column(head, justify="right")
    for entry in found:
        both = [entry["ours"], entry["torch_rechub"]]
        shown.add_row(
            entry["model"],
            entry["task"],
            *(_spread(of) for of in both),
            f"{entry['difference']:+.4f}",
            "yes" if entry["holds"] else "no",
            *(" ".join(str(epoch) for epoch in of["epoch"]) for of in both),
            *(f"{np.mean(of['seconds']):.0f}" for of in both),
        )
    return shown


def prepare(out: Path) -> EncodedCache:
    """The encoded rows of the spec `census` in a run folder, made unless they are there.

    Raises:
        UserError: They could not be made.
    """
    command = [sys.executable, "-m", "train", "prepare", "--spec", "census", "--out", str(out)]
    done = subprocess.run(
        [*command, "--quiet"], cwd=environments.ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UserError("Census-Income could not be prepared.", received=done.stderr[-2000:])
    return open_run(out).cache


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.census")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--environments", type=Path, default=environments.FOLDER)
    options = parser.parse_args(arguments)
    recipe = Recipe(epochs=options.epochs)
    try:
        environments.python_of("torch_rechub", options.environments)  # before minutes of work
        cache = prepare(options.out / "run")
        found = run(cache, options.models, options.seeds, recipe, options.environments)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    document = {"recipe": asdict(recipe), "below": BELOW, "entries": found}
    (options.out / "census.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    Console(width=140).print(table(found))
    return 0 if all(entry["holds"] for entry in found) else 1


def _by_task(cache: EncodedCache, rows: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    labels = cache.labels[rows]
    return {
        task: auc(labels[:, k], scores[:, k]) or 0.0 for k, task in enumerate(cache.layout.tasks)
    }


def _spread(of: dict[str, Any]) -> str:
    mean = f"{of['mean']:.4f}"
    return mean if of["sd"] is None else f"{mean} ± {of['sd']:.4f}"


def _line(model: str, seed: int, ours: Trained, theirs: Trained) -> str:
    told = ", ".join(f"{task} {ours.auc[task]:.4f} / {theirs.auc[task]:.4f}" for task in ours.auc)
    return (
        f"{model} seed {seed}: {told} (ours / torch-rechub); epochs {ours.epoch} / {theirs.epoch}, "
        f"{ours.seconds:.0f} / {theirs.seconds:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
