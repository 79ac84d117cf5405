"""Exports of a run's chosen retrieval model: the exact and the approximate index."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from export.exporter import export_model
from export.golden_rows import GoldenRows
from export.retrieval_serving import RetrievalServing
from lfm4ads_tf.data.samples import cache_rows
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.pipeline.pretrain import stored_results
from lfm4ads_tf.pipeline.retrieval_choice import chosen_retrieval
from lfm4ads_tf.pipeline.retrieval_data import ALL
from lfm4ads_tf.pipeline.retrieval_model import REFRESHED, RetrievalModel, load_retrieval_model
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.retrieval.exact import ExactIndex
from lfm4ads_tf.retrieval.index import Index
from lfm4ads_tf.retrieval.inverted_index import InvertedIndex
from lfm4ads_tf.retrieval.partition import Partition

_LOG = logging.getLogger(__name__)
_SAMPLE = 4096  # training users whose queries shape and tune the approximate index


def export_retrieval(
    run: Run,
    encoder: Encoder,
    samples: pa.Table,
    is_due: Callable[[str, Mapping[str, Any]], bool],
) -> None:
    """Exports `retrieval_exact` and `retrieval_ann` where their newest version is another model's.

    Args:
        run: The run.
        encoder: The encoder of its feature spec.
        samples: Raw rows for warm-up and verification, see `read_samples`.
        is_due: Whether the newest version of a name was made from something else.
    """
    chosen = chosen_retrieval(run)
    if chosen is None:
        return
    scenario, method = chosen
    config = run.config.retrieval
    folder = run.retrieval(scenario, method.name, run.config.seed)
    results = (folder / "results.json").read_bytes()
    source = {
        "method": method.name,
        "scenario": scenario,
        "seed": run.config.seed,
        "training": hashlib.sha256(results).hexdigest()[:16],
        "warmup_rows": run.config.export.warmup_rows,
        "tables": run.config.export.tables,
        "k": config.k,
    }
    sources: dict[str, dict[str, Any]] = {
        "retrieval_exact": source,
        "retrieval_ann": {**source, **config.index.model_dump(mode="json")},
    }
    due = [name for name, made_from in sources.items() if is_due(name, made_from)]
    if not due:
        return
    part = load_retrieval_model(run, scenario, method, run.config.seed)
    items = _Items(part)
    mine = _of_scenario(run, samples, scenario)
    read = [] if method.source is None else [method.source]
    joined: Mapping[str, np.ndarray] = {}
    if part.representations is not None:
        joined = part.representations(cache_rows(mine))
    for name in due:
        index: Index = items.exact if name == "retrieval_exact" else items.approximate

        def graph(rows: GoldenRows, index: Index = index) -> RetrievalServing:
            return RetrievalServing(part.model, index, rows, run.config.export.tables)

        version = export_model(
            name,
            part.model,
            encoder,
            out=run.exports,
            name=name,
            samples=mine,
            representations=joined,
            config=run.config.export,
            source=sources[name],
            serving=graph,
            sources=read,
        )
        _LOG.info("exported %s version %s (%s), verified", name, version.name, method.name)


class _Items:
    """The indexes over a model's items."""

    def __init__(self, part: RetrievalModel) -> None:
        self._part = part
        keys = part.run.cache.keys("item").take(pa.array(part.candidates.codes))
        texts = pc.fill_null(keys.cast(pa.string()), "").to_numpy(zero_copy_only=False)
        named = texts != ""
        self.keys = np.char.encode(texts[named].astype(str), "utf-8")
        self.vectors = part.items(newest=True)[named]
        self.k = min(part.run.config.retrieval.k, len(self.keys))

    @property
    def exact(self) -> ExactIndex:
        """The exact index."""
        return ExactIndex(self.keys, self.vectors, k=self.k)

    @property
    def approximate(self) -> InvertedIndex:
        """The inverted lists; their centroids and probes are kept beside the model."""
        config = self._part.run.config.retrieval.index
        kept = self._part.folder / "partition.npz"
        if kept.exists() and REFRESHED in stored_results(self._part.folder / "results.json"):
            refreshed = InvertedIndex(self.keys, self.vectors, Partition.load(kept), k=self.k)
            if not refreshed.stale:
                return refreshed
            _LOG.warning("the items have moved away from the index's centroids; they are trained")
        partition = Partition.fit(
            self.vectors, self._queries, lists=config.lists, seed=self._part.seed
        )
        index = InvertedIndex(self.keys, self.vectors, partition, k=self.k)
        index = index.probing(config.probes, self._queries, recall=config.recall)
        index.partition.save(kept)
        return index

    @cached_property
    def _queries(self) -> np.ndarray:
        """Queries of training users, each at the user's last row."""
        rows = self._part.rows
        users, last = np.unique(self._part.run.cache.user[rows][::-1], return_index=True)
        rows = rows[::-1][last]
        rng = np.random.default_rng(self._part.seed)
        return self._part.users(rows[np.sort(rng.permutation(len(rows))[:_SAMPLE])])


def _of_scenario(run: Run, samples: pa.Table, scenario: str) -> pa.Table:
    """The samples of a scenario, where there are any."""
    key = run.spec.keys.scenario
    if key is None or scenario == ALL:
        return samples
    mine = samples.filter(pc.equal(samples[key], scenario))
    return mine if len(mine) else samples
