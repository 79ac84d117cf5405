"""One model of a comparison: its configuration, its trainings and its scores."""

from __future__ import annotations

import gc
import json
import logging
import math
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lfm4ads_tf.config import Resolved
from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.experiments.rate_training import RateTraining
from lfm4ads_tf.features.fitted_encoding import ALL
from lfm4ads_tf.file_names import file_name
from lfm4ads_tf.files import write_arrays, write_json
from lfm4ads_tf.metrics import logloss
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.optim.model_optimizers import ModelOptimizers
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.global_entries import global_entries
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.scenario_rows import scenario_rows
from lfm4ads_tf.pipeline.scoring import RowSlices, entries, predict_rows, targets_of
from lfm4ads_tf.pipeline.small_scenarios import warn_small_scenarios
from lfm4ads_tf.pipeline.stored_results import RESULTS
from lfm4ads_tf.pipeline.training_labels import TrainingLabels
from lfm4ads_tf.training.checkpoints import read_weights

_LOG = logging.getLogger(__name__)
_SCORES = "scores.json"
_PREDICTIONS = "predictions.npz"


class ComparedModel:
    """Trains one model at several learning rates, and scores the one that validation chose.

    `OUT/models/<name>/rate_<factor>/seed_<s>/` holds a training: `results.json`; of the chosen
    rate also `scores.json` and `predictions.npz`. Weights are removed once they are scored.

    Args:
        name: Its name in the results.
        resolved: Feature spec and configuration, with this model as the upstream.
        out: `OUT`; `OUT/data` holds the encoded data.
    """

    def __init__(self, name: str, resolved: Resolved, out: Path) -> None:
        self.name, self.resolved = name, resolved
        self._out = out

    @property
    def config(self) -> UpstreamConfig:
        """The upstream's configuration."""
        return self.resolved.config.upstream

    @cached_property
    def run(self) -> Run:
        """A run in OUT with the model's configuration as it was given."""
        return Run(self._out, self.resolved, quiet=True)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Floats in `tables` and `outside` of them, as they are trained.

        The model is built for it, so what cannot be built is refused here.
        """
        model = build.upstream(self.run.cache.layout, self.run.config, self.run.config.seed)
        objective = Objective(model.loss_terms, model.optimizers(self.config.training.optimizer))
        ModelOptimizers(objective, model, model.all_embeddings)  # refuses what does not fit
        parts = {id(p): p for layer in model.all_embeddings for p in layer.all_parts()}
        outside = [v for v in model.trainable_variables if id(v) not in parts]
        return {
            "tables": sum(math.prod(part.shape) for part in parts.values()),
            "outside": sum(math.prod(v.shape) for v in outside),
        }

    def check(self) -> None:
        """Refuses labels and scenarios that the model cannot learn from, and what cannot be built.

        Scenarios that are small for it are told.

        Raises:
            UserError: One of them.
        """
        cache, model = self.run.cache, self.config.model_class
        try:
            model.check_labels(self.config, TrainingLabels(cache))
            model.check_scenario_rows(self.config, scenario_rows(cache))
            _ = self.sizes
        except UserError as error:  # the model may stand there under several names
            raise UserError(f"The model '{self.name}' cannot be compared. {error}") from error
        warn_small_scenarios(cache, self.config, self.name)

    def missing(self, seeds: Sequence[int], rates: Sequence[float]) -> int:
        """Trainings of `complete` that are not made, as far as it is known before."""
        wanted = {(rate, seeds[0]) for rate in rates}
        done = sum((self._folder(rate, s) / RESULTS).exists() for rate, s in wanted)
        scored = sum(
            any((self._folder(rate, s) / _SCORES).exists() for rate in rates) for s in seeds[1:]
        )
        return len(wanted) - done + len(seeds) - 1 - scored

    def complete(
        self, seeds: Sequence[int], rates: Sequence[float], made: Callable[[], None]
    ) -> dict[str, Any]:
        """Trains what is missing and scores the chosen rate's models on the test rows.

        Args:
            seeds: The seeds; the first one chooses the rate, by mean validation AUC over tasks.
            rates: Factors of the configured learning rates; the first of equal ones is chosen.
            made: Called after each training.

        Returns:
            `rate`, the chosen one; `rates`: what each gave; `seeds`: the trainings of the chosen
            one; of these, where they tell it, `abundance`, the information abundance of the tables,
            and `observed`, what the model is observed by.

        Raises:
            UserError: No rate, or not every seed of the chosen one, gave a finite loss.
        """
        tried = {}
        for rate in rates:
            tried[rate] = self._train(rate, seeds[0], made)
        known = {r: t["valid"] for r, t in tried.items() if t["valid"] is not None}
        if not known:
            raise UserError(
                f"No learning rate gave the model '{self.name}' a validation AUC.",
                received="; ".join(str(t.get("diverged", "no AUC")) for t in tried.values()),
                fix="give lower --rates, or clip_norm in upstream.training.optimizer",
            )
        chosen = max(known, key=lambda rate: known[rate])
        _LOG.info("%s: rate x%g chosen on validation", self.name, chosen)
        trained = [tried[chosen]]
        self._score(chosen, seeds[0], made)
        for rate in rates:
            shutil.rmtree(self._folder(rate, seeds[0]) / "weights", ignore_errors=True)
        for seed in seeds[1:]:
            trained.append(self._train(chosen, seed, made))
            if trained[-1]["valid"] is None:
                raise UserError(
                    f"The training of the model '{self.name}' with the seed {seed} has no "
                    "validation AUC, though another seed's has.",
                    received=trained[-1].get("diverged"),
                    fix="leave the highest of --rates out, or set clip_norm in "
                    "upstream.training.optimizer",
                )
            self._score(chosen, seed, made)
            shutil.rmtree(self._folder(chosen, seed) / "weights", ignore_errors=True)
        return {
            "rate": chosen,
            "rates": [{"rate": r, **_told(t)} for r, t in tried.items()],
            "seeds": [{"seed": s, **_told(t)} for s, t in zip(seeds, trained, strict=True)],
            "abundance": [
                {"seed": s, "tables": t["abundance"]}
                for s, t in zip(seeds, trained, strict=True)
                if "abundance" in t  # earlier versions told none
            ],
            "observed": [
                {"seed": s, "values": t["observed"]}
                for s, t in zip(seeds, trained, strict=True)
                if "observed" in t
            ],
        }

    def entries(self, rate: float, seed: int) -> list[dict[str, Any]]:
        """Test entries of a scored training."""
        path = self._folder(rate, seed) / _SCORES
        found: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["entries"]
        return found

    def entries_of(self, slices: RowSlices, rate: float, seed: int) -> list[dict[str, Any]]:
        """Test entries of a scored training by other slices of all test rows."""
        stored, cache = self.predictions(rate, seed), self.run.cache
        targets = stored["targets"]
        found = entries(
            cache,
            slices,
            stored["rows"],
            stored["probabilities"],
            targets=lambda _: targets,
            stage="upstream",
            scenario=ALL,
            method=self.name,
            refresh="frozen",
            seed=seed,
            split="test",
        )
        for entry in found:
            _add_truth(entry, cache, stored["rows"], stored["probabilities"], targets)
        return found

    def predictions(self, rate: float, seed: int) -> dict[str, np.ndarray]:
        """`rows` (M,), `probabilities` and `targets` (M, T) of a scored training's test rows."""
        with np.load(self._folder(rate, seed) / _PREDICTIONS) as stored:
            return dict(stored)

    def _folder(self, rate: float, seed: int) -> Path:
        return self._out / "models" / file_name(self.name) / f"rate_{rate:g}" / f"seed_{seed}"

    def _with_rate(self, rate: float) -> Run:
        """A run whose learning rates are a factor of those given."""
        training = self.config.training
        names = ("table_learning_rate", "dense_learning_rate")
        scaled = {name: rate * getattr(training.optimizer, name) for name in names}
        optimizer = training.optimizer.model_copy(update=scaled)
        training = training.model_copy(update={"optimizer": optimizer})
        upstream = self.config.model_copy(update={"training": training})
        config = self.resolved.config.model_copy(update={"upstream": upstream})
        return Run(self._out, self.resolved.model_copy(update={"config": config}), quiet=True)

    def _train(self, rate: float, seed: int, made: Callable[[], None]) -> dict[str, Any]:
        folder = self._folder(rate, seed)
        new = not (folder / RESULTS).exists()
        label = f"{self.name}, rate x{rate:g}, seed {seed}"
        outcome = RateTraining(self._with_rate(rate), folder, seed, label).outcome()
        if new:
            made()
        gc.collect()  # a model and its traced step lie in circles
        return outcome

    def _score(self, rate: float, seed: int, made: Callable[[], None]) -> None:
        """Scores the test rows of a training that was chosen."""
        folder = self._folder(rate, seed)
        if (folder / _SCORES).exists():
            return
        if not (folder / "weights").exists():  # removed before a rate was chosen that is now
            shutil.rmtree(folder)
            self._train(rate, seed, made)
        run, cache = self.run, self.run.cache
        model = build.upstream(cache.layout, run.config, seed)
        read_weights(model, folder / "weights")
        targets = targets_of(model)
        entries, arrays = global_entries(
            run,
            lambda rows, refresh: predict_rows(model, cache, rows, refresh=refresh),
            targets=targets,
            splits=("test",),
            refreshes=("frozen",),
            stage="upstream",
            method=self.name,
            seed=seed,
        )
        rows, probabilities = arrays["test_rows"], arrays["test_frozen"]
        of_targets = targets(cache.labels[rows])  # (M, T)
        for entry in entries:
            _add_truth(entry, cache, rows, probabilities, of_targets)
        write_arrays(
            folder / _PREDICTIONS,
            {"rows": rows, "probabilities": probabilities, "targets": of_targets},
        )
        write_json(folder / _SCORES, {"entries": entries})


