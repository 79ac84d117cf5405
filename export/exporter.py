"""Writes an export beside its place, proves it, and publishes it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
import tf_keras

from export.golden import encoded_batch, with_missing_row, write_golden
from export.merging import Rebuild
from export.serving_model import ServingModel, representation_sources
from export.verify import verify_export
from export.warmup import write_warmup
from lfm4ads_tf.errors import ExportRefused, UserError
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.files import is_running, unwritable, write_json
from lfm4ads_tf.models.batch import EncodedBatch


def export_model(
    kind: str,
    model: tf_keras.Model,
    encoder: Encoder,
    *,
    out: Path,
    name: str,
    samples: pa.Table,
    representations: Mapping[str, np.ndarray] | None = None,
    version: int | None = None,
    warmup_rows: int = 64,
    rebuild: Rebuild | None = None,
    source: Mapping[str, Any] | None = None,
    serving: Callable[[EncodedBatch], ServingModel] | None = None,
    sources: Sequence[str] | None = None,
) -> Path:
    """Exports a model as `out/<name>/<version>/`, or publishes nothing.

    The version appears by one rename, after a separate process has loaded it and found the Keras
    model's scores on the samples and on a row without any value. Those scores are computed
    offline: encoded as for training, then scored by the Keras model, not by the exported graph.

    Args:
        kind: `foundation`, `ranker_<scenario>`, `user_tower` or `item_tower`.
        model: An upstream, or DownstreamModel for a ranker.
        encoder: The encoder of the feature spec.
        out: Folder of all exports.
        name: Name under which the model is served.
        samples: B >= 1 raw rows with every column of the encoder, statistics and lists included.
        representations: Name -> (B, d + 1) float32 of the samples, the last column flagging
            presence; those that the model's adapters read must be there.
        version: A positive integer not in use; the next one when absent.
        warmup_rows: Samples written as warm-up requests, at most 1000.
        rebuild: Makes the model with another number of shards; needed when its tables are
            sharded, because an export holds merged tables.
        source: What the model is, recorded in `blessing.json`.
        serving: Makes the graph from any encoded batch; that of `kind` when absent.
        sources: Stored representations that a request holds; those of the model's adapters when
            absent.

    Returns:
        The version folder.

    Raises:
        ExportRefused: The verification failed; the message says why.
        UserError: The name or version cannot be used, a column is missing, or the folder cannot
            be written.
        ValueError: `kind`, `model`, `samples`, `representations` and `rebuild` do not fit together.
    """
    folder = out / name
    if not re.fullmatch(r"[^./\\\s][^/\\]*", name):
        raise UserError("An export's name must be a plain folder name.", received=repr(name))
    if not samples.num_rows:
        raise ValueError("An export needs at least one sample.")
    if version is not None and version < 1:
        raise UserError("An export's version is a positive integer.", received=version)
    if version is not None and (folder / str(version)).exists():
        raise UserError(
            f"Version {version} of '{name}' exists already.", fix="leave the version out"
        )
    names = representation_sources(model) if sources is None else sources
    stored = _stored(names, representations or {}, samples.num_rows)
    columns = with_missing_row(samples, encoder)
    batch = encoded_batch(encoder, columns, stored)
    staging = folder / f".staging-{version or _next_version(folder)}-{os.getpid()}"
    try:
        _clear_leftovers(folder)
        staging.mkdir(parents=True)
        if serving is None:
            model(batch, training=False)  # creates what is created by the first call
            graph = ServingModel(kind, model, encoder, batch, rebuild)
        else:
            graph = serving(batch)
        columns = graph.golden_columns(columns, batch)
        scores = {k: v.numpy() for k, v in graph.expected(batch).items()}
        graph.write(staging)
        vectors = {k: stored[k][:, :-1] for k in graph.schema.representations}
        write_golden(staging, graph.schema, columns, vectors, scores)
        examples = graph.schema.examples(columns, vectors)[:-1]  # real rows alone
        write_warmup(staging, name, examples[:warmup_rows])
        report = verify_export(staging)
        blessing = {"blessed_at": datetime.now(UTC).isoformat(timespec="seconds"), **report}
        write_json(
            staging / "blessing.json",
            {"model": name, "kind": kind, "source": dict(source or {}), **blessing},
        )
        return _publish(staging, folder, version)
    except ExportRefused as refused:
        raise ExportRefused(f"The export '{name}' is refused: {refused}") from refused
    except (OSError, tf.errors.PermissionDeniedError, tf.errors.ResourceExhaustedError) as error:
        raise unwritable(folder, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _stored(
    names: Sequence[str], representations: Mapping[str, np.ndarray], rows: int
) -> dict[str, np.ndarray]:
    """The representations that are read, with zeros for the row without any value."""
    stored = {}
    for name in names:
        if name not in representations or len(representations[name]) != rows:
            raise ValueError(f"The model reads {name!r}: its values for {rows} rows are needed.")
        values = np.asarray(representations[name], np.float32)
        stored[name] = np.concatenate([values, np.zeros_like(values[:1])])  # (B + 1, d + 1)
    return stored


def _publish(staging: Path, folder: Path, version: int | None) -> Path:
    """Renames to the version; when another process took the next free one, to the one after."""
    while True:
        target = folder / str(version or _next_version(folder))
        try:
            os.rename(staging, target)
        except OSError:
            if version is not None or not target.exists():
                raise
        else:
            return target


def _next_version(folder: Path) -> int:
    """One above the highest version."""
    taken = [int(p.name) for p in folder.glob("*") if p.name.isdigit()]
    return max(taken, default=0) + 1


def _clear_leftovers(folder: Path) -> None:
    """Removes what killed exports have left behind; running ones keep theirs."""
    for leftover in folder.glob(".staging-*"):
        owner = leftover.name.rpartition("-")[2]
        if not owner.isdigit() or not is_running(int(owner)):
            shutil.rmtree(leftover, ignore_errors=True)
