"""Exports of a run's chosen retrieval model: the exact and the approximate index."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lfm4ads_tf.data.samples import cache_rows
from lfm4ads_tf.export.exporter import WrittenExport, write_export
from lfm4ads_tf.export.request import ExportRequest
from lfm4ads_tf.export.samples import ExportSamples
from lfm4ads_tf.export.subject import ExportSubject
from lfm4ads_tf.export.verify_child import SCHEMA
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.pipeline.retrieval_choice import chosen_retrieval
from lfm4ads_tf.pipeline.retrieval_data import ALL
from lfm4ads_tf.pipeline.retrieval_model import REFRESHED, RetrievalModel, load_retrieval_model
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.stored_results import stored_results
from lfm4ads_tf.retrieval.index_items import IndexItems
from lfm4ads_tf.retrieval.registry import INDEXES
from lfm4ads_tf.transfer.retrieval.method import RetrievalMethod

_SAMPLE = 4096  # training users whose queries shape and tune the approximate index


_PREFIX = "retrieval_"


def retrieval_names() -> tuple[str, ...]:
    """Names of the exports of a retrieval model: one for each index of items."""
    return tuple(_PREFIX + name for name in INDEXES)


class RetrievalExports:
    """The exports of a run's chosen retrieval model.

    Args:
        run: The run.
        encoder: The encoder of its feature spec.
        samples: Raw rows for warm-up and verification, see `read_samples`.
        is_due: Whether the newest version of a name was made from something else.
        start: Called before one is made: starts what will prove it.
    """

    def __init__(
        self,
        run: Run,
        encoder: Encoder,
        samples: pa.Table,
        is_due: Callable[[str, Mapping[str, Any]], bool],
        start: Callable[[], None],
    ) -> None:
        self._start = start
        self._run, self._encoder, self._samples, self._is_due = run, encoder, samples, is_due
        self._chosen = chosen_retrieval(run)

    @property
    def names(self) -> tuple[str, ...]:
        """Their names; none where no retrieval model was trained."""
        return () if self._chosen is None else retrieval_names()

    def export(self, name: str) -> WrittenExport | None:
        """Writes one of them where its newest version is another model's."""
        source = self._source(name)
        if not self._is_due(name, source):
            return None
        self._start()
        items = self._items
        index = INDEXES[name.removeprefix(_PREFIX)].create(
            items.for_index, self._run.config.retrieval.index
        )
        scenario, method = self._known
        mine = _of_scenario(self._run, self._samples, scenario)
        joined: Mapping[str, np.ndarray] = {}
        if items.retrieval.representations is not None:
            joined = items.retrieval.representations(cache_rows(mine))
        return write_export(
            ExportRequest(
                name,
                ExportSubject(items.retrieval.model, index=index),
                self._encoder,
                ExportSamples(mine, joined),
                self._run.exports,
                config=self._run.config.export,
                source=source,
                note=method.name,
            )
        )

    @property
    def _known(self) -> tuple[str, RetrievalMethod]:
        assert self._chosen is not None  # else there are no names
        return self._chosen

    def _source(self, name: str) -> dict[str, Any]:
        """What an export is made from."""
        run, (scenario, method) = self._run, self._known
        folder = run.retrieval(scenario, method.name, run.config.seed)
        results = (folder / "results.json").read_bytes()
        source: dict[str, Any] = {
            "method": method.name,
            "scenario": scenario,
            "seed": run.config.seed,
            "training": hashlib.sha256(results).hexdigest()[:16],
            "warmup_rows": run.config.export.warmup_rows,
            "tables": run.config.export.tables,
            "k": run.config.retrieval.k,
            "contract": SCHEMA,
        }
        return source | INDEXES[name.removeprefix(_PREFIX)].settings(run.config.retrieval.index)

    @cached_property
    def _items(self) -> _Items:
        scenario, method = self._known
        return _Items(load_retrieval_model(self._run, scenario, method, self._run.config.seed))


class _Items:
    """A model's items.

    Attributes:
        part: The model.
    """

    def __init__(self, retrieval: RetrievalModel) -> None:
        self.retrieval = retrieval
        keys = retrieval.run.cache.keys("item").take(pa.array(retrieval.candidates.codes))
        texts = pc.fill_null(keys.cast(pa.string()), "").to_numpy(zero_copy_only=False)
        named = texts != ""
        self.keys = np.char.encode(texts[named].astype(str), "utf-8")
        self.vectors = retrieval.items(newest=True)[named]
        self.k = min(retrieval.run.config.retrieval.k, len(self.keys))

    @property
    def for_index(self) -> IndexItems:
        """What an index is made of."""
        return IndexItems(
            self.keys,
            self.vectors,
            self.k,
            queries=lambda: self._queries,
            seed=self.retrieval.seed,
            folder=self.retrieval.folder,
            refreshed=REFRESHED in stored_results(self.retrieval.folder / "results.json"),
        )

    @cached_property
    def _queries(self) -> np.ndarray:
        """Queries of training users, each at the user's last row."""
        rows = self.retrieval.rows
        users, last = np.unique(self.retrieval.run.cache.user[rows][::-1], return_index=True)
        rows = rows[::-1][last]
        rng = np.random.default_rng(self.retrieval.seed)
        return self.retrieval.users(rows[np.sort(rng.permutation(len(rows))[:_SAMPLE])])


def _of_scenario(run: Run, samples: pa.Table, scenario: str) -> pa.Table:
    """The samples of a scenario, where there are any."""
    key = run.spec.keys.scenario
    if key is None or scenario == ALL:
        return samples
    mine = samples.filter(pc.equal(samples[key], scenario))
    return mine if len(mine) else samples
