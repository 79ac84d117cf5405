"""Scores of new raw rows by a trained model of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf
import tf_keras

from lfm4ads_tf.batch import batch_of
from lfm4ads_tf.data.dropped import tell_dropped, tell_others
from lfm4ads_tf.data.requests import complete, read_requests
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.offline import encode_columns
from lfm4ads_tf.files import staged_file
from lfm4ads_tf.pipeline.choice import chosen_method, trained_scenarios
from lfm4ads_tf.pipeline.run import Run, open_run
from lfm4ads_tf.pipeline.served_names import FOUNDATION, RANKER, ranker_name
from lfm4ads_tf.pipeline.stored_representations import open_store
from lfm4ads_tf.pipeline.trained_models import load_downstream, load_upstream
from lfm4ads_tf.representations.names import is_item_side
from lfm4ads_tf.representations.store import RepresentationStore

_LOG = logging.getLogger(__name__)
_BATCH = 8192
UPSTREAM = "upstream"


def predict(out: Path, model: str, path: Path, output: Path) -> int:
    """Writes `row` (from 0), `scenario`, `task` and `score` of every new row and task.

    Which model that is, is said in the log and in the file's schema metadata, see `served`.

    Moving features and representations are taken as they were at the end of training.

    Args:
        out: The run folder.
        model: `foundation` or `ranker_<scenario>`.
        path: New rows, see `read_requests`.
        output: Parquet file.

    Returns:
        Number of scores written.

    Raises:
        UserError: The run, the model or the rows are not there or do not fit.
    """
    run = open_run(out)
    scenario = scenario_of(run, model)
    serves = served(run, model, scenario)
    stands_for = "" if serves["resolved"] == serves["method"] else f" ({serves['resolved']})"
    _LOG.info(
        "%s: method %s%s, %s, seed %s",
        *(serves["model"], serves["method"], stands_for, serves["chosen_by"], serves["seed"]),
    )
    rows = read_requests(run.spec, out / "data", path)
    encoder = load_encoder(run)
    encoded = encode_columns(encoder, complete(run.spec, out / "data", encoder, rows))
    count = len(encoded["scenario"])
    network, representations = load_model(run, scenario, rows)
    scores = score_encoded(network, encoded, representations)
    tasks = encoder.layout.tasks
    key = run.spec.keys.scenario
    names = rows[key] if key in rows else pa.array([scenario or "all"] * count)
    tell_dropped(run.spec, rows, encoded["scenario"], {"given": np.arange(count)})
    if scenario is not None:
        tell_others(run.spec, scenario, encoder.layout.scenarios, encoded["scenario"], rows)
    table = pa.table(
        {
            "row": np.repeat(np.arange(count), len(tasks)),
            "scenario": pc.cast(names, pa.string()).take(
                pa.array(np.repeat(np.arange(count), len(tasks)))
            ),
            "task": pa.array(list(tasks) * count),
            "score": scores.reshape(-1).astype(np.float32),  # (B T,)
        }
    )
    table = table.replace_schema_metadata({f"lfm4ads_tf.{k}": v for k, v in serves.items()})
    with staged_file(output) as staging:
        pq.write_table(table, staging)
    return len(table)


def served(run: Run, model: str, scenario: str | None) -> dict[str, str]:
    """Which trained model stands behind a name.

    Args:
        run: The run.
        model: The name, as given.
        scenario: What `scenario_of` gave.

    Returns:
        `model`; `method` as in results (`upstream` for the foundation model); `resolved`, what it
        stands for where it is an alias such as `full`; `chosen_by`; `seed`.
    """
    seed = str(run.config.seed)
    if scenario is None:
        method = {"method": UPSTREAM, "resolved": UPSTREAM, "chosen_by": "the only one"}
        return {"model": model, **method, "seed": seed}
    chosen = chosen_method(run, scenario)
    by = "best on validation" if run.config.export.method is None else "export.method"
    method = {"method": chosen.name, "resolved": chosen.resolved, "chosen_by": by}
    return {"model": model, **method, "seed": seed}


def scenario_of(run: Run, model: str) -> str | None:
    """Scenario or segment of a trained model by its name, None for the foundation model.

    Args:
        run: The run.
        model: `foundation`, or `ranker_` and the scenario, as it is or as its export is called.

    Raises:
        UserError: The run has no such model.
    """
    if model == FOUNDATION:
        return None
    trained = trained_scenarios(run)
    named = {RANKER + s: s for s in trained}
    exported = {ranker_name(s): s for s in trained}
    if model not in named and model not in exported:
        known = [FOUNDATION, *named]
        raise UserError(
            f"The run has no model '{model}'.{nearest(model, known)}",
            fix=f"use one of {', '.join(known)}",
        )
    # a scenario may be called as another one's export is: its own name counts
    return named[model] if model in named else exported[model]


def load_encoder(run: Run) -> Encoder:
    """The encoder that made a run's cache."""
    return Encoder(run.spec, FittedEncoding.load(run.out / "data" / "encoding"))


