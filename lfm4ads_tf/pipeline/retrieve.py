"""Stage `retrieve`: retrieval models of every method and scenario, and their recall."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from lfm4ads_tf.metrics import auc
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.pipeline.popular_items import score_popularity
from lfm4ads_tf.pipeline.pretrained_tables import load_pretrained_tables
from lfm4ads_tf.pipeline.repeats import Repeats
from lfm4ads_tf.pipeline.retrieval_data import ALL, Queries, SeenItems, recall, rows_of
from lfm4ads_tf.pipeline.retrieval_model import (
    REFRESHED,
    RetrievalModel,
    retrieval_methods,
    retrieval_scenarios,
)
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.stored_results import RESULTS, stored_results
from lfm4ads_tf.pipeline.training_run import Scores, TrainingRun
from lfm4ads_tf.training.schedule import Phase, epochs
from lfm4ads_tf.training.trainer import Trainer, TrainingResult
from lfm4ads_tf.transfer.retrieval.method import RetrievalMethod

_LOG = logging.getLogger(__name__)


def retrieve(run: Run, seed: int) -> None:
    """Trains every configured method in every configured scenario for one seed."""
    if not run.config.retrieval.enabled:
        return
    methods, scenarios = retrieval_methods(run), retrieval_scenarios(run)
    repeats = Repeats.of(run)
    if seed == run.config.seed:
        _LOG.info("retrieval: %s", repeats.told)
    for scenario in scenarios:
        scored = _scored(run, scenario, scenarios)
        for method in methods:
            train_retrieval(
                run, scenario, method, seed, scored=scored, exclude_seen=repeats.exclude_seen
            )
        if run.execution.first:
            score_popularity(run, scenario, seed, scored=scored, repeats=repeats)


def train_retrieval(
    run: Run,
    scenario: str,
    method: RetrievalMethod,
    seed: int,
    *,
    scored: list[str],
    exclude_seen: bool = True,
) -> None:
    """Trains one model and scores its recall@k and AUC; see the folder's `results.json`.

    Each user of a split queries with the features of the user's first row there; all items of
    the log are candidates, but with `exclude_seen` the user's training positives. recall@k
    on the validation split of the model's own scenario decides which epoch is kept.

    Args:
        run: The run.
        scenario: Whose rows it is trained on, `all` for every row.
        method: The method.
        seed: The seed.
        scored: Scenarios with an entry of their own in the results.
        exclude_seen: Whether a user's training positives are no candidates.
    """
    RetrievalTraining(
        run, scenario, method, seed, scored=scored, exclude_seen=exclude_seen
    ).complete()


class RetrievalTraining(TrainingRun):
    """The retrieval model of one scenario, method and seed; arguments as of `train_retrieval`."""

    def __init__(
        self,
        run: Run,
        scenario: str,
        method: RetrievalMethod,
        seed: int,
        *,
        scored: list[str],
        exclude_seen: bool,
    ) -> None:
        folder = run.retrieval(scenario, method.name, seed)
        super().__init__(run, folder, f"retrieval {scenario} {method.name} seed {seed}")
        self.scenario, self.method, self.seed = scenario, method, seed
        self.scored, self.exclude_seen = scored, exclude_seen
        self.training = method.training(run.config.retrieval)

    def is_made(self) -> bool:
        """Whether the folder holds the model, scored alike, and not one that `refresh` carried."""
        if not super().is_made():
            return False
        return REFRESHED not in stored_results(self.folder / RESULTS) and self._scored_alike()

    def discard(self) -> None:
        """Removes the model and says so if it was scored otherwise."""
        if not self._scored_alike():
            _LOG.info(
                "retrieval %s in '%s' seed %d is trained anew and its old model deleted: "
                "exclude_seen was %s, which chose its epoch, and is now %s",
                self.method.name,
                self.scenario,
                self.seed,
                *(str(excluded).lower() for excluded in (not self.exclude_seen, self.exclude_seen)),
            )
        super().discard()

    def trainer(self) -> Trainer | None:
        """The trainer of the model at its initial weights; None without a training row."""
        run, cache, config = self.run, self.run.cache, self.run.config.retrieval
        self.part = retrieval = RetrievalModel(run, self.scenario, self.method, self.seed)
        if not len(retrieval.rows):
            _LOG.warning(
                "retrieval %s in '%s' is skipped: no training row that it can use",
                self.method.name,
                self.scenario,
            )
            return None
        self._seen = SeenItems(cache, retrieval.column, exclude=self.exclude_seen)
        valid = Queries.of(cache, "valid", self.scenario, retrieval.column)
        tables = retrieval.model.all_embeddings
        for embeddings in tables:
            load_pretrained_tables(run, embeddings, config.embeddings)
        return Trainer(
            retrieval.model,
            tables,
            Objective(
                retrieval.model.loss_terms, retrieval.model.optimizers(self.training.optimizer)
            ),
            cache,
            self.training,
            seed=self.seed,
            label=self.label,
            folder=self.folder,
            tensorboard=run.tensorboard(self.folder),
            representations=retrieval.representations,
            validate=lambda: self._recall(valid, retrieval.items()),
            quiet=run.quiet,
        )

    def phases(self) -> list[Phase]:
        """Epochs over the rows that the model can use."""
        return epochs(self.training, self.part.rows)

    def score(self, wall: float) -> Scores:
        """One entry per split and scored scenario with a query."""
        cache, retrieval = self.run.cache, self.part
        items = retrieval.items()
        entries: list[dict[str, Any]] = []
        for split in ("valid", "test"):
            for name in self.scored:
                queries = Queries.of(cache, split, name, retrieval.column)
                if len(queries.rows):
                    rows = rows_of(cache, split, name)
                    entries.append(
                        {
                            "stage": "retrieval",
                            "scenario": name,
                            "task": retrieval.task,
                            "method": self.method.name,
                            "slice": "all",
                            "refresh": "frozen",
                            "seed": self.seed,
                            "split": split,
                            "rows": len(queries.rows),
                            "positives": len(queries.relevant),
                            "metrics": {
                                f"recall@{self.run.config.retrieval.k}": self._recall(
                                    queries, items
                                ),
                                "auc": _auc(retrieval, rows, items),
                            },
                            "wall_s": wall,
                        }
                    )
        return Scores(entries)

    def report(self, result: TrainingResult) -> dict[str, Any]:
        """Curve, steps and speed, version of the representations, what was left out."""
        return {
            "history": result.history,
            "best": result.best,
            "steps": result.steps,
            "examples_per_s": result.examples_per_s,
            "representations": self.part.representations_version,
            "trained_on": self.scenario,
            "exclude_seen": self.exclude_seen,
        }

    def _scored_alike(self) -> bool:
        """Whether the folder's model left out the same items."""
        stored = stored_results(self.folder / RESULTS)
        # An earlier version of this software always left out what was seen.
        return bool(stored.get("exclude_seen", True) == self.exclude_seen)

    def _recall(self, queries: Queries, items: np.ndarray) -> float | None:
        """recall@k of some queries among the items (I, d)."""
        vectors = self.part.users(queries.rows)
        codes, k = self.part.candidates.codes, self.run.config.retrieval.k
        return recall(self.run.cache, queries, vectors, codes, items, self._seen, k)


def _scored(run: Run, scenario: str, trained: list[str]) -> list[str]:
    """A scenario's model is scored there; that of `all` also where no other model is."""
    if scenario != ALL:
        return [scenario]
    return [ALL, *[s for s in run.cache.layout.scenarios if s not in trained]]


def _auc(retrieval: RetrievalModel, rows: np.ndarray, items: np.ndarray) -> float | None:
    """AUC of the dot product over rows with a known label."""
    cache = retrieval.run.cache
    labels = cache.labels[rows, retrieval.column]
    rows, labels = rows[np.isfinite(labels)], labels[np.isfinite(labels)]
    if not len(rows):
        return None
    place = np.searchsorted(retrieval.candidates.codes, cache.item[rows])
    scores = np.einsum("rd,rd->r", retrieval.users(rows), items[place])
    return auc(labels, scores)