def _told(training: dict[str, Any]) -> dict[str, Any]:
    """What is said of a training in `comparison.json`."""
    names = ("valid", "epochs", "best_epoch", "examples_per_s", "seconds", "diverged")
    return {name: training[name] for name in names if name in training}


def _add_truth(
    entry: dict[str, Any],
    cache: EncodedCache,
    rows: np.ndarray,
    probabilities: np.ndarray,
    targets: np.ndarray,
) -> None:
    """Holds an entry over all rows of a place against the true probabilities, where known.

    `labels` says whether the model was scored on the spec's labels. Else the truth is of another
    event than the model's probability, and even the best possible AUC is taken away.
    """
    k = cache.layout.tasks.index(entry["task"])
    entry["labels"] = np.array_equal(targets[:, k], cache.labels[rows, k], equal_nan=True)
    truth = cache.best_possible
    if truth is None:
        return
    if not entry["labels"]:
        entry["metrics"]["auc_best_possible"] = None
        return
    if entry["slice"] != "all":
        return
    scenario = entry["scenario"]
    mine = np.ones(len(rows), bool)
    if scenario in (*cache.layout.scenarios, *cache.layout.segments):
        mine = np.isin(rows, cache.rows_of("test", scenario), assume_unique=True)
    known = mine & np.isfinite(targets[:, k])
    true = truth[rows, k]
    usable = known.any() and np.isfinite(true[known]).all()
    errors = np.abs(probabilities[known, k].astype(np.float64) - true[known])
    entry["metrics"]["logloss_truth"] = logloss(targets[known, k], true[known]) if usable else None
    entry["metrics"]["probability_error"] = float(errors.mean()) if usable else None
