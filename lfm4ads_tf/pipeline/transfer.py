"""Stage `transfer`: per-scenario downstream models, one per method and seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from lfm4ads_tf.data.cache import Refresh
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.auto import choose_downstream
from lfm4ads_tf.pipeline.downstream_plan import downstream_scenarios, run_methods
from lfm4ads_tf.pipeline.global_entries import REFRESHES
from lfm4ads_tf.pipeline.group_rates import of_the_model
from lfm4ads_tf.pipeline.initial_weights import initialise
from lfm4ads_tf.pipeline.learning_check import Entries, unlearnt
from lfm4ads_tf.pipeline.pretrained_tables import load_pretrained_tables
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.scenario_entries import scenario_entries
from lfm4ads_tf.pipeline.scoring import mean_auc, predict_rows
from lfm4ads_tf.pipeline.stored_representations import open_store
from lfm4ads_tf.pipeline.stored_results import RESULTS, stored_results
from lfm4ads_tf.pipeline.trained_models import is_made
from lfm4ads_tf.pipeline.training_run import Scores, TrainingRun
from lfm4ads_tf.progress import Activity
from lfm4ads_tf.representations.store import RepresentationStore
from lfm4ads_tf.training.schedule import Phase, epochs
from lfm4ads_tf.training.trainer import Trainer, TrainingResult
from lfm4ads_tf.transfer.methods import Method


def transfer(run: Run, seed: int) -> None:
    """Trains every method in every scenario for one seed."""
    methods, scenarios = run_methods(run), downstream_scenarios(run)
    total = len(methods) * len(scenarios)
    with Activity(f"models of seed {seed}", total, quiet=run.quiet) as activity:
        for scenario in scenarios:
            for method in methods:
                train_downstream(run, scenario, method, seed)
                activity.advance(1)


def train_downstream(run: Run, scenario: str, method: Method, seed: int) -> None:
    """Trains one model and scores valid and test rows; see the folder's `results.json`."""
    DownstreamTraining(run, scenario, method, seed).complete()


class DownstreamTraining(TrainingRun):
    """The downstream model of one scenario, method and seed.

    Args:
        run: The run.
        scenario: The scenario or segment.
        method: The method.
        seed: The seed.
    """

    def __init__(self, run: Run, scenario: str, method: Method, seed: int) -> None:
        folder = run.downstream(scenario, method.name, seed)
        super().__init__(run, folder, f"{scenario} {method.name} seed {seed}")
        self.scenario, self.method, self.seed = scenario, method, seed

    def is_made(self) -> bool:
        """Whether the folder holds the model; the name `full` may have stood for another one.

        Raises:
            UserError: It read representations of another version.
        """
        made = is_made(self.folder, self.method)
        if made and self.method.sources:
            stored = stored_results(self.folder / RESULTS)
            open_store(self.run, self.seed, stored["representations"])
        return made

    def choose(self) -> None:
        """Chooses the settings of the scenario."""
        choose_downstream(self.run, self.scenario)

    def trainer(self) -> Trainer:
        """The trainer of the model at the weights that the method starts from."""
        run, method, seed = self.run, self.method, self.seed
        cache, config = run.cache, run.downstream_config(self.scenario)
        self._store: RepresentationStore | None = None
        if method.sources:
            self._store = open_store(run, seed)
        self._lookups = {
            refresh: None
            if self._store is None
            else self._store.lookup(cache, method.sources, refresh)
            for refresh in REFRESHES
        }
        whole = run.config.model_copy(update={"downstream": config})
        dims = {} if self._store is None else self._store.dims
        self.model = model = build.downstream(cache.layout, whole, method, dims, seed)
        if method.warm_start is None:
            load_pretrained_tables(run, model.backbone.embeddings, config.embeddings)
        training = initialise(run, model, method, self.scenario, seed)
        self._training = training = of_the_model(run, training, model, seed)
        valid = cache.rows_of("valid", self.scenario)
        return Trainer(
            model,
            model.all_embeddings,
            Objective.of(model.loss_terms, training.optimizer),
            cache,
            training,
            seed=seed,
            label=self.label,
            folder=self.folder,
            tensorboard=run.tensorboard(self.folder),
            representations=self._lookups["frozen"],
            validate=lambda: mean_auc(cache, valid, self._probabilities(valid, "frozen")),
            validate_start=method.copies,
            quiet=run.quiet,
        )

    def phases(self) -> list[Phase]:
        """Epochs over the scenario's training rows."""
        return epochs(self._training, self.run.cache.rows_of("train", self.scenario))

    def score(self, wall: float) -> Scores:
        """Entries of the scenario's valid and test rows."""
        entries, predictions = scenario_entries(
            self.run,
            self._probabilities,
            self.scenario,
            stage="downstream",
            method=self.method.name,
            seed=self.seed,
            wall_s=wall,
        )
        return Scores(entries, predictions)

    def report(self, result: TrainingResult) -> dict[str, Any]:
        """What the method stands for, curve, steps and speed, version of the representations."""
        return {
            "resolved": self.method.resolved,
            "history": result.history,
            "best": result.best,
            "steps": result.steps,
            "examples_per_s": result.examples_per_s,
            "representations": None if self._store is None else self._store.version,
        }

    def unlearnt(self, entries: Entries) -> Entries:
        """The tasks and splits on which the model is no better than a constant."""
        return unlearnt(self.run.cache, entries, self.scenario)

    def _probabilities(self, rows: np.ndarray, refresh: Refresh) -> np.ndarray:
        return predict_rows(
            self.model,
            self.run.cache,
            rows,
            refresh=refresh,
            representations=self._lookups[refresh],
        )
