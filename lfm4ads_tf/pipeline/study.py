"""`train.py tune`: a study of training settings on the last training periods."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.spec_file import merge, read_yaml
from lfm4ads_tf.file_names import file_name
from lfm4ads_tf.files import write_text
from lfm4ads_tf.pipeline.auto import PreparedSearch, prepared_search
from lfm4ads_tf.pipeline.downstream_plan import downstream_scenarios
from lfm4ads_tf.pipeline.prepare import prepare
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.stages import Selection
from lfm4ads_tf.tuning.budget import seconds
from lfm4ads_tf.tuning.held_out import smallest_class
from lfm4ads_tf.tuning.settings import PATHS, SCHEDULE, Settings
from lfm4ads_tf.tuning.study import Study, StudyTrial, load_optuna
from lfm4ads_tf.written import dump, plain

_LOG = logging.getLogger(__name__)
_PARTS = ("upstream", "downstream")
_SHOWN = 5


@dataclass(frozen=True)
class StudyOptions:
    """What `tune` was asked for.

    Attributes:
        part: `upstream` or `downstream`.
        scenario: Scenario of the downstream; the largest one when absent.
        trials: Trials of the study in all.
        timeout: Duration after which no further trial begins; none when absent.
    """

    part: str = "upstream"
    scenario: str | None = None
    trials: int = 30
    timeout: str | None = None

    def check(self) -> float | None:
        """Seconds of the timeout.

        Raises:
            UserError: An option is wrong, or Optuna is not installed.
        """
        if self.part not in _PARTS:
            raise UserError(
                f"--part names the unknown part '{self.part}'.{nearest(self.part, _PARTS)}",
                fix=f"use one of {', '.join(_PARTS)}",
            )
        if self.scenario is not None and self.part == "upstream":
            raise UserError(
                "The upstream has no scenario: it learns them all.",
                received=f"--part upstream --scenario {self.scenario}",
                fix="leave --scenario out, or give --part downstream",
            )
        if self.trials < 1:
            raise UserError("--trials must be at least 1.", received=self.trials)
        load_optuna()
        return None if self.timeout is None else seconds(self.timeout, "timeout")


def run_study(
    options: StudyOptions,
    run: Run,
    *,
    spec: Path,
    data_dir: Path | None,
    console: Console,
    assignments: Sequence[str] = (),
    config: Path | None = None,
    selection: Selection | None = None,
) -> None:
    """Prepares the data where they are missing, makes the trials, and writes the best settings.

    `OUT/tuning/<part>.db` holds the trials and `OUT/tuning/<part>.yaml` the best settings, a file
    for `--config` that also holds the keys of the run's own; the part of a scenario's downstream
    models is `downstream_<scenario>`.

    Args:
        options: What is tuned.
        run: What `resolve_run` gave.
        spec: The feature spec's file, for the command that is printed.
        data_dir: Folder of the data files, None where they are fetched or encoded already.
        console: Where the table is printed.
        assignments: `--set` options of the run, for the command too.
        config: The run's own `--config` file.
        selection: What the command line selected, for the command too.

    Raises:
        UserError: Anything that the user can mend.
    """
    timeout = options.check()
    run.begin()
    prepare(run, data_dir)
    scenario = _scenario(run, options)
    prepared = prepared_search(run, scenario)
    _check(prepared)
    name = options.part if scenario is None else f"{options.part}_{file_name(scenario)}"
    study = study_of(run, prepared, scenario, run.out / "tuning" / f"{name}.db")
    _LOG.info(
        "study of %s: %d training rows, scored on %d of the last training periods",
        prepared.label,
        study.log.rows,
        study.log.held,
    )
    study.run(options.trials, timeout)
    best = study.trials[0]
    path = run.out / "tuning" / f"{name}.yaml"
    write_text(path, best_yaml(run, options.part, prepared, study, config))
    console.print(_table(study, prepared))
    if best.pruned:
        console.print("[yellow]Every trial was ended early: give more --trials.[/yellow]")
    command: list[object] = ["python", "train.py", "run", "--spec", spec, "--config", path]
    command += ["--out", f"{run.out}_tuned"]
    command += [] if data_dir is None else ["--data-dir", data_dir]
    command += [argument for a in assignments for argument in ("--set", a)]
    command += (selection or Selection()).arguments()
    console.print(f"best settings: {path}")
    console.print(f"use them: {escape(shlex.join(map(str, command)))}", soft_wrap=True)


def study_of(run: Run, prepared: PreparedSearch, scenario: str | None, path: Path) -> Study:
    """The study of a part; its first trial is what the search chose, where it has run."""
    search = prepared.search
    config = run.resolved.config
    section: Any = config.upstream if scenario is None else config.downstream
    chosen = run.resolved.chosen
    known: dict[str, Any] = dict(
        chosen.upstream if scenario is None else chosen.downstream.get(scenario, {})
    )
    # What a configuration without the search trains with stands for its choice.
    start = search.start if section.training.auto else Settings.of(section)
    return Study(
        path=path,
        name=f"seed {config.seed}",
        seed=config.seed,
        log=search.log,
        start=replace(start, **known),
        fixed=prepared.fixed,
        chain=search.chain,
        run_trial=prepared.trials,
        announce=lambda trial: _announce(trial, prepared.label),
    )


def best_yaml(
    run: Run, part: str, prepared: PreparedSearch, study: Study, config: Path | None = None
) -> str:
    """Configuration keys of a file and, above them, of the best settings, under their story."""
    best = study.trials[0]
    before: Any = getattr(run.resolved.config, part)
    tuned = best.settings.apply(before, keep=prepared.fixed).model_dump(mode="json")
    document: dict[str, Any] = {"training": {"auto": False}}
    for name, path in PATHS.items():
        if name in SCHEDULE and before.training.schedule != "chain":
            continue
        *above, last = path.split(".")
        if name == "dropout":  # a list is given as a whole
            if name in prepared.fixed:
                continue
            *above, last = path.split(".")[:-1]
        source, target = tuned, document
        for step in above:
            source, target = source[step], target.setdefault(step, {})
        target[last] = source[last]
    lines = [
        f"Found by `train.py tune`: {len(study.trials)} trials of {prepared.label}, scored on",
        "the last training periods; no validation or test row was read.",
        f"Trial {best.number}: mean AUC {best.value:.4f}.",
    ]
    if config is not None:
        lines.append(f"Keys that are not searched come from {config}.")
    file_keys = (
        {}
        if config is None
        else _typed(read_yaml(config), run.resolved.config.model_dump(mode="json"))
    )
    return "".join(f"# {line}\n" for line in lines) + dump(merge(file_keys, {part: document}))


def _typed(given: Any, resolved: Any) -> Any:
    """The keys of a file as the configuration took them: only it knows a text from a number.

    A key that the file does not name stays unnamed, in layers too: what is given is not searched.
    """
    if isinstance(given, Mapping) and isinstance(resolved, Mapping):
        return {k: _typed(value, resolved[k]) for k, value in given.items() if k in resolved}
    if isinstance(given, list) and isinstance(resolved, list) and len(given) == len(resolved):
        return [_typed(*pair) for pair in zip(given, resolved, strict=True)]
    # Else `--set` gave another value, which it will give again.
    return plain(given) if isinstance(given, Mapping | list) else resolved


def _scenario(run: Run, options: StudyOptions) -> str | None:
    """The scenario whose downstream models are tuned, None for the upstream."""
    if options.part == "upstream":
        return None
    layout = run.cache.layout
    known = [*layout.scenarios, *layout.segments]
    if options.scenario is not None and options.scenario not in known:
        raise UserError(
            f"The scenario '{options.scenario}' is unknown.{nearest(options.scenario, known)}",
            fix=f"use one of {', '.join(known)}",
        )
    scenarios = [options.scenario] if options.scenario is not None else downstream_scenarios(run)
    if not scenarios or not len(run.cache.rows_of("train", scenarios[0])):
        raise UserError(
            "No scenario has enough training rows for a downstream model.",
            received=f"downstream.min_rows: {run.config.downstream.min_rows}",
            fix="name one with --scenario",
        )
    return scenarios[0]


def _check(prepared: PreparedSearch) -> None:
    """Refuses held rows that no setting could be measured on."""
    trials = prepared.trials
    labels = trials.cache.labels[trials.held]
    tasks = np.split(labels, labels.shape[1], axis=1)
    if not len(trials.rows) or not any(smallest_class(task) for task in tasks):
        raise UserError(
            f"The training of {prepared.label} cannot be tuned: the rows of its last training "
            "periods have one class.",
            received=f"{len(trials.rows)} rows to learn, {len(trials.held)} to be scored on",
            fix="train on more rows, or set what you know with --set",
        )


def _announce(trial: StudyTrial, label: str) -> None:
    state = ", ended early" if trial.pruned else ""
    _LOG.info("trial %d of %s: mean AUC %.4f%s", trial.number, label, trial.value, state)


def shown(value: float) -> str:
    """A setting as text: all digits of a whole number, six of another."""
    return str(value) if isinstance(value, int) else f"{value:g}"


def _table(study: Study, prepared: PreparedSearch) -> Table:
    """The best trials and the settings that were moved."""
    names = [n for n in PATHS if n not in prepared.fixed]
    table = Table(title=f"Best trials of {prepared.label}, mean AUC on held training rows")
    for head in ("trial", "AUC", *names):
        table.add_column(head, justify="right")
    for trial in study.trials[:_SHOWN]:
        value = f"{trial.value:.4f}" + (" (ended early)" if trial.pruned else "")
        cells = [shown(getattr(trial.settings, name)) for name in names]
        table.add_row(str(trial.number), value, *cells)
    return table
