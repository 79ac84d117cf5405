"""Stage `export`: every model of a run as a verified SavedModel."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import tf_keras

from lfm4ads_tf.data.input import RepresentationJoin
from lfm4ads_tf.data.samples import cache_rows, read_samples, samples_among
from lfm4ads_tf.embeddings.config import ServedStorage
from lfm4ads_tf.errors import ExportRefused, UserError
from lfm4ads_tf.export.exporter import WrittenExport, write_export
from lfm4ads_tf.export.kinds.kind import kind_of
from lfm4ads_tf.export.kinds.registry import KINDS
from lfm4ads_tf.export.proofs import Proofs
from lfm4ads_tf.export.publishing import ROLLED_BACK, newest_version, versions
from lfm4ads_tf.export.representation_lookup import RepresentationLookup
from lfm4ads_tf.export.request import ExportRequest
from lfm4ads_tf.export.retrieval_stage import RetrievalExports, retrieval_names
from lfm4ads_tf.export.samples import ExportSamples, spread
from lfm4ads_tf.export.stored_lookups import stored_lookups
from lfm4ads_tf.export.subject import ExportSubject
from lfm4ads_tf.export.verify_child import SCHEMA
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.choice import chosen_method, trained_scenarios
from lfm4ads_tf.pipeline.export_outcome import ExportOutcome, write_outcomes
from lfm4ads_tf.pipeline.predict import load_encoder
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.served_names import ranker_name
from lfm4ads_tf.pipeline.stored_representations import open_store
from lfm4ads_tf.pipeline.trained_models import load_downstream, load_upstream
from lfm4ads_tf.representations.store import RepresentationStore

_LOG = logging.getLogger(__name__)


def export_run(run: Run) -> None:
    """Exports the first seed's foundation model, towers, rankers and retrieval to `OUT/exports/`.

    A model whose newest version was made from the same training and method is not exported again.
    One that is refused or fails does not keep the others from being exported; what became of each
    is written to `exports.json` and `metrics.json`.

    Raises:
        UserError: Some failed for reasons that the user can mend; they are not published.
        ExportRefused: Some were refused, or failed otherwise.
    """
    with _Exports(run) as exports:
        for kind in (name for name in KINDS if KINDS[name].of_upstream):
            exports.attempt(kind, partial(exports.upstream, kind))
        for scenario in trained_scenarios(run):
            exports.attempt(ranker_name(scenario), partial(exports.ranker, scenario))
        exports.retrieval()
        exports.finish()


def export_index(run: Run) -> None:
    """Exports the retrieval index of a refreshed version where earlier ones have been exported.

    Raises:
        UserError: One failed for a reason that the user can mend; it is not published.
        ExportRefused: One was refused, or failed otherwise.
    """
    if any((run.exports / name).exists() for name in retrieval_names()):
        with _Exports(run) as exports:
            exports.retrieval()
            exports.finish()


class _Exports:
    """What all exports of a run share; left early, it removes what is not published."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.out = run.exports
        self.encoder = load_encoder(run)
        self.every_sample = read_samples(run.out / "data")
        self.samples = spread(self.every_sample)
        self.outcomes: list[ExportOutcome] = []
        self._proofs = Proofs()
        self._attempts: list[tuple[str, Future[Any]]] = []  # of each export, in order
        self._joining: tuple[tuple[str, ...], RepresentationJoin] | None = None
        self._mendable = True  # all that went wrong so far is something the user can mend

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._proofs.close()

    def attempt(self, name: str, make: Callable[[], WrittenExport | None]) -> None:
        """Makes one export, which is then proven and published beside the making of the next.

        Whatever goes wrong with one ends with it, see `finish`.

        Args:
            name: Its name.
            make: Writes it; None where the newest version is up to date.
        """
        future: Future[Any] = Future()
        try:
            with self._proofs.writing():
                written = make()
        except Exception as error:
            future.set_exception(error)
        else:
            if written is None:
                future.set_result(None)
            else:
                future = self._proofs.submit(written)
        self._attempts.append((name, future))

    def _ended(self, name: str, future: Future[Any]) -> None:
        """Waits for one export and notes what became of it."""
        try:
            future.result()
        except ExportRefused as refused:
            self._mendable = False
            self._note(ExportOutcome(name, "refused", self._version(name), str(refused)))
        except UserError as error:
            self._note(ExportOutcome(name, "failed", self._version(name), str(error)))
        except Exception as error:  # a defect of ours must not cost the others and the report
            self._mendable = False
            _LOG.exception("the export '%s' failed", name)
            reason = f"{type(error).__name__}: {error}"
            self._note(ExportOutcome(name, "failed", self._version(name), reason))
        else:
            self._note(ExportOutcome(name, "published", self._version(name)))

    def retrieval(self) -> None:
        """Exports the chosen retrieval model's indexes."""
        exports = RetrievalExports(
            self.run, self.encoder, self.samples, self.is_due, self._proofs.start
        )
        for name in exports.names:
            self.attempt(name, partial(exports.export, name))

    def finish(self) -> None:
        """Waits for the exports and writes down what became of each.

        Raises:
            UserError: Not all were published, for reasons that the user can mend.
            ExportRefused: Not all were published, for other reasons; each is told.
        """
        for name, future in self._attempts:
            self._ended(name, future)
        write_outcomes(self.run.out, self.outcomes)
        lost = [outcome for outcome in self.outcomes if outcome.state != "published"]
        if lost:
            named = ", ".join(outcome.model for outcome in lost)
            reasons = "\n".join(outcome.reason for outcome in lost)
            told = (
                f"{len(lost)} of {len(self.outcomes)} exports published nothing: {named}\n{reasons}"
            )
            raise UserError(told) if self._mendable else ExportRefused(told)

    def _note(self, outcome: ExportOutcome) -> None:
        self.outcomes.append(outcome)
        if outcome.state != "published":
            _LOG.warning("%s: %s. %s", outcome.model, outcome.state, outcome.reason)

    def _version(self, name: str) -> int | None:
        """The newest version in service."""
        return max(versions(self.out / name), default=None)

    def upstream(self, kind: str) -> WrittenExport | None:
        """Writes the upstream or one of its towers where its newest version is another's."""
        folder = self.run.upstream(self.run.config.seed)
        source = self.source(folder, "upstream")
        if not self.is_due(kind, source):
            return None
        self._proofs.start()
        evaluated = self.evaluated(folder) if kind_of(kind).predicts else None
        return self.write(
            kind,
            ExportSubject(self._upstream, self.rebuild_upstream),
            ExportSamples(self.samples, evaluated=evaluated),
            source,
        )

    @cached_property
    def _upstream(self) -> tf_keras.Model:
        """The foundation model, which three exports are made of."""
        return load_upstream(self.run, self.run.config.seed)

    def source(self, training: Path, method: str) -> dict[str, Any]:
        """What an export is made from: it tells whether a version is up to date."""
        results = (training / "results.json").read_bytes()
        return {
            "method": method,
            "seed": self.run.config.seed,
            "training": hashlib.sha256(results).hexdigest()[:16],
            "warmup_rows": self.run.config.export.warmup_rows,
            "tables": self.run.config.export.tables,
            "contract": SCHEMA,
        }

    def is_due(self, name: str, source: Mapping[str, Any]) -> bool:
        """Whether the newest version of a model, rolled back or not, was made from another one."""
        newest = newest_version(self.out / name)
        if newest is None:
            return True
        made_from = _made_from(newest)
        if made_from == source and newest.name.startswith(ROLLED_BACK):
            _LOG.warning(
                "%s is not exported again: this model was rolled back (%s); put it back with "
                "python -m lfm4ads_tf.export.rollback --restore",
                name,
                newest.name,
            )
        return made_from != source

    def evaluated(self, training: Path) -> dict[str, np.ndarray]:
        """The samples' scores in the evaluation of a training."""
        return _evaluated(training, self.samples, self.run.spec.task_names)

    def rebuild_upstream(self, shards: int, storage: ServedStorage) -> tf_keras.Model:
        """The upstream with other tables, untrained."""
        config, layout = self.run.config, self.run.cache.layout
        return build.upstream(layout, config, config.seed, shards=shards, storage=storage)

    def ranker(self, scenario: str) -> WrittenExport | None:
        """Writes one scenario's ranker; representations come with the request or by lookup."""
        run, seed = self.run, self.run.config.seed
        method = chosen_method(run, scenario)
        name = ranker_name(scenario)
        folder = run.downstream(scenario, method.name, seed)
        source = self.source(folder, method.name)
        if method.sources:
            source["representations"] = run.config.export.representations
        if not self.is_due(name, source):
            return None
        self._proofs.start()
        model = load_downstream(run, scenario, method, seed)
        store = self._store if method.sources else None
        dims = {} if store is None else store.dims

        def rebuild(shards: int, storage: ServedStorage) -> tf_keras.Model:
            layout = run.cache.layout
            return build.downstream(
                layout, run.config, method, dims, seed, shards=shards, storage=storage
            )

        samples = self._samples_of(scenario)
        evaluated = _evaluated(folder, samples, run.spec.task_names)
        joined: Mapping[str, np.ndarray] = {}
        lookups: dict[str, RepresentationLookup] = {}
        if store is not None:
            joined = self._stored_rows(tuple(method.sources))(cache_rows(samples))
            if run.config.export.representations == "lookup":
                tables = run.config.export.tables
                lookups, held = stored_lookups(
                    method.sources, store, samples, run.spec.keys, tables
                )
                # a refreshed version was evaluated with what each row's period knew
                moved = [np.any(held[name] != joined[name], axis=1) for name in held]
                for values in evaluated.values():
                    values[np.any(moved, axis=0)] = np.nan
                joined = held
        return self.write(
            name,
            ExportSubject(model, rebuild, lookups),
            ExportSamples(samples, joined, evaluated),
            source,
        )

    @cached_property
    def _store(self) -> RepresentationStore:
        return open_store(self.run, self.run.config.seed)

    def _stored_rows(self, names: tuple[str, ...]) -> RepresentationJoin:
        """Joins representations to rows; kept until others are asked for, since it reads all."""
        if self._joining is None or self._joining[0] != names:
            self._joining = None  # frees its memory first
            self._joining = (names, self._store.lookup(self.run.cache, names))
        return self._joining[1]

    def write(
        self, name: str, subject: ExportSubject, samples: ExportSamples, source: Mapping[str, Any]
    ) -> WrittenExport:
        """Writes one model under its name, which is also its kind."""
        return write_export(
            ExportRequest(
                name,
                subject,
                self.encoder,
                samples,
                self.out,
                config=self.run.config.export,
                source=source,
            )
        )

    def _samples_of(self, scenario: str) -> pa.Table:
        """The samples of a scenario or segment, all of them where it has none."""
        rows = self.run.cache.rows_of("test", scenario)
        mine = samples_among(self.every_sample, rows)
        return spread(mine) if len(mine) else self.samples


def _made_from(version: Path) -> Any:
    """What a version was made from; None where that is not told."""
    try:
        return json.loads((version / "blessing.json").read_text("utf-8"))["source"]
    except (OSError, ValueError, KeyError):
        return None


def _evaluated(training: Path, samples: pa.Table, tasks: Sequence[str]) -> dict[str, np.ndarray]:
    """The scores of samples in the evaluation of a training, NaN where it did not score them.

    Args:
        training: Folder of the training.
        samples: See `read_samples`; their moving features are `frozen`.
        tasks: The tasks.

    Returns:
        Task -> (B,) float32.
    """
    with np.load(training / "predictions.npz") as stored:
        rows, scores = stored["test_rows"], stored["test_frozen"]  # (M,), (M, T)
    if not len(rows):
        return {task: np.full(len(samples), np.nan, np.float32) for task in tasks}
    order = np.argsort(rows)
    wanted = cache_rows(samples)
    place = np.minimum(np.searchsorted(rows, wanted, sorter=order), len(rows) - 1)
    place_of_sample = order[place]  # (B,)
    known = rows[place_of_sample] == wanted
    return {
        task: np.where(known, scores[place_of_sample, t], np.nan).astype(np.float32)
        for t, task in enumerate(tasks)
    }
