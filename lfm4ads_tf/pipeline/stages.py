"""Runs the stages of the pipeline in order."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from rich.console import Console

from lfm4ads_tf.baselines.registry import baselines_of
from lfm4ads_tf.config import RunConfig, resolve
from lfm4ads_tf.data.execution import Execution
from lfm4ads_tf.errors import ExportRefused, UserError
from lfm4ads_tf.optim.model_optimizers import table_rule
from lfm4ads_tf.pipeline.baseline import run_baselines
from lfm4ads_tf.pipeline.downstream_plan import downstream_scenarios, run_methods, warn_skipped
from lfm4ads_tf.pipeline.evaluate import evaluate
from lfm4ads_tf.pipeline.extract import extract
from lfm4ads_tf.pipeline.full import FULL, with_full
from lfm4ads_tf.pipeline.named_method import read_method
from lfm4ads_tf.pipeline.prepare import prepare
from lfm4ads_tf.pipeline.pretrain import check_training, pretrain
from lfm4ads_tf.pipeline.request_names import check_request_names
from lfm4ads_tf.pipeline.retrieval_model import retrieval_methods, retrieval_scenarios
from lfm4ads_tf.pipeline.retrieve import retrieve
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.tables import print_tables
from lfm4ads_tf.pipeline.transfer import transfer
from lfm4ads_tf.progress import Activity

_LOG = logging.getLogger(__name__)

_PER_SEED: dict[str, Callable[[Run, int], None]] = {
    "pretrain": pretrain,
    "extract": extract,
    "transfer": transfer,
    "retrieve": retrieve,
}
_TRAINING = ("pretrain", "transfer", "retrieve")


@dataclass(frozen=True)
class Selection:
    """What a command line selects; None leaves the configuration's own."""

    seed: int | None = None
    seeds: int | None = None
    scenarios: str | None = None
    methods: str | None = None
    budget: str | None = None

    def options(self) -> dict[str, Any]:
        """The selection as run-configuration keys."""
        chosen: dict[str, Any] = {}
        if self.seed is not None:
            chosen["seed"] = self.seed
        if self.seeds is not None:
            chosen["seeds"] = self.seeds
        if self.budget is not None:
            chosen["budget"] = self.budget
        if self.scenarios is not None:
            chosen["scenarios"] = _split(self.scenarios)
        if self.methods is not None:
            chosen["downstream"] = {"methods": _split(self.methods)}
        return chosen

    def arguments(self) -> list[str]:
        """The selection as words of a command line."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def resolve_run(
    *,
    spec: Path,
    out: Path | None,
    assignments: Sequence[str],
    selection: Selection,
    config: Path | None,
    overwrite: bool,
    quiet: bool,
    execute: Callable[[RunConfig], Execution] | None = None,
    resume_from: int | None = None,
) -> Run:
    """A run whose configuration is resolved and checked; nothing is written yet.

    Args:
        spec, out, assignments, selection, config, overwrite, quiet: As the command line has them.
        execute: Makes what the models are trained by; this process trains them when absent.

    Raises:
        UserError: Anything that the user can mend.
    """
    resolved = with_full(resolve(spec, assignments, selection.options(), config))
    execution = None if execute is None else execute(resolved.config)
    if execution is not None and execution.shards is not None:
        resolved = resolved.with_shards(execution.shards)
    run = Run(
        out or Path("runs") / resolved.spec.name,
        resolved,
        overwrite=overwrite,
        quiet=quiet,
        resume_from=resume_from,
        execution=execution,
    )
    # Kernels that sum in the order in which threads finish would make two runs differ.
    tf.config.experimental.enable_op_determinism()
    tf.random.set_seed(resolved.config.seed)
    run_methods(run)  # a wrong method name is refused before anything is written
    if run.config.retrieval.enabled:
        retrieval_methods(run)
    baselines_of(run.config.baseline.methods)
    check_request_names(run)  # so is a name that an export could not have
    sections = (run.config.upstream, run.config.downstream, run.config.retrieval)
    for training in (*(s.training for s in sections), run.config.retrieval.projection):
        table_rule(training.optimizer)  # so is a wrong option of an update rule
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
    run.execution.require_shared(run.out)
    if "transfer" in stages and FULL in run.config.downstream.methods:
        _LOG.info("method '%s': %s", FULL, read_method(run, FULL).resolved)
    first = run.execution.first  # the others of several processes only train
    if first and ("prepare" in stages or data_dir is not None):
        with Activity("prepare", quiet=run.quiet):
            prepare(run, data_dir)
    run.execution.wait()
    if "pretrain" in stages:
        check_training(run)
    for stage in stages:
        if first or stage in _TRAINING:
            with Activity(stage, quiet=run.quiet or not first):
                lost = _run_stage(stage, stages, run, console, export) or lost
    run.execution.wait()
    if run.resume_from is not None:
        _LOG.warning("--resume-from %d: no training was unfinished", run.resume_from)
    if lost is not None:
        raise lost


def _run_stage(
    stage: str,
    stages: Sequence[str],
    run: Run,
    console: Console,
    export: Callable[[Run], None],
) -> ExportRefused | UserError | None:
    """Runs one stage; what went wrong with exports is given back, so that the others are run."""
    if stage == "transfer" or (stage == "prepare" and len(stages) > 1):
        downstream_scenarios(run)  # so is a wrong scenario name
        if "retrieve" in stages and run.config.retrieval.enabled:
            retrieval_scenarios(run)
    if stage == "transfer":
        warn_skipped(run)
    if stage in _PER_SEED:
        for seed in run.config.all_seeds:
            _PER_SEED[stage](run, seed)
    elif stage == "baseline":
        run_baselines(run, asked=len(stages) == 1)
    elif stage == "evaluate":
        print_tables(evaluate(run), console)
    elif stage == "export":
        try:
            export(run)
        except (ExportRefused, UserError) as error:
            return error
    elif stage == "report":
        from lfm4ads_tf.pipeline.report import report  # Matplotlib, for this stage alone

        console.print(f"report: {report(run)}")
    return None


def _split(text: str) -> list[str]:
    """The names of a list with commas; one that holds a comma stands in double quotes."""
    parts = next(csv.reader([text], skipinitialspace=True), [])
    return [name.strip() for name in parts if name.strip()]
