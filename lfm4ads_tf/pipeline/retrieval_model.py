"""A retrieval model of a run with the vectors of its items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from lfm4ads_tf.data.input import RepresentationJoin, apply, batches
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.downstream_plan import downstream_scenarios
from lfm4ads_tf.pipeline.retrieval_data import ALL, Candidates, rows_of
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.stored_representations import open_store
from lfm4ads_tf.pipeline.stored_results import stored_results
from lfm4ads_tf.pipeline.trained_models import load_upstream
from lfm4ads_tf.representations.names import representation_names
from lfm4ads_tf.training.checkpoints import read_weights
from lfm4ads_tf.transfer.retrieval.method import RetrievalMethod, parse_retrieval_method
from lfm4ads_tf.transfer.retrieval.two_vector_model import TwoVectorModel

_BATCH = 8192
REFRESHED = "refreshed_from"
"""Entry of the results of a model that an earlier version trained: that version's number."""


class RetrievalModel:
    """One method in one scenario (or `all`) for one seed, at its initial weights.

    Args:
        run: The run.
        scenario: Whose rows it is trained on.
        method: The method.
        seed: The seed.

    Attributes:
        model: The Keras model: batch -> user and item vectors.
        rows: Training rows: the positives for the `softmax` loss, all rows with a known label for
            `bce`; of those, for a projection, the rows whose item has an IR by then.
        representations: Lookup of what the model reads, None for own towers.
        candidates: The items.
    """

    def __init__(self, run: Run, scenario: str, method: RetrievalMethod, seed: int) -> None:
        config, cache = run.config.retrieval, run.cache
        self.run, self.scenario, self.method, self.seed = run, scenario, method, seed
        self.task = retrieval_task(run)
        self.column = cache.layout.tasks.index(self.task)
        self.candidates = Candidates.of(cache)
        self._ir: dict[int | None, np.ndarray] = {}
        self._store = open_store(run, seed) if method.sources else None
        self.representations: RepresentationJoin | None = None
        if self._store is not None:
            self.representations = self._store.lookup(cache, method.sources)
        train = rows_of(cache, "train", scenario)
        labels = cache.labels[train, self.column]
        positives = train[labels == 1]
        self.rows = positives if config.loss == "softmax" else train[np.isfinite(labels)]
        if self.representations is not None:
            self.rows = self._with_ir(self.rows)
            positives = self._with_ir(positives)
        counts = np.bincount(cache.item[positives], minlength=int(cache.item.max()) + 1)
        self.model = build.retriever(
            cache.layout,
            run.config,
            method,
            {} if self._store is None else self._store.dims,
            counts,
            self.column,
            seed,
        )

    @property
    def folder(self) -> Path:
        """Folder of the trained model."""
        return self.run.retrieval(self.scenario, self.method.name, self.seed)

    @property
    def representations_version(self) -> str | None:
        """Version of the stored representations that it reads."""
        return None if self._store is None else self._store.version

    def users(self, rows: np.ndarray) -> np.ndarray:
        """Query vectors of some rows, (R, d)."""
        if not len(rows):
            return np.zeros((0, self.model.dim), np.float32)
        data = batches(self.run.cache, rows, _BATCH, representations=self.representations)
        return np.concatenate([v.numpy() for v in apply(_user_side, data, self.model)])

    def items(self, *, newest: bool = False) -> np.ndarray:
        """Vectors of the candidates, (I, d): own tower's output, or IR at the end of training.

        Args:
            newest: Of a refreshed version, whether the IR of all rows are wanted instead of those
                before the validation rows.
        """
        if self.method.stored_items:
            before = self.run.version > 1 and not newest
            return self._stored_ir(self.run.held_out_from if before else None)
        data = batches(self.run.cache, self.candidates.rows, _BATCH)
        return np.concatenate([v.numpy() for v in apply(_item_side, data, self.model)])

    def _stored_ir(self, until: int | None) -> np.ndarray:
        """Stored IR; of items without an event, what the upstream's item tower gives."""
        if until in self._ir:
            return self._ir[until]
        if self._store is None:
            raise ValueError("Own towers read no stored representation.")
        cache, codes = self.run.cache, self.candidates.codes
        keys, stored = self._store.frozen("IR", until)
        code_of = {key: code for code, key in enumerate(cache.keys("item").to_pylist())}
        stored_codes = np.array([code_of.get(key, -1) for key in keys.to_pylist()], np.int64)
        vectors = np.zeros((len(codes), stored.shape[1]), np.float32)
        held = np.isin(stored_codes, codes)
        place = np.searchsorted(codes, stored_codes[held])
        vectors[place] = stored[held]
        cold = np.setdiff1d(np.arange(len(codes)), place)
        if len(cold):
            upstream = load_upstream(self.run, self.seed)
            if until is not None:
                folder = self.run.upstream(self.seed) / "snapshots"
                read_weights(upstream, folder / str(until))
            data = batches(cache, self.candidates.rows[cold], _BATCH)
            cold_ir = [v.numpy() for v in apply(_item_representation, data, upstream)]
            vectors[cold] = np.concatenate(cold_ir)
        self._ir[until] = vectors
        return vectors

    def _with_ir(self, rows: np.ndarray) -> np.ndarray:
        """The rows whose item has an IR of an earlier period."""
        if not (self.representations and self.method.stored_items and len(rows)):
            return rows
        kept = [
            chunk[self.representations(chunk)["IR"][:, -1] > 0]
            for chunk in np.array_split(rows, -(-len(rows) // _BATCH))
        ]
        return np.concatenate(kept)


def retrieval_task(run: Run) -> str:
    """The task whose positives are the relevant items.

    Raises:
        UserError: The configured one is unknown.
    """
    tasks = run.cache.layout.tasks
    task = run.config.retrieval.task or tasks[0]
    if task not in tasks:
        raise UserError(
            f"retrieval.task names the unknown task '{task}'.{nearest(task, tasks)}",
            fix=f"use one of {', '.join(tasks)}",
        )
    return task


def retrieval_methods(run: Run) -> list[RetrievalMethod]:
    """The configured retrieval methods, each once.

    Raises:
        UserError: One is unknown, or its layer is not stored.
    """
    layers = run.config.upstream.layer_names(run.spec.task_names)
    stored = representation_names(run.config.representations, layers)
    methods = [parse_retrieval_method(name, stored) for name in run.config.retrieval.methods]
    return list(dict.fromkeys(methods))


def load_retrieval_model(
    run: Run, scenario: str, method: RetrievalMethod, seed: int
) -> RetrievalModel:
    """A trained retrieval model.

    Raises:
        UserError: It was not trained yet.
    """
    loaded = RetrievalModel(run, scenario, method, seed)
    if not (loaded.folder / "results.json").exists():
        raise UserError(
            f"There is no retrieval model '{method.name}' of '{scenario}' and seed {seed} in "
            f"'{run.out}'.",
            fix="run the stage `retrieve` with this method and scenario first",
        )
    trained_with = stored_results(loaded.folder / "results.json")["representations"]
    if method.sources:
        open_store(run, seed, trained_with)
    read_weights(loaded.model, loaded.folder / "weights")
    return loaded


def retrieval_scenarios(run: Run) -> list[str]:
    """Whose positives models are trained on: `all` or scenarios, each once.

    Raises:
        UserError: A scenario is unknown.
    """
    known = [*run.cache.layout.scenarios, *run.cache.layout.segments]
    scenarios: list[str] = []
    for name in run.config.retrieval.scenarios:
        if name == "each":
            scenarios += downstream_scenarios(run)
        elif name == ALL or name in known:
            scenarios.append(name)
        else:
            raise UserError(
                f"retrieval.scenarios names the unknown '{name}'."
                + nearest(name, [ALL, "each", *known]),
                fix=f"use {ALL}, each, or some of {', '.join(known)}",
            )
    return list(dict.fromkeys(scenarios))


def _user_side(model: TwoVectorModel, batch: Any) -> tf.Tensor:
    return model.users(batch)


def _item_side(model: TwoVectorModel, batch: Any) -> tf.Tensor:
    return model.items(batch)


def _item_representation(model: Any, batch: Any) -> tf.Tensor:
    return model.represent(batch)["IR"]
