"""Writes an export beside its place, has it proven, and publishes it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from lfm4ads_tf.errors import ExportRefused, UserError
from lfm4ads_tf.export.blessing import bless
from lfm4ads_tf.export.clean_process import CleanProcess
from lfm4ads_tf.export.contract import write_contract
from lfm4ads_tf.export.evaluation import Evaluation
from lfm4ads_tf.export.golden import write_golden
from lfm4ads_tf.export.golden_rows import GoldenRows
from lfm4ads_tf.export.publishing import new_staging, publish
from lfm4ads_tf.export.request import ExportRequest
from lfm4ads_tf.export.verify import verify_export
from lfm4ads_tf.export.warmup import write_warmup
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.files import unwritable

_LOG = logging.getLogger(__name__)


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


def write_export(request: ExportRequest) -> WrittenExport:
    """Writes a model as a SavedModel beside its place, ready to be proven and published.

    The scores that it must give are computed offline: the samples and a row without any value are
    encoded as for training, then scored by the Keras model, not by the exported graph.

    Returns:
        What was written.

    Raises:
        ExportRefused: The model scores otherwise than its evaluation did, or smaller tables change
            its scores too much; the message says why.
        UserError: The version exists, a column is missing, or the folder cannot be written.
        ValueError: The model's tables and the request's `rebuild` do not fit together.
    """
    config, folder, version = request.config, request.folder, request.version
    if version is not None and (folder / str(version)).exists():
        raise UserError(
            f"Version {version} of '{folder.name}' exists already.", fix="leave the version out"
        )
    subject, encoder, samples = request.subject, request.encoder, request.samples
    kind = request.made_as
    keys = [encoder.spec.keys.user, encoder.spec.keys.item] if subject.lookups else []
    stored = samples.stored(kind.sources(subject.model))
    rows = GoldenRows.of(samples.rows, encoder, stored, keys)
    with _told(request.name, folder):
        graph = kind.serving(subject, rows, config.tables)
        rows = graph.decided(rows)
        roundings = graph.roundings(rows)
        evaluation = Evaluation.of(
            graph.trained(rows),
            graph.expected(rows),
            {t: v for t, v in (samples.evaluated or {}).items() if t not in graph.auxiliary_tasks},
            config.tables,
            roundings,
            # float32 tables change nothing: no item of an index need be looked at
            None if config.tables == "float32" else graph.magnitudes(rows),
        )
        if samples.evaluated is not None and not evaluation.rows:
            _LOG.warning("%s: none of its samples was scored in the evaluation", request.name)
        staging = new_staging(folder, version)
        try:
            graph.write(staging)
            golden = graph.golden(rows, evaluation.scores, roundings)
            write_golden(staging, golden)
            write_warmup(staging, request.name, golden, config.warmup_rows)
            write_contract(staging, request.kind, graph, encoder, config.tables, roundings)
            about = {
                "model": request.name,
                "kind": request.kind,
                "source": dict(request.source),
                "evaluation": {
                    "rows": evaluation.rows,
                    "largest_difference": evaluation.largest_difference,
                    "largest_share": evaluation.largest_share,
                },
            }
        except BaseException:
            _remove(staging, folder)
            raise
    return WrittenExport(
        request.name, staging, folder, version, config.keep, encoder.spec, about, request.note
    )


def export_model(request: ExportRequest) -> Path:
    """Exports a model as `out/<name>/<version>/`, or publishes nothing.

    The version appears by one rename, after a separate process has loaded it and found the
    evaluation's scores on the samples, and the Keras model's on a row without any value.

    Returns:
        The version folder.

    Raises:
        ExportRefused: The model scores otherwise than its evaluation did, smaller tables change its
            scores too much, or the verification failed; the message says why.
        UserError: The version exists, a column is missing, or the folder cannot be written.
        ValueError: The model's tables and the request's `rebuild` do not fit together.
    """
    return write_export(request).publish()


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
