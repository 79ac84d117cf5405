"""A trained model as a verified SavedModel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lfm4ads_tf.config import ExportConfig
from lfm4ads_tf.data.samples import read_samples, samples_among
from lfm4ads_tf.embeddings.config import EmbeddingsConfig, ServedStorage
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.exporter import export_model as export_request
from lfm4ads_tf.export.kinds.kind import kind_of
from lfm4ads_tf.export.representation_lookup import RepresentationLookup
from lfm4ads_tf.export.request import ExportRequest
from lfm4ads_tf.export.samples import ExportSamples, spread
from lfm4ads_tf.export.stored_lookups import stored_lookups
from lfm4ads_tf.export.subject import ExportSubject
from lfm4ads_tf.front.encoded_log import EncodedLog
from lfm4ads_tf.models.task_model import TaskModel
from lfm4ads_tf.pipeline.served_names import FOUNDATION, ranker_name
from lfm4ads_tf.representations.store import RepresentationStore
from lfm4ads_tf.transfer.downstream import DownstreamModel


def export_model(
    model: TaskModel,
    log: EncodedLog,
    folder: Path | str,
    *,
    scenario: str | None = None,
    name: str | None = None,
    representations: RepresentationStore | None = None,
    config: ExportConfig = ExportConfig(),  # noqa: B008 - frozen
) -> Path:
    """Exports a model for TensorFlow Serving, or publishes nothing.

    The SavedModel takes raw rows, holds TensorFlow's own ops alone, looks the representations up
    by key, and is published after another process has loaded it and found the model's scores.

    Args:
        model: An upstream or a downstream model, trained.
        log: The encoded log: its encoder becomes part of the graph, its test rows are what the
            export is held against.
        folder: Folder of all exports; the version goes to `folder/<name>/<number>`.
        scenario: Of a downstream model, the scenario that it is for; where `build_downstream` made
            it, that one when absent.
        name: `foundation`, `user_tower` or `item_tower` of an upstream; by default `foundation`, or
            `ranker_<scenario>`.
        representations: What the model was trained with, where it reads some.
        config: Type of the tables, warm-up requests, versions that are kept.

    Returns:
        The version folder. Its outputs are `<task>` (B,) float32, of a tower `representation`
        (B, d).

    Raises:
        ExportRefused: The verification failed; the message says why.
        UserError: The name does not fit the model, representations or the scenario are missing, or
            the folder cannot be written.

    Example:
        >>> import tempfile
        >>> import lfm4ads_tf as lfm
        >>> log = lfm.encode(lfm.load_spec("synthetic", {"dataset_options": {"rows": 2000}}))
        >>> upstream = lfm.FoundationModel(log.layout)
        >>> folder = tempfile.TemporaryDirectory()
        >>> version = lfm.export_model(upstream, log, folder.name)
        >>> version.relative_to(folder.name).as_posix()
        'foundation/1'
    """
    log.require_layout(model.layout)
    of_scenario = isinstance(model, DownstreamModel)
    made_for = model.origin.get("scenario")
    if scenario is not None and made_for not in (None, scenario):
        raise UserError(
            f"The model was built for scenario '{made_for}'.",
            received=f"scenario='{scenario}'",
            fix="leave the scenario out, or export the model that was built for it",
        )
    scenario = scenario or made_for
    if of_scenario and scenario is None:
        raise UserError(
            "A downstream model is exported for its scenario.",
            fix=f"export_model(..., scenario=<one of {', '.join(log.layout.scenarios)}>)",
        )
    name = name or (ranker_name(str(scenario)) if of_scenario else FOUNDATION)
    try:
        fits = kind_of(name).takes(model)
    except ValueError:
        fits = False
    if not fits:
        raise UserError(
            f"A {type(model).__name__} cannot be exported as '{name}'.",
            fix=f"use ranker_{scenario}"
            if of_scenario
            else "use foundation, user_tower or item_tower",
        )
    samples = _samples(log, scenario)
    sources = model.sources if isinstance(model, DownstreamModel) else []
    if sources and representations is None:
        raise UserError(
            "The model reads stored representations.",
            received=", ".join(sources),
            fix="export_model(..., representations=<what it was trained with>)",
        )
    joined: dict[str, np.ndarray] = {}
    lookups: dict[str, RepresentationLookup] = {}
    if representations is not None:
        log.require(representations)
        representations.require(model.origin.get("representations"))
        lookups, joined = stored_lookups(
            sources, representations, samples, log.spec.keys, config.tables
        )

    def rebuild(shards: int, storage: ServedStorage) -> TaskModel:
        def served(value: Any) -> Any:
            return value.served(shards, storage) if isinstance(value, EmbeddingsConfig) else value

        return model.rebuilt(served)

    return export_request(
        ExportRequest(
            name,
            ExportSubject(model, rebuild, lookups),
            log.encoder,
            ExportSamples(samples, joined),
            Path(folder),
            config=config,
            source={"data": log.fingerprint},
        )
    )


def _samples(log: EncodedLog, scenario: str | None) -> pa.Table:
    """Raw test rows, those of the scenario where it has some."""
    samples = read_samples(log.folder)
    if scenario is not None:
        mine = samples_among(samples, log.rows("test", scenario))
        samples = mine if len(mine) else samples
    return spread(samples)
