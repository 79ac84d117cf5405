"""Command `refresh`: new rows update data, upstream, representations and retrieval index."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import tensorflow as tf

from lfm4ads_tf.data.append import append_to
from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.new_rows import NewRows, read_files, read_folder
from lfm4ads_tf.data.raw import all_source_files
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.files import is_running, staged_folder, write_json
from lfm4ads_tf.pipeline.continuation import carry_retrieval, continue_upstream, extend_stored
from lfm4ads_tf.pipeline.one_class import warn_one_class
from lfm4ads_tf.pipeline.prepare import source_folder
from lfm4ads_tf.pipeline.run import Run, fingerprint, open_run
from lfm4ads_tf.pipeline.stored_representations import open_store
from lfm4ads_tf.pipeline.versions import (
    listed_versions,
    unfinished_folder,
    version_folder,
    write_versions,
)

_LOG = logging.getLogger(__name__)
_MARK = "refresh.json"


def refresh(
    out: Path,
    *,
    files: Sequence[Path] = (),
    data_dir: Path | None = None,
    seed: int | None = None,
    quiet: bool = False,
    export: Callable[[Run], None],
) -> Run:
    """Makes the next version of a run from new rows.

    Data, upstream, representations and retrieval model of the new version are complete before its
    folder gets its name; what there was before is not touched. A killed call goes on where it
    stopped when it is made again.

    Args:
        out: The run folder.
        files: Files of new rows, all later than the newest version's.
        data_dir: Instead, a folder with the files that the spec names; rows of periods that the
            newest version has are passed over.
        seed: The seed to refresh; all extracted ones when absent.
        quiet: Whether progress is hidden.
        export: Exports the retrieval index, called with the new version.

    Returns:
        The run in the new version's folder.

    Raises:
        UserError: The run is not extracted, or the rows do not continue it.
    """
    tf.config.experimental.enable_op_determinism()
    first = open_run(out)
    if first.version > 1:
        raise UserError(
            "This is a version's folder, not the run's own.",
            received=str(out),
            fix=f"give --out {out.parent.parent}",
        )
    tf.random.set_seed(first.config.seed)
    newest = listed_versions(first)[-1]["version"]
    parent = first if newest == 1 else open_run(version_folder(out, newest))
    if bool(files) == (data_dir is not None):
        raise UserError("Give the new rows by either --input or --data-dir.")
    if data_dir is not None:
        data_dir = source_folder(first.spec, data_dir, quiet=first.quiet)
    source = _source(first, files, data_dir)
    made = parent.cache.manifest.get("refresh", {}).get("input")
    if made == source:
        first.begin()
        _LOG.info("version %d was made from these files", newest)
        write_versions(first)
        export(parent)
        return parent
    _refuse_what_cannot_continue(parent)
    seeds = _seeds(parent, seed)
    rows = _rows(parent, files, data_dir)
    _check_labels(first, rows)
    number = newest + 1
    first.begin()
    child = _unfinished(parent, number, source, first)
    child.quiet = quiet
    _append(child, parent, rows, number, source)
    for each in seeds:
        continue_upstream(parent, child, each)
        extend_stored(parent, child, each)
        carry_retrieval(parent, child, each)
    target = version_folder(out, number)
    (child.out / _MARK).unlink()
    os.replace(child.out, target)
    write_versions(first)
    _LOG.info("version %d: %d new rows, %s", number, len(rows.time), target)
    done = open_run(target)
    export(done)
    return done


def _source(run: Run, files: Sequence[Path], data_dir: Path | None) -> str:
    """Digest of the new rows' files."""
    if data_dir is not None:
        paths = all_source_files(run.spec, data_dir)
    else:
        paths = list(files)
    stamps = []
    for path in paths:
        if not path.is_file():
            raise UserError("There is no such file.", received=str(path), fix="correct --input")
        stamps.append((path.name, path.stat().st_size, path.stat().st_mtime_ns))
    return fingerprint(stamps)


