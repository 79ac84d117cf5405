"""Stage `retrieve`: retrieval models of every method and scenario, and their recall."""

from __future__ import annotations

import logging
import shutil
import time
from typing import Any

import numpy as np

from lfm4ads_tf.files import write_json
from lfm4ads_tf.metrics import auc
from lfm4ads_tf.pipeline.popular_items import score_popularity
from lfm4ads_tf.pipeline.pretrain import stored_results
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
from lfm4ads_tf.training.checkpoints import write_weights
from lfm4ads_tf.training.schedule import epochs
from lfm4ads_tf.training.trainer import Trainer
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
    folder = run.retrieval(scenario, method.name, seed)
    if (folder / "results.json").exists():
        stored = stored_results(folder / "results.json")
        # An earlier version of this software always left out what was seen.
        same = stored.get("exclude_seen", True) == exclude_seen
        if REFRESHED not in stored and same:
            return
        if not same:
            _LOG.info(
                "retrieval %s in '%s' seed %d is trained anew and its old model deleted: "
                "exclude_seen was %s, which chose its epoch, and is now %s",
                method.name,
                scenario,
                seed,
                *(str(of).lower() for of in (not exclude_seen, exclude_seen)),
            )
        shutil.rmtree(folder)  # scored otherwise, or a model that `refresh` carried over
    cache, config = run.cache, run.config.retrieval
    began = time.perf_counter()
    part = RetrievalModel(run, scenario, method, seed)
    if not len(part.rows):
        _LOG.warning(
            "retrieval %s in '%s' is skipped: no training row that it can use",
            method.name,
            scenario,
        )
        return
    seen = SeenItems(cache, part.column, exclude=exclude_seen)
    valid = Queries.of(cache, "valid", scenario, part.column)

    def recall_of(queries: Queries, items: np.ndarray) -> float | None:
        vectors = part.users(queries.rows)
        return recall(cache, queries, vectors, part.candidates.codes, items, seen, config.k)

    training = method.training(config)
    tables = part.model.all_embeddings
    for embeddings in tables:
        load_pretrained_tables(run, embeddings, config.embeddings)
    trainer = Trainer(
        part.model,
        tables,
        part.model.loss,
        cache,
        training,
        seed=seed,
        label=f"retrieval {scenario} {method.name} seed {seed}",
        folder=folder,
        tensorboard=run.tensorboard(folder),
        representations=part.representations,
        validate=lambda: recall_of(valid, part.items()),
        quiet=run.quiet,
    )
    result = trainer.fit(epochs(training, part.rows))
    write_weights(part.model, folder / "weights")
    wall = round(time.perf_counter() - began, 2)
    items = part.items()
    found: list[dict[str, Any]] = []
    for split in ("valid", "test"):
        for name in scored:
            queries = Queries.of(cache, split, name, part.column)
            if len(queries.rows):
                rows = rows_of(cache, split, name)
                found.append(
                    {
                        "stage": "retrieval",
                        "scenario": name,
                        "task": part.task,
                        "method": method.name,
                        "slice": "all",
                        "refresh": "frozen",
                        "seed": seed,
                        "split": split,
                        "rows": len(queries.rows),
                        "positives": len(queries.relevant),
                        "metrics": {
                            f"recall@{config.k}": recall_of(queries, items),
                            "auc": _auc(part, rows, items),
                        },
                        "wall_s": wall,
                    }
                )
    write_json(
        folder / "results.json",
        {
            "history": result.history,
            "best": result.best,
            "steps": result.steps,
            "examples_per_s": result.examples_per_s,
            "representations": part.representations_version,
            "trained_on": scenario,
            "exclude_seen": exclude_seen,
            "entries": found,
        },
    )


def _scored(run: Run, scenario: str, trained: list[str]) -> list[str]:
    """A scenario's model is scored there; that of `all` also where no other model is."""
    if scenario != ALL:
        return [scenario]
    return [ALL, *[s for s in run.cache.layout.scenarios if s not in trained]]


def _auc(part: RetrievalModel, rows: np.ndarray, items: np.ndarray) -> float | None:
    """AUC of the dot product over rows with a known label."""
    cache = part.run.cache
    labels = cache.labels[rows, part.column]
    rows, labels = rows[np.isfinite(labels)], labels[np.isfinite(labels)]
    if not len(rows):
        return None
    place = np.searchsorted(part.candidates.codes, cache.item[rows])
    scores = np.einsum("rd,rd->r", part.users(rows), items[place])
    return auc(labels, scores)
