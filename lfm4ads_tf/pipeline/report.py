"""Stage `report`: one self-contained page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from lfm4ads_tf import __version__
from lfm4ads_tf.analysis.artefacts import artefacts
from lfm4ads_tf.analysis.calibration_line import CalibrationLine
from lfm4ads_tf.analysis.command import command
from lfm4ads_tf.analysis.loss_curve import loss_curve
from lfm4ads_tf.analysis.page import report_page
from lfm4ads_tf.analysis.report_data import ReportData
from lfm4ads_tf.analysis.results import UPSTREAM, Results
from lfm4ads_tf.analysis.training_curve import TrainingCurve
from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.splits import SPLITS
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import OWNERS
from lfm4ads_tf.files import write_text
from lfm4ads_tf.pipeline.diagnosis import KINDS
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.stored_results import RESULTS, stored_results
from lfm4ads_tf.training.checkpoints import count_parameters

_ERA = (datetime(1980, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


def report(run: Run) -> Path:
    """Writes `OUT/report.html` and returns its path.

    Stages that were not run are left out of the page.

    Raises:
        UserError: The results were not gathered yet, or the page cannot be written.
    """
    source = run.out / "metrics.json"
    if not source.exists():
        raise UserError(
            f"The run folder '{run.out}' holds no metrics.json to report on.",
            fix="run the stage `evaluate` first, or `run` for all stages",
        )
    document = json.loads(source.read_text("utf-8"))
    cache = run.cache
    shown = _shown_names(run)
    made = datetime.fromtimestamp(source.stat().st_mtime, UTC)
    scenarios = _scenarios(cache)
    methods = list(run.config.downstream.methods)
    results = Results(document, [s["name"] for s in scenarios], methods)
    path = run.out / "report.html"
    page = report_page(
        ReportData(
            document=_renamed(document, shown),
            made=made.strftime("%Y-%m-%d %H:%M UTC"),
            versions={
                "LFM4Ads-TF": __version__,
                "TensorFlow": tf.__version__,
                "tf-keras": version("tf-keras"),
            },
            seeds=run.config.all_seeds,
            methods=methods,
            scenarios=[{**s, "name": shown[s["name"]]} for s in scenarios],
            config=run.resolved.to_yaml(),
            command=command(run.resolved),
            kinds=KINDS,
            spans=_spans(cache),
            periods=cache.manifest["periods"],
            features=_features(cache),
            thresholds={str(k): v for k, v in run.spec.thresholds.items()},
            curves=[replace(c, scenario=shown.get(c.scenario, c.scenario)) for c in _curves(run)],
            calibrations=[
                replace(line, scenario=shown.get(line.scenario, line.scenario))
                for line in _calibrations(run, results)
            ],
            tables=_tables(run),
            abundance=_of_upstreams(run, "abundance"),
            tokens=_of_upstreams(run, "tokens"),
            parameters=_parameters(run),
            artefacts=artefacts(run.out),
        )
    )
    write_text(path, page)
    return path


def _shown_names(run: Run) -> dict[str, str]:
    """Scenario -> its name on the page: bare numbers get the name of their column."""
    names = run.cache.layout.scenarios
    column = run.spec.keys.scenario
    if column is None or not any(name.isdigit() for name in names):
        return {name: name for name in names}
    return {name: f"{column} {name}" if name.isdigit() else name for name in names}


def _renamed(document: dict[str, Any], shown: Mapping[str, str]) -> dict[str, Any]:
    """The document with the scenarios' names on the page."""
    renamed = dict(document)
    for key in ("results", "comparisons", "unlearnt", "warnings"):
        renamed[key] = [
            {**e, "scenario": shown.get(e["scenario"], e["scenario"])}
            for e in document.get(key, [])  # earlier versions wrote fewer keys
        ]
    flags = document["point_in_time"]
    renamed["point_in_time"] = {shown.get(name, name): flag for name, flag in flags.items()}
    return renamed


def _scenarios(cache: EncodedCache) -> list[dict[str, Any]]:
    """Rows and mean labels of every scenario, the largest training part first."""
    scenarios = []
    for name in cache.layout.scenarios:
        rows = {split: cache.rows_of(split, name) for split in SPLITS}
        rates = {
            task: tuple(_mean(cache.labels[rows[split], k]) for split in ("train", "test"))
            for k, task in enumerate(cache.layout.tasks)
        }
        counts = {split: len(chosen) for split, chosen in rows.items()}
        if any(counts.values()):  # the auxiliary rows are a scenario outside of all splits
            scenarios.append({"name": name, **counts, "rates": rates})
    return sorted(scenarios, key=lambda s: -s["train"])