def _rows(parent: Run, files: Sequence[Path], data_dir: Path | None) -> NewRows:
    earlier = EncodedCache(parent.out / "data")
    if data_dir is not None:
        return read_folder(parent.spec, earlier, data_dir)
    return read_files(parent.spec, earlier, list(files))


def _check_labels(run: Run, rows: NewRows) -> None:
    """Refuses new rows whose labels contradict the upstream."""
    upstream, tasks = run.config.upstream, run.spec.task_names
    labels = {task: rows.feedback[:, k] for k, task in enumerate(tasks)}
    upstream.model_class.check_new_labels(upstream, labels)


def _seeds(parent: Run, seed: int | None) -> list[int]:
    """The seeds to refresh: those with an upstream and representations."""
    trained = [int(p.parent.name[5:]) for p in parent.out.glob("upstream/seed_*/results.json")]
    seeds = sorted(trained) if seed is None else [seed]
    if not seeds or not set(seeds) <= set(trained):
        raise UserError(
            f"There is no trained upstream{'' if seed is None else f' of seed {seed}'} in "
            f"'{parent.out}'.",
            fix="run the stages `pretrain` and `extract` first, or `run` for all stages",
        )
    for each in seeds:
        open_store(parent, each)
    return seeds


def _refuse_what_cannot_continue(parent: Run) -> None:
    if parent.config.representations.mode == "event":
        raise UserError(
            "Representations of the mode 'event' cannot be refreshed: they are kept per row.",
            received="representations.mode: event",
            fix="use the mode daily",
        )
    cache = parent.cache
    periods = [cache.period[cache.rows_of(name)] for name in ("train", "valid", "test")]
    if any(a.max() >= b.min() for a, b in zip(periods, periods[1:], strict=False)):
        raise UserError(
            "A refresh needs a split by periods: training, then validation, then test.",
            received="rows of one period in several splits, or a scenario that trains later than "
            "another one is tested",
            fix="declare `split: {by: <the period's column>, ...}` in the feature spec",
        )


def _unfinished(parent: Run, number: int, source: str, first: Run) -> Run:
    """The folder that the version is made in; that of other rows or another parent is emptied."""
    folder = unfinished_folder(first.out, number)
    mark = {"input": source, "parent": parent.cache.manifest["fingerprint"]}
    path = folder / _MARK
    held = json.loads(path.read_text("utf-8")) if path.exists() else {}
    owner = held.pop("process", None)
    if owner not in (None, os.getpid()) and is_running(owner):
        raise UserError(
            "Another process is refreshing this run.",
            received=f"process {owner}",
            fix="wait for its end, or stop it, and run the same command again",
        )
    if folder.exists() and held != mark:
        shutil.rmtree(folder)
    write_json(path, {**mark, "process": os.getpid()})
    config = first.resolved.config.model_copy(update={"packed_cache": None})
    resolved = first.resolved.model_copy(update={"config": config})
    (folder / "config.yaml").write_text(resolved.to_yaml(), "utf-8")
    return open_run(folder)


def _append(child: Run, parent: Run, rows: NewRows, number: int, source: str) -> None:
    """Writes the new version's data."""
    target = child.out / "data"
    if (target / "manifest.json").exists():
        return
    earlier = EncodedCache(parent.out / "data")
    manifest = {
        "fingerprint": fingerprint([earlier.manifest["fingerprint"], source]),
        "spec": child.spec.name,
        "version": number,
        "refresh": {
            "parent": number - 1,
            "new_rows": len(rows.time),
            "first_period": rows.period_values[0],
            "input": source,
        },
    }
    with staged_folder(target) as staging:
        # the child's own spec knows the columns of vectors once it has data
        append_to(staging, parent.spec, earlier, rows, manifest)
    config = child.config
    warn_one_class(child.cache, min_rows=config.downstream.min_rows, scenarios=config.scenarios)