def load_model(
    run: Run, scenario: str | None, rows: Mapping[str, pa.Array]
) -> tuple[tf_keras.Model, dict[str, np.ndarray]]:
    """A model of the first seed and the representations that it reads, joined to some rows.

    Args:
        run: The run.
        scenario: What `scenario_of` gave.
        rows: Raw columns, the keys among them, (B,) each.

    Returns:
        The model, and representation name -> (B, d + 1) at the end of training.
    """
    seed = run.config.seed
    if scenario is None:
        return load_upstream(run, seed), {}
    method = chosen_method(run, scenario)
    model = load_downstream(run, scenario, method, seed)
    if not method.sources:
        return model, {}
    store = open_store(run, seed)
    keys = {"user": rows[run.spec.keys.user], "item": rows[run.spec.keys.item]}
    return model, {name: join_frozen(store, name, keys) for name in method.sources}


def score_encoded(
    network: tf_keras.Model,
    encoded: Mapping[str, Any],
    representations: Mapping[str, np.ndarray],
) -> np.ndarray:
    """Probabilities of encoded rows, (B, T) float32.

    Args:
        network: What `load_model` gave.
        encoded: What `encode_columns` gave.
        representations: Name -> (B, d + 1).
    """
    forward = tf.function(
        lambda batch: network.probabilities(network(batch)),
        reduce_retracing=True,
        autograph=False,
    )
    count = len(encoded["scenario"])
    batches = (
        batch_of(encoded, representations, start, min(start + _BATCH, count))
        for start in range(0, count, _BATCH)
    )
    return np.concatenate([forward(batch).numpy() for batch in batches])


def join_frozen(store: RepresentationStore, name: str, keys: Mapping[str, pa.Array]) -> np.ndarray:
    """A representation at the end of training, joined to rows by key, (B, d + 1) float32.

    Args:
        store: The stored representations.
        name: The representation.
        keys: Raw `user` and `item` keys of the rows, (B,) each.
    """
    return join_keys(*store.frozen(name), keys["item" if is_item_side(name) else "user"])


def join_keys(stored: pa.Array, vectors: np.ndarray, wanted: pa.Array) -> np.ndarray:
    """Vectors by key, (B, d + 1) float32; the last column is 1 where a key has one.

    Args:
        stored: Distinct keys (M,).
        vectors: Theirs, (M, d).
        wanted: Keys (B,).
    """
    position = pc.fill_null(pc.index_in(wanted, value_set=stored), -1)
    place = position.to_numpy(zero_copy_only=False)
    out = np.zeros((len(wanted), vectors.shape[1] + 1), np.float32)
    out[place >= 0, :-1] = vectors[place[place >= 0]]
    out[place >= 0, -1] = 1.0
    return out
