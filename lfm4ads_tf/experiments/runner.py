"""Runs the experiment; a killed run goes on where it stopped."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any, Literal

import tensorflow as tf

from lfm4ads_tf.config import resolve
from lfm4ads_tf.data.datasets import prepare_dataset
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.experiments.curves import draw_curves
from lfm4ads_tf.experiments.experiment_settings import ExperimentSettings
from lfm4ads_tf.experiments.original_schedule import OriginalSchedule
from lfm4ads_tf.experiments.our_schedule import OurSchedule
from lfm4ads_tf.experiments.public_method import LAYERS, METHODS
from lfm4ads_tf.experiments.public_results import PublicResults
from lfm4ads_tf.experiments.schedule import MetricsEntry, Schedule
from lfm4ads_tf.files import write_json
from lfm4ads_tf.pipeline.prepare import download_folder, source_fingerprint
from lfm4ads_tf.progress import Progress

_LOG = logging.getLogger(__name__)
_IDENTITY = "experiment.json"
_WARNING = (
    "--schedule original trains as the authors' code does, for comparison only: its ids know the "
    "test rows, and the representation of a training row holds the row's own activation"
)
ScheduleName = Literal["ours", "original"]


def run_experiment(settings: ExperimentSettings, schedule: ScheduleName) -> PublicResults:
    """Trains every method in every tab for every trial, and writes tables and figures.

    `OUT/metrics.json`, `results.md`, `curves.svg` and `curves.png` are written after each trial.

    Raises:
        UserError: Anything that the user can mend.
    """
    # Kernels that sum in the order in which threads finish would make two runs differ.
    tf.config.experimental.enable_op_determinism()
    tf.random.set_seed(settings.seeds[0])
    training = _make(settings, schedule)
    head: dict[str, Any] = {"schedule": schedule, "rows": training.prepare()}
    weights = {tab: training.test_rows(tab) for tab in settings.tabs}
    entries: list[MetricsEntry] = []
    total = len(settings.seeds) * (1 + len(settings.tabs) * len(settings.methods))
    with Progress(f"experiment, {schedule}", total, quiet=settings.quiet) as progress:
        for count, seed in enumerate(settings.seeds, start=1):
            progress.note("upstream")
            entries += training.upstream(seed)
            progress.advance(1)
            for method in settings.methods:
                for tab in settings.tabs:
                    progress.note(f"tab {tab}, {method.label}")
                    method_entries = training.method(seed, tab, method)
                    entries += method_entries
                    progress.advance(1)
                    _LOG.info(
                        "seed %d, tab %s, %s: %s", seed, tab, method.label, _brief(method_entries)
                    )
            results = PublicResults(entries, weights)
            results.write(settings.out, **head, trials=count)
            draw_curves(results, settings.out)
    return results


def _make(settings: ExperimentSettings, schedule: ScheduleName) -> Schedule:
    """The schedule, after the output folder was checked."""
    resolved = resolve(settings.spec, settings.assignments, _options(settings))
    if resolved.spec.dataset is None:
        raise UserError(
            "The experiment needs a spec with a data set.",
            received=str(settings.spec),
            fix="use feature_specs/kuairand_public.yaml",
        )
    folder = prepare_dataset(
        resolved.spec.dataset, settings.data_dir, download_folder(), quiet=settings.quiet
    )
    data = source_fingerprint(resolved.spec, folder)
    identity = {"schedule": schedule, "data": data}
    _check_folder(settings.out, identity, overwrite=settings.overwrite)
    if schedule == "ours":
        return OurSchedule(resolved, folder, settings.out, overwrite=settings.overwrite)
    _LOG.warning("Warning: %s.", _WARNING)
    return OriginalSchedule(resolved, folder, settings.out)


def _options(settings: ExperimentSettings) -> dict[str, Any]:
    """Run-configuration keys; every method is known, whatever is selected, so that a later call
    with another selection finds the same configuration.
    """
    return {
        "seed": settings.seeds[0],
        "seeds": len(settings.seeds),
        "scenarios": list(settings.tabs),
        "representations": {"layers": list(LAYERS)},
        "downstream": {"methods": [m.name for m in METHODS if m.usage != "model"]},
        "retrieval": {"methods": [m.name for m in METHODS if m.usage == "model"]},
    }


def _check_folder(out: Path, identity: dict[str, str], *, overwrite: bool) -> None:
    """Refuses or empties a folder whose results come from another schedule or other data."""
    path = out / _IDENTITY
    known = json.loads(path.read_text("utf-8")) if path.exists() else identity
    for key, value in identity.items():
        if known.get(key) != value and not overwrite:
            raise UserError(
                f"The folder '{out}' holds the experiment with another {key}.",
                received=f"{key} {value}, there {known.get(key)}",
                fix="choose another --out, or empty it with --overwrite",
            )
    if known != identity:
        shutil.rmtree(out)
    write_json(path, identity)


def _brief(entries: list[MetricsEntry]) -> str:
    """Validation and test AUC, for the log."""
    if not entries:
        return "no training row that it can use"
    parts = []
    for entry in entries:
        value = entry["metrics"]["auc"]
        parts.append(f"{entry['split']} {'–' if value is None else f'{value:.4f}'}")
    return f"{', '.join(parts)}, {entries[0]['wall_s']:.1f} s"
