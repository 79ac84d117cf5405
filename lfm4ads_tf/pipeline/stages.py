"""Runs the stages of the pipeline in order."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from rich.console import Console

from lfm4ads_tf.config import resolve
from lfm4ads_tf.errors import ExportRefused, UserError
from lfm4ads_tf.pipeline.evaluate import evaluate
from lfm4ads_tf.pipeline.extract import extract
from lfm4ads_tf.pipeline.prepare import prepare
from lfm4ads_tf.pipeline.pretrain import pretrain
from lfm4ads_tf.pipeline.request_names import check_request_names
from lfm4ads_tf.pipeline.retrieval_model import retrieval_methods, retrieval_scenarios
from lfm4ads_tf.pipeline.retrieve import retrieve
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.tables import print_tables
from lfm4ads_tf.pipeline.transfer import downstream_scenarios, run_methods, transfer, warn_skipped
from lfm4ads_tf.training.step import table_rule

_PER_SEED: dict[str, Callable[[Run, int], None]] = {
    "pretrain": pretrain,
    "extract": extract,
    "transfer": transfer,
    "retrieve": retrieve,
}


@dataclass(frozen=True)
class Selection:
    """What a command line selects; None leaves the configuration's own."""

    seed: int | None = None
    seeds: int | None = None
    scenarios: str | None = None
    methods: str | None = None

    def options(self) -> dict[str, Any]:
        """The selection as run-configuration keys."""
        chosen: dict[str, Any] = {}
        if self.seed is not None:
            chosen["seed"] = self.seed
        if self.seeds is not None:
            chosen["seeds"] = self.seeds
        if self.scenarios is not None:
            chosen["scenarios"] = _split(self.scenarios)
        if self.methods is not None:
            chosen["downstream"] = {"methods": _split(self.methods)}
        return chosen


def resolve_run(
    *,
    spec: Path,
    out: Path | None,
    assignments: Sequence[str],
    selection: Selection,
    config: Path | None,
    overwrite: bool,
    quiet: bool,
) -> Run:
    """A run whose configuration is resolved and checked; nothing is written yet.

    Raises:
        UserError: Anything that the user can mend.
    """
    resolved = resolve(spec, assignments, selection.options(), config)
    run = Run(out or Path("runs") / resolved.spec.name, resolved, overwrite=overwrite, quiet=quiet)
    # Kernels that sum in the order in which threads finish would make two runs differ.
    tf.config.experimental.enable_op_determinism()
    tf.random.set_seed(resolved.config.seed)
    run_methods(run)  # a wrong method name is refused before anything is written
    if run.config.retrieval.enabled:
        retrieval_methods(run)
    check_request_names(run)  # so is a name that an export could not have
    for part in (run.config.upstream, run.config.downstream, run.config.retrieval):
        table_rule(part.training.optimizer)  # so is a wrong option of an update rule
    return run


def run_stages(
    stages: Sequence[str],
    run: Run,
    *,
    data_dir: Path | None,
    console: Console,
    export: Callable[[Run], None],
) -> None:
    """Runs some stages of a run; each goes on from what the run folder holds.

    Args:
        stages: Their names, in order.
        run: What `resolve_run` gave.
        data_dir: Folder of the data files, None where they are fetched or encoded already.
        console: Where tables are printed.
        export: Exports a run; `export` is no part of this package.

    Raises:
        UserError: Anything that the user can mend; where it is about exports, the stages after
            them have been run.
        ExportRefused: An export was refused or failed; the stages after it have been run.
    """
    lost: ExportRefused | UserError | None = None
    run.begin()
    if "prepare" in stages or data_dir is not None:
        prepare(run, data_dir)
    for stage in stages:
        if stage == "transfer" or (stage == "prepare" and len(stages) > 1):
            downstream_scenarios(run)  # so is a wrong scenario name
            if "retrieve" in stages and run.config.retrieval.enabled:
                retrieval_scenarios(run)
        if stage == "transfer":
            warn_skipped(run)
        if stage in _PER_SEED:
            for seed in run.config.all_seeds:
                _PER_SEED[stage](run, seed)
        elif stage == "evaluate":
            print_tables(evaluate(run), console)
        elif stage == "export":
            try:
                export(run)
            except (ExportRefused, UserError) as error:
                lost = error
        elif stage == "report":
            from lfm4ads_tf.pipeline.report import report  # Matplotlib, for this stage alone

            console.print(f"report: {report(run)}")
    if lost is not None:
        raise lost


def _split(text: str) -> list[str]:
    """The names of a list with commas; one that holds a comma stands in double quotes."""
    parts = next(csv.reader([text], skipinitialspace=True), [])
    return [part.strip() for part in parts if part.strip()]
