"""Skew check: logged rows through the served model, against the rows as training sees them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lfm4ads_tf.analysis.feature_drift import FeatureDrift, feature_drift
from lfm4ads_tf.analysis.value_names import ValueNames
from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.encoded_rows import encoded_rows
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.rounding import score_limit
from lfm4ads_tf.export.skew.in_process_model import InProcessModel
from lfm4ads_tf.export.skew.logged_rows import LoggedRows, read_logged_rows
from lfm4ads_tf.export.skew.offline_rows import OfflineRows
from lfm4ads_tf.export.skew.remote_model import RemoteModel
from lfm4ads_tf.export.skew.replay import SkewReplay
from lfm4ads_tf.export.skew.replay_target import ReplayTarget
from lfm4ads_tf.export.skew.report import SkewReport
from lfm4ads_tf.export.version_folders import version_folders
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.offline import encode_columns
from lfm4ads_tf.features.skew import SkewConfig
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.spec_file import load_spec
from lfm4ads_tf.pipeline.predict import load_model, scenario_of, score_encoded
from lfm4ads_tf.pipeline.run import Run, open_run
from lfm4ads_tf.pipeline.served_names import served_name

_LOG = logging.getLogger(__name__)
_TRAINING_ROWS = 1 << 18
"""Training rows that the distributions are counted in, spread evenly over all; their sampling
error is far below that of any log, and is part of the allowance."""


def check_skew(
    out: Path,
    model: str,
    path: Path,
    *,
    server: str | None = None,
    max_rows: int | None = None,
    spec: Path | None = None,
    quiet: bool = False,
) -> SkewReport:
    """Replays a log through a served model and measures its drift.

    Offline, the rows are completed, encoded and scored as `train.py predict` does it: moving
    features and representations as of the end of training, columns of side tables as the run's
    tables have them. Served, the request holds what the log holds, and the same offline values
    where it holds nothing. Rows of other scenarios than a ranker's are left out.

    Args:
        out: The run folder.
        model: `foundation` or `ranker_<scenario>`.
        path: The log, see `read_logged_rows`.
        server: `grpc://host:port` or `http://host:port` of a server that serves the model under
            its name; the newest export is loaded in this process when absent.
        max_rows: Rows to take, spread evenly over the log; all when absent.
        spec: Feature spec whose `skew` holds the limits; the run's own when absent.
        quiet: Hides progress.

    Raises:
        UserError: The run, the model, an export or the rows are not there or do not fit.
    """
    if max_rows is not None and max_rows < 1:
        raise UserError("--max-rows must be at least 1.", received=max_rows)
    run = open_run(out)
    scenario = scenario_of(run, model)
    limits = run.spec.skew if spec is None else _limits(run.spec, spec)
    folder = newest_export(run, scenario)
    contract = _contract(folder)
    data = run.out / "data"
    logged = read_logged_rows(run.spec, data, path, contract["representations"])
    logged = _chosen(run.spec, logged, scenario, max_rows, path)
    side = _offline(run, scenario, logged)
    answers: ReplayTarget = (
        InProcessModel(folder)
        if server is None
        else RemoteModel(server, folder.parent.name, run.spec)
    )
    replay = SkewReplay(run.spec, side, logged, contract)
    try:
        replay.run(answers, quiet=quiet)
    finally:
        answers.close()
    cause = f"the graph of {answers.where} encodes the same raw value in another way"
    if server is not None:
        cause += f"; it may serve another version than {folder}"
    if contract["encoding"] != side.encoder.digest:
        cause = (
            f"the export {folder} was made from another encoding (vocabularies, boundaries) than "
            "the run holds"
        )
    features = replay.features(cause)
    drift, train_rows = _drift(run, scenario, side, logged, limits)
    return SkewReport(
        model=model,
        log=str(path),
        served=answers.where,
        rows=len(logged),
        train_rows=train_rows,
        features=features,
        raw=replay.raw_columns(),
        scores=replay.scores(),
        tolerance=max(
            float(score_limit(contract, task, np.array([0.5]))[0]) for task in contract["tasks"]
        ),
        drift=drift,
    )


def newest_export(run: Run, scenario: str | None) -> Path:
    """The newest published version of a model.

    Raises:
        UserError: There is none.
    """
    name = served_name(scenario)
    folder = run.exports / name
    folders = version_folders(folder)
    served = [version for version in folders if (folders[version] / "saved_model.pb").exists()]
    if not served:
        raise UserError(
            f"The run has no export of '{name}' yet.",
            received=str(folder),
            fix="make it with `train.py export`",
        )
    return folders[max(served)]


def _offline(run: Run, scenario: str | None, logged: LoggedRows) -> OfflineRows:
    fitted = FittedEncoding.load(run.out / "data" / "encoding")
    encoder = Encoder(run.spec, fitted)
    columns = logged.offline(run.spec, run.out / "data", encoder)
    encoded = encode_columns(encoder, columns)
    network, representations = load_model(run, scenario, logged.plain)
    scores = score_encoded(network, encoded, representations)
    read = [name for name in run.spec.features if name in network.layout.features]
    return OfflineRows(encoder, fitted, columns, encoded, representations, read, scores)


def _contract(folder: Path) -> dict[str, Any]:
    """What an export says about itself.

    Raises:
        UserError: It says nothing: an earlier version made it.
    """
    path = folder / "assets.extra" / "contract.json"
    try:
        contract: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"The export '{folder}' has no readable assets.extra/contract.json.",
            received=error,
            fix="it was made by an earlier version: export the model again with `train.py export`",
        ) from error
    return contract


def _limits(ours: FeatureSpec, path: Path) -> SkewConfig:
    """The limits of a feature spec, for the features of a run."""
    limits = load_spec(path).skew
    unknown = [name for name in limits.features if name not in ours.features]
    if unknown:
        raise UserError(
            f"`skew.features` of {path} names '{unknown[0]}', which is no feature of the run.",
            fix="give the spec of the run",
        )
    return limits


def _chosen(
    spec: FeatureSpec, logged: LoggedRows, scenario: str | None, max_rows: int | None, path: Path
) -> LoggedRows:
    """The rows of a ranker's scenario or segment, at most so many."""
    mine = np.ones(len(logged), bool)
    if scenario is not None:
        by = spec.keys.scenario
        if scenario in spec.segments:
            rows = spec.segments[scenario]
            if rows.by in logged.plain:
                mine = rows.rows(logged.plain[rows.by])
        elif by is not None:
            same = pc.equal(logged.plain[by].cast(pa.string()), scenario)
            mine = pc.fill_null(same, False).to_numpy(zero_copy_only=False)
    if not mine.any():
        raise UserError(
            f"The log holds no row of '{scenario}'.", received=f"{len(logged)} rows of {path}"
        )
    if not mine.all():
        _LOG.info("%d rows are not of '%s' and left out", int((~mine).sum()), scenario)
    places = np.flatnonzero(mine)
    if max_rows is not None:
        places = _spread(places, max_rows)
    return logged if len(places) == len(logged) else logged.take(places)


def _spread(places: np.ndarray, most: int) -> np.ndarray:
    """At most so many places, evenly over all."""
    if len(places) <= most:
        return places
    return places[np.arange(most) * len(places) // most]


def _drift(
    run: Run, scenario: str | None, side: OfflineRows, logged: LoggedRows, limits: SkewConfig
) -> tuple[list[FeatureDrift], int]:
    """Drift of the rows as they were served, and the number of training rows."""
    cache = EncodedCache(run.out / "data")
    rows = _spread(cache.rows_of("train", scenario), _TRAINING_ROWS)
    columns = logged.served(side.columns)
    encoded = side.encoded
    if logged.moving or logged.tables:
        encoded = encode_columns(side.encoder, columns)
    drift = feature_drift(
        run.spec,
        side.encoder.layout,
        encoded_rows(cache, rows),
        encoded,
        columns=columns,
        names=ValueNames(run.spec, side.fitted),
        skew=limits,
        features=side.features,
    )
    return drift, len(rows)
