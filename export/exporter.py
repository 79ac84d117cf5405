"""Writes an export beside its place, has it proven, and publishes it."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
import tf_keras

from export.blessing import bless
from export.clean_process import CleanProcess
from export.contract import write_contract
from export.evaluation import Evaluation
from export.golden import write_golden
from export.golden_rows import GoldenRows
from export.merging import Rebuild
from export.prediction_serving import PredictionServing, representation_sources
from export.publishing import new_staging, publish
from export.representation_lookup import RepresentationLookup
from export.serving_model import ServingModel
from export.tower_serving import TowerServing
from export.verify import verify_export
from export.warmup import write_warmup
from lfm4ads_tf.config import ExportConfig
from lfm4ads_tf.errors import ExportRefused, UserError
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.files import unwritable
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.transfer.downstream import DownstreamModel

_LOG = logging.getLogger(__name__)

MakeServing = Callable[[GoldenRows], ServingModel]


@dataclass(frozen=True)
class WrittenExport:
    """An export that lies beside its place and is not proven yet.

    Attributes:
        name: Name under which the model is served.
        staging: The folder that holds it.
        folder: The model's folder.
        version: The version that it becomes; the next one when absent.
        keep: How many versions stay published.
        spec: The feature spec that it must fit.
        about: What its blessing tells of it.
        note: What a log line tells of it.
    """

    name: str
    staging: Path
    folder: Path
    version: int | None
    keep: int
    spec: FeatureSpec
    about: Mapping[str, Any]
    note: str = ""

    def publish(
        self,
        *,
        process: CleanProcess | None = None,
        processors: AbstractContextManager[Any] | None = None,
    ) -> Path:
        """Proves the export, blesses it and puts it into service, or removes it.

        Args:
            process: See `verify_export`.
            processors: See `verify_export`.

        Returns:
            The version folder.

        Raises:
            ExportRefused: The verification failed.
            UserError: The folder cannot be written.
        """
        with _told(self.name, self.folder):
            try:
                report = verify_export(
                    self.staging, spec=self.spec, process=process, processors=processors
                )
                bless(self.staging, report, **self.about)
                return publish(self.staging, self.folder, self.version, self.keep)
            finally:
                self.discard()

    def discard(self) -> None:
        """Removes what is not published."""
        _remove(self.staging, self.folder)


def write_export(
    kind: str,
    model: tf_keras.Model,
    encoder: Encoder,
    *,
    out: Path,
    name: str,
    samples: pa.Table,
    representations: Mapping[str, np.ndarray] | None = None,
    evaluated: Mapping[str, np.ndarray] | None = None,
    lookups: Mapping[str, RepresentationLookup] | None = None,
    version: int | None = None,
    config: ExportConfig | None = None,
    rebuild: Rebuild | None = None,
    source: Mapping[str, Any] | None = None,
    serving: MakeServing | None = None,
    sources: Sequence[str] | None = None,
    note: str = "",
) -> WrittenExport:
    """Writes a model as a SavedModel beside `out/<name>/`, ready to be proven and published.

    The scores that it must give are computed offline: the samples and a row without any value are
    encoded as for training, then scored by the Keras model, not by the exported graph.

    Args:
        kind: `foundation`, `ranker_<scenario>`, `user_tower` or `item_tower`.
        model: An upstream, or DownstreamModel for a ranker.
        encoder: The encoder of the feature spec.
        out: Folder of all exports.
        name: Name under which the model is served.
        samples: B >= 1 raw rows with every column of the encoder, statistics and lists included.
        representations: Name -> (B, d + 1) float32 of the samples, the last column flagging
            presence; those that the model's adapters read must be there.
        evaluated: Task -> the samples' scores (B,) in the run's evaluation, NaN where a sample
            was not evaluated.
        lookups: Representations that the export looks up by key; the samples hold the keys then.
        version: A positive integer above those in use; the next one when absent.
        config: Type of the tables, number of warm-up requests and of versions that are kept.
        rebuild: Makes the model with another number of shards or type of tables; needed when its
            tables are not whole float32 ones, or other ones are wanted.
        source: What the model is, recorded in `blessing.json`.
        serving: Makes the graph from real rows; that of `kind` when absent.
        sources: Stored representations that a request holds; those of the model's adapters when
            absent.
        note: What a log line tells of it.

    Returns:
        What was written.

    Raises:
        ExportRefused: The model scores otherwise than its evaluation did, or smaller tables change
            its scores too much; the message says why.
        UserError: The name or version cannot be used, a column is missing, or the folder cannot
            be written.
        ValueError: `kind`, `model`, `samples`, `representations` and `rebuild` do not fit together.
    """
    config = config or ExportConfig()
    folder = out / name
    if not re.fullmatch(r"[^./\\\s][^/\\]*", name):
        raise UserError("An export's name must be a plain folder name.", received=repr(name))
    if not samples.num_rows:
        raise ValueError("An export needs at least one sample.")
    if version is not None and version < 1:
        raise UserError("An export's version is a positive integer.", received=version)
    if version is not None and (folder / str(version)).exists():
        raise UserError(
            f"Version {version} of '{folder.name}' exists already.", fix="leave the version out"
        )
    names = representation_sources(model) if sources is None else sources
    stored = _stored(names, representations or {}, samples.num_rows)
    keys = [encoder.spec.keys.user, encoder.spec.keys.item] if lookups else []
    rows = GoldenRows.of(samples, encoder, stored, keys)
    with _told(name, folder):
        if serving is None:
            model(rows.batch, training=False)  # creates what is created by the first call
            graph = _serving(kind, model, rows, rebuild, config, lookups)
        else:
            graph = serving(rows)
        rows = graph.decided(rows)
        roundings = graph.roundings(rows)
        of = Evaluation.of(
            graph.trained(rows),
            graph.expected(rows),
            evaluated or {},
            config.tables,
            roundings,
            # float32 tables change nothing: no item of an index need be looked at
            None if config.tables == "float32" else graph.magnitudes(rows),
        )
        if evaluated is not None and not of.rows:
            _LOG.warning("%s: none of its samples was scored in the evaluation", name)
        staging = new_staging(folder, version)
        try:
            graph.write(staging)
            requests = graph.golden(rows, of.scores, roundings)
            write_golden(staging, requests)
            write_warmup(staging, name, requests, config.warmup_rows)
            write_contract(staging, kind, graph, encoder, config.tables, roundings)
            about = {
                "model": name,
                "kind": kind,
                "source": dict(source or {}),
                "evaluation": {
                    "rows": of.rows,
                    "largest_difference": of.largest_difference,
                    "largest_share": of.largest_share,
                },
            }
        except BaseException:
            _remove(staging, folder)
            raise
    return WrittenExport(name, staging, folder, version, config.keep, encoder.spec, about, note)


def export_model(kind: str, model: tf_keras.Model, encoder: Encoder, **options: Any) -> Path:
    """Exports a model as `out/<name>/<version>/`, or publishes nothing.

    The version appears by one rename, after a separate process has loaded it and found the
    evaluation's scores on the samples, and the Keras model's on a row without any value.

    Args:
        kind: See `write_export`.
        model: See `write_export`.
        encoder: See `write_export`.
        options: Those of `write_export`.

    Returns:
        The version folder.

    Raises:
        ExportRefused: The model scores otherwise than its evaluation did, smaller tables change its
            scores too much, or the verification failed; the message says why.
        UserError: The name or version cannot be used, a column is missing, or the folder cannot
            be written.
        ValueError: The arguments do not fit together.
    """
    return write_export(kind, model, encoder, **options).publish()


@contextmanager
def _told(name: str, folder: Path) -> Iterator[None]:
    """Says of which export a refusal is, and where a folder cannot be written."""
    try:
        yield
    except ExportRefused as refused:
        raise ExportRefused(f"The export '{name}' is refused: {refused}") from refused
    except (OSError, tf.errors.PermissionDeniedError, tf.errors.ResourceExhaustedError) as error:
        raise unwritable(folder, error) from error


def _remove(staging: Path, folder: Path) -> None:
    """Removes a staging folder, and the model's where nothing else is in it."""
    shutil.rmtree(staging, ignore_errors=True)
    with suppress(OSError):  # another version or process is there
        folder.rmdir()


