"""Stage `prepare`: raw tables -> encoded cache."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.datasets import prepare_dataset
from lfm4ads_tf.data.datasets.staging import check_data_dir
from lfm4ads_tf.data.encode import encode_to
from lfm4ads_tf.data.raw import RawData, all_source_files, load_raw
from lfm4ads_tf.data.splits import TRAIN
from lfm4ads_tf.data.vectors import settle
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.kinds import NumericFeature
from lfm4ads_tf.features.name_checks import RESERVED_SCENARIOS
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.split import Period
from lfm4ads_tf.features.text_options import TextOptions
from lfm4ads_tf.files import staged_folder
from lfm4ads_tf.pipeline.one_class import warn_one_class
from lfm4ads_tf.pipeline.run import Run, fingerprint
from lfm4ads_tf.pipeline.scenario_rows import scenario_rows

_LOG = logging.getLogger(__name__)


def prepare(run: Run, data_dir: Path | None) -> EncodedCache:
    """Encodes the data once; a cache of the same spec and source is used as it is.

    Raises:
        UserError: Data are missing or wrong, or the source changed since the cache was made.
    """
    target = run.out / "data"
    if (target / "manifest.json").exists() and data_dir is None:
        return run.cache
    if (target / "manifest.json").exists() and run.version > 1:
        raise UserError(
            "The data of a refreshed version come from its refreshes.",
            received=f"--data-dir {data_dir}",
            fix="leave out --data-dir; `train.py refresh` on the run's own folder adds rows",
        )
    folder = source_folder(run.spec, data_dir, quiet=run.quiet)
    print_ = source_fingerprint(run.resolved.spec, folder)
    if (target / "manifest.json").exists():
        if run.cache.manifest["fingerprint"] == print_:
            return run.cache
        raise UserError(
            f"The data behind '{run.out}' changed since they were encoded.",
            received=f"files of {folder}",
            fix="choose another --out, or encode them again with --overwrite",
        )
    config = run.config
    upstream = config.upstream
    encode_files(
        run.resolved.spec,
        folder,
        target,
        check=partial(upstream.model_class.check_labels, upstream),
        check_scenarios=partial(upstream.model_class.check_scenario_rows, upstream),
    )
    _tell_unknown_scenarios(run)
    warn_one_class(run.cache, min_rows=config.downstream.min_rows, scenarios=config.scenarios)
    return run.cache


def encode_files(
    spec: FeatureSpec,
    folder: Path,
    target: Path,
    digest: str | None = None,
    *,
    check: Callable[[Mapping[str, np.ndarray]], None] | None = None,
    check_scenarios: Callable[[Mapping[str, int]], None] | None = None,
) -> None:
    """Encodes the files of a folder, all at once or not at all.

    Args:
        spec: The feature spec.
        folder: The raw tables.
        target: Folder of the cache, see `lfm4ads_tf.data.encode`.
        digest: Names spec and data; by default that of the spec and of the files' names, sizes and
            times.
        check: Called with task -> labels of the training rows (N,) before anything is written.
        check_scenarios: Called with scenario -> its training rows; nothing is left where it
            refuses them.

    Raises:
        UserError: Data are missing or wrong, or a check refuses the labels or scenarios.
    """
    fingerprint_ = digest or source_fingerprint(spec, folder)
    settled = settle(spec, folder)
    raw = load_raw(settled, folder)
    _check_labels(settled, raw)
    if check is not None:
        train = raw.split == TRAIN
        check({task: raw.labels[train, k] for k, task in enumerate(settled.tasks)})
    with staged_folder(target) as staging:
        encode_to(staging, settled, raw, {"fingerprint": fingerprint_, "spec": spec.name})
        if check_scenarios is not None:
            check_scenarios(scenario_rows(EncodedCache(staging)))
    _LOG.info("prepared %d rows from %s", raw.rows, folder)


def _tell_unknown_scenarios(run: Run) -> None:
    """Warns of scenarios that are asked for and that no training row is of."""
    cache = run.cache
    known = [*cache.layout.scenarios, *cache.layout.segments]
    lists: dict[str, tuple[list[str], list[str]]] = {"scenarios": (run.config.scenarios or [], [])}
    if run.config.retrieval.enabled:
        lists["retrieval.scenarios"] = (run.config.retrieval.scenarios, list(RESERVED_SCENARIOS))
    for key, (asked, others) in lists.items():
        lacking = [name for name in asked if name not in known and name not in others]
        if lacking:
            _LOG.warning(
                "%s: %d of %d are in no training row: %s; the data have %s",
                key,
                len(lacking),
                len(asked),
                ", ".join(f"'{name}'" for name in lacking),
                ", ".join(f"'{n}' ({len(cache.rows_of('train', n)):,} rows)" for n in known[:10]),
            )


def source_fingerprint(spec: FeatureSpec, folder: Path) -> str:
    """Digest of the spec's data part and of the source files' names, sizes and times."""
    files = [
        (str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns)
        for p in all_source_files(spec, folder)
    ]
    data = spec.model_dump(mode="json", exclude={"run", "thresholds", "skew"})
    return fingerprint([_without_newer_defaults(spec, data), files])


def _without_newer_defaults(spec: FeatureSpec, data: dict[str, Any]) -> dict[str, Any]:
    """The spec without keys that are newer than the first runs, where they say the default.

    Data that were encoded before a key existed are thus known again; they stay as they were.
    """
    if spec.period.first_at_most == Period.model_fields["first_at_most"].default:
        del data["period"]["first_at_most"]
    if not spec.missing:
        del data["missing"]
    for kind in ("tasks", "signals"):
        for task in data[kind].values():
            if not task["unknown"]:
                del task["unknown"]
    for name, feature in spec.features.items():
        if isinstance(feature, NumericFeature) and feature.bound == feature.default_bound:
            del data["features"][name]["bound"]
    newer = {
        "columns": [data["log"], data["auxiliary"], *data["tables"].values()],
        "key_parts": [*data["tables"].values()],
        "user_parts": [data["keys"]],
        "item_parts": [data["keys"]],
        "shuffle": [data["keys"]],
    }
    newer["columns"] += [f for f in data["features"].values() if f["kind"] == "pretrained"]
    for key, places in newer.items():
        for place in places:
            if place is not None and not place[key] and place[key] != 0:  # a seed may be 0
                del place[key]
    for table in [data["log"], data["auxiliary"] or {}, *data["tables"].values()]:
        for key, field in TextOptions.model_fields.items():
            if table.get(key) == field.default:
                del table[key]
    return data


def download_folder() -> Path:
    """Where fetched and generated data sets are kept: LFM4ADS_CACHE, or the user's cache folder."""
    chosen = os.environ.get("LFM4ADS_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "lfm4ads_tf"


def source_folder(spec: FeatureSpec, data_dir: Path | None, *, quiet: bool = False) -> Path:
    """Folder of the raw tables."""
    if spec.dataset is not None:
        return prepare_dataset(
            spec.dataset, data_dir, download_folder(), quiet=quiet, **spec.dataset_options
        )
    if data_dir is None:
        raise UserError(
            f"The spec '{spec.name}' names files of your own, and no folder was given.",
            fix="give the folder that holds them with --data-dir",
        )
    return check_data_dir(data_dir)


def _check_labels(spec: FeatureSpec, raw: RawData) -> None:
    """Every task needs both classes in the training split."""
    for k, (name, task) in enumerate(spec.tasks.items()):
        known = raw.labels[raw.split == TRAIN, k]
        classes = np.unique(known[np.isfinite(known)])
        if len(classes) < 2:
            labels = "no known label" if not len(classes) else f"only {classes[0]:.0f}"
            raise UserError(
                f"Task '{name}' has one class in the whole training split: nothing can be learnt.",
                received=f"{labels} in column '{task.label}' over {len(known)} training rows",
                fix="correct `split` or the task's label column",
            )