def _mean(labels: np.ndarray) -> float | None:
    known = labels[np.isfinite(labels)]
    return float(known.mean(dtype=np.float64)) if len(known) else None


def _spans(cache: EncodedCache) -> dict[str, tuple[str, str]]:
    """First and last day of every split; empty when times are no dates."""
    spans = {}
    for split in SPLITS:
        times = cache.time[cache.rows_of(split)]
        if not len(times) or times.min() < _ERA[0].timestamp() or times.max() > _ERA[1].timestamp():
            return {}
        first, last = (datetime.fromtimestamp(float(t), UTC) for t in (times.min(), times.max()))
        spans[split] = (f"{first:%Y-%m-%d}", f"{last:%Y-%m-%d} (UTC)")
    return spans


def _features(cache: EncodedCache) -> dict[str, tuple[int, int]]:
    """Owner -> embedded features, dense columns."""
    return {
        owner: (
            sum(f.owner == owner for f in cache.layout.fields),
            len(cache.layout.dense_columns(owner)),
        )
        for owner in OWNERS
    }


def _curves(run: Run) -> list[TrainingCurve]:
    """One entry per trained model of the run's seeds."""
    seeds = {f"seed_{s}" for s in run.config.all_seeds}
    curves = []
    for stage in ("upstream", "downstream", "retrieval"):
        for path in sorted((run.out / stage).rglob("results.json")):
            if path.parent.name not in seeds:
                continue
            stored = json.loads(path.read_text("utf-8"))
            loss = loss_curve(run.tensorboard(path.parent))
            curve = TrainingCurve.from_results(stage, stored, loss)
            if curve is not None:
                curves.append(curve)
    order = {m: k for k, m in enumerate(run.config.downstream.methods)}
    return sorted(curves, key=lambda c: order.get(c.method, -1))


def _calibrations(run: Run, results: Results) -> list[CalibrationLine]:
    """The upstream over all scenarios, and every scenario's transfer picked by validation."""
    seeds = run.config.all_seeds
    lines = _lines(run.cache, "all", UPSTREAM, [run.upstream(s) for s in seeds])
    for scenario in results.names("scenario", stage="downstream"):
        method = results.chosen_method(scenario)
        if method is not None:
            folders = [run.downstream(scenario, method, s) for s in seeds]
            lines += _lines(run.cache, scenario, method, folders)
    return lines


def _lines(
    cache: EncodedCache, scenario: str, method: str, folders: list[Path]
) -> list[CalibrationLine]:
    """One line per task from the stored predictions of a model's seeds, where of the labels."""
    stored = []
    for folder in folders:
        if (folder / "predictions.npz").exists():
            with np.load(folder / "predictions.npz") as arrays:
                other = arrays.get("test_of_targets", np.zeros(len(cache.layout.tasks), bool))
                stored.append((arrays["test_rows"], arrays["test_frozen"], other))
    lines = []
    for k, task in enumerate(cache.layout.tasks):
        pairs = [
            (cache.labels[rows, k], scores[:, k]) for rows, scores, other in stored if not other[k]
        ]
        line = CalibrationLine.over_seeds(scenario, method, task, pairs)
        if line is not None:
            lines.append(line)
    return lines


def _tables(run: Run) -> list[dict[str, Any]]:
    """The upstream's embedding tables; they are the same for every seed."""
    for seed in run.config.all_seeds:
        path = run.upstream(seed) / "manifest.json"
        if path.exists():
            tables = json.loads(path.read_text("utf-8"))["tables"]
            return [{"name": n, "rows": t["rows"], "dim": t["dim"]} for n, t in tables.items()]
    return []


def _of_upstreams(run: Run, key: str) -> list[list[dict[str, Any]]]:
    """Per seed, what is told of the upstream under a key; earlier versions told less."""
    paths = [run.upstream(seed) / RESULTS for seed in run.config.all_seeds]
    return [stored_results(path).get(key, []) for path in paths if path.exists()]


def _parameters(run: Run) -> dict[str, int]:
    """Parameters of the trained upstream; empty without one."""
    for seed in run.config.all_seeds:
        weights = run.upstream(seed) / "weights"
        if weights.exists():
            tables, others = count_parameters(weights)
            return {"embedding tables": tables, "all other layers": others}
    return {}
