"""The experiment as its authors train it; it leaks, and is here for comparison only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from lfm4ads_tf.config import Resolved
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.experiments.original_training import (
    OriginalResult,
    chronological,
    fit_original,
    score,
)
from lfm4ads_tf.experiments.public_log import PublicLog, read_public_log
from lfm4ads_tf.experiments.public_method import LAYERS, PublicMethod
from lfm4ads_tf.experiments.public_network import PublicNetwork, embed
from lfm4ads_tf.experiments.public_retriever import PublicRetriever
from lfm4ads_tf.experiments.schedule import MetricsEntry
from lfm4ads_tf.experiments.static_aggregate import StaticAggregate
from lfm4ads_tf.file_names import file_name
from lfm4ads_tf.files import write_arrays, write_json
from lfm4ads_tf.seeding import derive


class OriginalSchedule:
    """The authors' recipe: their initial values, ids, optimizer, batches and aggregation.

    `OUT/seed_<s>/upstream.npz` holds the upstream's weights, `OUT/seed_<s>/<tab>/<method>.json` the
    results of one model.

    Args:
        resolved: Feature spec; of the run configuration, only the scenarios are read.
        folder: Folder of the raw tables.
        out: `OUT`.
    """

    name = "original"

    def __init__(self, resolved: Resolved, folder: Path, out: Path) -> None:
        self._spec = resolved.spec
        self._tabs = resolved.config.scenarios or []
        self._folder = folder
        self._out = out
        self._log: PublicLog | None = None
        self._known: tuple[int, PublicNetwork, dict[str, np.ndarray]] | None = None

    @property
    def log(self) -> PublicLog:
        """All rows; `prepare` reads them."""
        if self._log is None:
            self._log = read_public_log(self._spec, self._folder)
        return self._log

    def prepare(self) -> dict[str, int]:
        """Reads the data; returns the rows of each split.

        Raises:
            UserError: A tab is unknown or cannot be trained.
        """
        for tab in self._tabs:
            self._check(tab)
        return {split: len(self.log.rows(split)) for split in ("train", "valid", "test")}

    def upstream(self, seed: int) -> list[MetricsEntry]:
        """Trains the upstream of a trial, or reads its results."""
        folder = self._out / f"seed_{seed}"
        done = folder / "upstream.json"
        if not done.exists():
            model = self._network(seed)
            result = fit_original(model, self.log, None)
            weights = {f"{k:03d}": w for k, w in enumerate(model.get_weights())}
            write_arrays(folder / "upstream.npz", weights)
            for tab in self.log.tabs:
                parts = {split: score(model, self.log, split, tab) for split in ("valid", "test")}
                write_json(_of_tab(done, tab), {**parts, "wall_s": round(result.wall_s, 2)})
            _write(done, result)  # last: it marks the upstream as complete
        entries = self._entries(done, seed, "all", "upstream", "upstream")
        for tab in self.log.tabs:
            entries += self._entries(_of_tab(done, tab), seed, tab, "upstream", "upstream")
        return entries

    def test_rows(self, tab: str) -> int:
        """Test rows of a tab: its weight in the mean over tabs."""
        return len(self.log.rows("test", tab))

    def method(self, seed: int, tab: str, method: PublicMethod) -> list[MetricsEntry]:
        """Trains one model of a trial, or reads its results."""
        done = self._out / f"seed_{seed}" / file_name(tab) / f"{file_name(method.name)}.json"
        if not done.exists():
            model = self._model(method, seed, derive(seed, f"{tab} {method.name}"))
            _write(done, fit_original(model, self.log, tab))
        stage = "retrieval" if method.usage == "model" else "downstream"
        return self._entries(done, seed, tab, stage, method.name)

    def _model(self, method: PublicMethod, seed: int, model_seed: int) -> tf_keras.Model:
        """A model of a method at its initial weights."""
        upstream, known = self._representations(seed)
        kind, _, rest = method.name.partition("/")
        source = known.get(rest.rpartition("/")[2].rpartition("*")[2])  # None: reads none
        if kind == "feature":
            adapter = "gate" if method.curve == "gate" else "concat"
            return self._network(model_seed, representations=source, adapter=adapter)
        if kind == "model":
            items = None if source is None else upstream.table.numpy()
            return PublicRetriever(
                self.log.sizes,
                self.log.user_fields,
                items=items,
                representations=source,
                seed=model_seed,
            )
        model = self._network(model_seed)
        if method.layer is not None:
            model.warm_start(upstream, method.layer)
        return model

    def _network(self, seed: int, **options: Any) -> PublicNetwork:
        return PublicNetwork(self.log.sizes, len(self.log.tabs), seed=seed, **options)

    def _representations(self, seed: int) -> tuple[PublicNetwork, dict[str, np.ndarray]]:
        """The upstream of a trial, and UR and CR of every layer, each (U, d)."""
        if self._known is None or self._known[0] != seed:
            self._known = None  # one trial's fit into memory, two may not
            model = self._network(seed)
            with np.load(self._out / f"seed_{seed}" / "upstream.npz") as stored:
                model.set_weights([stored[name] for name in sorted(stored.files)])
            self._known = (seed, model, user_representations(model, self.log))
        return self._known[1], self._known[2]

    def _check(self, tab: str) -> None:
        """Refuses a tab in which nothing can be learnt or compared."""
        for split in ("train", "valid"):
            classes = np.unique(self.log.labels[self.log.rows(split, tab)])
            if len(classes) < 2:
                raise UserError(
                    f"The tab '{tab}' cannot be trained.",
                    received=f"{len(classes)} classes in its {split} rows",
                    fix="leave it out of --tabs",
                )

    def _entries(
        self, done: Path, seed: int, scenario: str, stage: str, method: str
    ) -> list[MetricsEntry]:
        stored = json.loads(done.read_text("utf-8"))
        identity = {"stage": stage, "scenario": scenario, "task": self._spec.task_names[0]}
        identity |= {"method": method, "slice": "all", "refresh": "frozen"}
        return [
            {
                **identity,
                "seed": seed,
                "split": split,
                "rows": len(self.log.rows(split, None if scenario == "all" else scenario)),
                "metrics": {"auc": stored[split]},
                "wall_s": stored["wall_s"],
            }
            for split in ("valid", "test")
        ]


def user_representations(model: PublicNetwork, log: PublicLog) -> dict[str, np.ndarray]:
    """UR and the static CR of every layer from all train and valid rows, each (U, d).

    A training row's own activation is in its user's CR.
    """
    first = np.unique(log.user, return_index=True)[1]
    users = tf.constant(log.ids[first][:, : log.user_fields])
    known = {"UR": embed(model.table, users).numpy()}
    events = np.union1d(log.rows("train"), log.rows("valid"))
    sums = [StaticAggregate(log.user[events], log.users, model.width) for _ in LAYERS]
    represent = tf.function(model.represent, autograph=False, reduce_retracing=True)
    start = 0
    for batch in chronological(log, events):
        activations = represent(batch)
        for total, values in zip(sums, activations, strict=True):
            total.add(start, values.numpy())
        start += int(batch["user"].shape[0])
    return known | {
        f"CR_user@{layer}": total.read() for layer, total in zip(LAYERS, sums, strict=True)
    }


def _of_tab(path: Path, tab: str) -> Path:
    """Where the upstream's results in one tab are."""
    return path.with_name(f"{path.stem}_{file_name(tab)}.json")


def _write(path: Path, result: OriginalResult) -> None:
    write_json(
        path,
        {
            "valid": result.valid,
            "test": result.test,
            "epochs": result.epochs,
            "wall_s": round(result.wall_s, 2),
        },
    )
