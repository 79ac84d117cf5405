"""Stage `baseline`: trees, logistic regression, popularity and the constant on the run's rows."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from lfm4ads_tf.baselines.baseline import Baseline
from lfm4ads_tf.baselines.registry import baselines_of
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.files import write_arrays, write_json
from lfm4ads_tf.pipeline.global_entries import global_entries
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.stored_results import stored_results
from lfm4ads_tf.progress import Activity

_LOG = logging.getLogger(__name__)
_INSTALL = 'pip install -e ".[bench]" in the project\'s folder'


def run_baselines(run: Run, *, asked: bool) -> None:
    """Fits and scores the configured baselines for every seed of the run.

    `OUT/baseline/<name>/seed_<s>/` holds `predictions.npz` and, when all is done, `results.json`.

    Args:
        run: The run.
        asked: Whether the stage was asked for by name. Else it does nothing where
            `baseline.enabled` is false, and one that is not installed or fails is left out with a
            warning: a run does not end for what is only compared with.

    Raises:
        UserError: A package is missing or cannot be imported, or a name is unknown.
    """
    if not asked and not run.config.baseline.enabled:
        return
    kinds = baselines_of(run.config.baseline.methods)
    lacking = [kind for kind in kinds if not _is_installed(kind)]
    broken = {
        kind: reason
        for kind in kinds
        if kind not in lacking and _is_due(run, kind) and (reason := _unloadable(kind)) is not None
    }
    fitting = [kind for kind in kinds if kind not in lacking and kind not in broken]
    if asked and len(fitting) < len(kinds):
        raise _refusal(lacking, broken, fitting)
    if lacking:
        _LOG.warning(
            "baselines without %s: no package %s (%s)",
            _listed(lacking),
            _packages(lacking),
            _INSTALL,
        )
    for kind, reason in broken.items():
        text = "baselines without %s: %s cannot be imported: %s"
        _LOG.warning(text, kind.name, kind.package, reason)
    for kind in fitting:
        try:
            for seed in run.config.all_seeds:
                with Activity(f"baseline {kind.name} seed {seed}", quiet=run.quiet):
                    fit_baseline(run, kind, seed)
        except Exception as error:
            if asked:
                raise
            _LOG.warning("baselines without %s, which failed: %s", kind.name, _reason(error))


def fit_baseline(run: Run, kind: type[Baseline], seed: int) -> None:
    """Fits one baseline and scores valid and test rows; see the folder's `results.json`.

    One that no seed changes is fitted once, and its results stand under every seed.

    Args:
        run: The run.
        kind: The baseline.
        seed: The seed.
    """
    folder = run.baseline(kind.name, seed)
    if (folder / "results.json").exists():
        return
    twins = [] if kind.seeded else [run.baseline(kind.name, s) for s in run.config.all_seeds]
    for twin in twins:
        if (twin / "results.json").exists():
            report = stored_results(twin / "results.json")
            report["entries"] = [{**entry, "seed": seed} for entry in report["entries"]]
            with np.load(twin / "predictions.npz") as stored:
                write_arrays(folder / "predictions.npz", dict(stored))
            write_json(folder / "results.json", report)
            return
    began = time.perf_counter()
    branches = run.config.upstream.branches
    made = kind(run.cache, branches=branches, seed=seed, quiet=run.quiet)
    made.fit()
    wall = time.perf_counter() - began
    identity: dict[str, Any] = {
        "stage": "baseline",
        "method": kind.name,
        "seed": seed,
        "wall_s": round(wall, 2),
    }
    entries, arrays = global_entries(run, made.predict, **identity)
    write_arrays(folder / "predictions.npz", arrays)
    report = {"history": [], "examples_per_s": None, "facts": made.facts, "entries": entries}
    write_json(folder / "results.json", report)
    _LOG.info("baseline %s seed %d: %.0f s", kind.name, seed, wall)


def _is_due(run: Run, kind: type[Baseline]) -> bool:
    """Whether a seed has no results yet."""
    folders = [run.baseline(kind.name, seed) for seed in run.config.all_seeds]
    return not all((folder / "results.json").exists() for folder in folders)


def _unloadable(kind: type[Baseline]) -> str | None:
    """Why an installed package cannot be imported, None where it can.

    LightGBM without OpenMP raises an OSError, one built for another NumPy a ValueError.
    """
    try:
        kind.load()
    except Exception as error:
        return _reason(error)
    return None


def _reason(error: Exception) -> str:
    """Type and first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _refusal(
    lacking: Sequence[type[Baseline]],
    broken: Mapping[type[Baseline], str],
    fitting: Sequence[type[Baseline]],
) -> UserError:
    """What is said where baselines that were asked for cannot be fitted."""
    received = [f"no package {_packages(lacking)}"] if lacking else []
    received += [f"{kind.package} cannot be imported: {reason}" for kind, reason in broken.items()]
    fixes = [f"install the extra: {_INSTALL}"] if lacking else []
    fixes += ["mend or reinstall what cannot be imported"] if broken else []
    names = ", ".join(kind.name for kind in fitting)
    fixes.append(f"or leave it out with --set baseline.methods=[{names}]")
    return UserError(
        f"{_listed([*lacking, *broken])} cannot be fitted.",
        received="; ".join(received),
        fix="; ".join(fixes),
    )


def _is_installed(kind: type[Baseline]) -> bool:
    return kind.package is None or find_spec(kind.package) is not None


def _listed(kinds: Sequence[type[Baseline]]) -> str:
    return " and ".join(kind.name for kind in kinds)


def _packages(kinds: Sequence[type[Baseline]]) -> str:
    """Names of the missing packages as they are imported."""
    return ", ".join(dict.fromkeys(str(kind.package) for kind in kinds))