def _serving(
    kind: str,
    model: tf_keras.Model,
    rows: GoldenRows,
    rebuild: Rebuild | None,
    config: ExportConfig,
    lookups: Mapping[str, RepresentationLookup] | None,
) -> ServingModel:
    """The graph of a kind."""
    ranker = kind.startswith("ranker_")
    if not ranker and kind not in ("foundation", "user_tower", "item_tower"):
        raise ValueError(f"Unknown kind of export: {kind!r}.")
    if not isinstance(model, DownstreamModel if ranker else UpstreamModel):
        raise ValueError(f"A {type(model).__name__} cannot be exported as {kind!r}.")
    if kind == "user_tower":
        return TowerServing(model, "user", rows, config.tables)
    if kind == "item_tower":
        return TowerServing(model, "item", rows, config.tables)
    return PredictionServing(model, rows, rebuild=rebuild, storage=config.tables, lookups=lookups)


def _stored(
    names: Sequence[str], representations: Mapping[str, np.ndarray], rows: int
) -> dict[str, np.ndarray]:
    """The representations that are read."""
    for name in names:
        if name not in representations or len(representations[name]) != rows:
            raise ValueError(f"The model reads {name!r}: its values for {rows} rows are needed.")
    return {name: np.asarray(representations[name], np.float32) for name in names}
