"""LFM4Ads-TF's command line: parses, calls, prints; `train.py` and `lfm4ads-train` run it."""

from __future__ import annotations

import inspect
import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from lfm4ads_tf.cluster.cluster_lost import ClusterLost
from lfm4ads_tf.cluster.exit_codes import TRY_AGAIN
from lfm4ads_tf.errors import ExportRefused, UserError
from lfm4ads_tf.features.shipped_specs import DEFAULT, shipped_specs
from lfm4ads_tf.leave import leave
from lfm4ads_tf.progress import Activity
from lfm4ads_tf.quiet import native_stderr_hidden

if TYPE_CHECKING:
    from lfm4ads_tf.pipeline.cluster_task import ClusterTask
    from lfm4ads_tf.pipeline.run import Run

DEFAULT_SPEC = shipped_specs()[DEFAULT]

app = typer.Typer(
    help="Foundation-model transfer for ads recommendation. Without a command: the whole pipeline.",
    invoke_without_command=True,
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
)

SpecOption = Annotated[
    Path, typer.Option("--spec", help="Feature spec: a YAML file, or the name of a shipped one.")
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder with the data files; fetched when left out."),
]
OutOption = Annotated[Path | None, typer.Option("--out", help="Run folder [runs/<spec>].")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="key.path=value: overrides a configuration or spec key."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="YAML file of configuration keys, above the spec's own."),
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="First seed.")]
SeedsOption = Annotated[int | None, typer.Option("--seeds", help="Number of seeds.")]
ScenariosOption = Annotated[
    str | None, typer.Option("--scenarios", help="Downstream scenarios, comma-separated.")
]
MethodsOption = Annotated[
    str | None, typer.Option("--methods", help="Transfer methods, comma-separated.")
]
BudgetOption = Annotated[
    str | None,
    typer.Option("--budget", help="What the search for training settings may cost [5m]."),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Empty a run folder of another configuration.")
]
ClusterOption = Annotated[
    str | None,
    typer.Option("--cluster", help="Train on a cluster: a YAML file, or env for TF_CONFIG."),
]
TaskOption = Annotated[
    str | None,
    typer.Option("--task", help="This process' place in --cluster, as worker:0 [TF_CONFIG's]."),
]
ResumeOption = Annotated[
    int | None,
    typer.Option(
        "--resume-from",
        help="Kept checkpoint that the unfinished training goes on from [the latest].",
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Hide progress.")]

STAGES = (
    "prepare", "pretrain", "extract", "transfer", "retrieve", "baseline", "evaluate", "export",
    "report",
)  # fmt: skip
_JOINED: list[ClusterTask] = []  # the task that this process is, if it is one
_TRAINING = ("run", "pretrain", "transfer", "retrieve")
_HELP = {
    "run": "Run all stages.",
    "prepare": "Encode the data once.",
    "pretrain": "Train the upstream foundation model.",
    "extract": "Store UR, IR and CR of every period.",
    "transfer": "Train the downstream models of every scenario and method.",
    "retrieve": "Train and score the own-tower retriever.",
    "baseline": "Fit trees, logistic regression, popularity and a constant to compare with.",
    "evaluate": "Write metrics.json and print the tables.",
    "export": "Export verified SavedModels.",
    "report": "Write report.html.",
}


def _command(name: str) -> Callable[..., None]:
    """A command that runs one stage, or all of them."""

    def command(
        spec: SpecOption = DEFAULT_SPEC,
        data_dir: DataOption = None,
        out: OutOption = None,
        config: ConfigOption = None,
        assignments: SetOption = None,
        seed: SeedOption = None,
        seeds: SeedsOption = None,
        scenarios: ScenariosOption = None,
        methods: MethodsOption = None,
        budget: BudgetOption = None,
        cluster: ClusterOption = None,
        task: TaskOption = None,
        overwrite: OverwriteOption = False,
        resume_from: ResumeOption = None,
        quiet: QuietOption = False,
    ) -> None:
        with native_stderr_hidden():  # TensorFlow's start-up banner
            from lfm4ads_tf.pipeline.stages import Selection, resolve_run, run_stages

        member = _cluster_task(cluster, task)
        if member is not None and not member.runs_stages:
            member.serve()
        run = resolve_run(
            spec=spec,
            out=out,
            assignments=assignments or [],
            selection=Selection(
                seed=seed, seeds=seeds, scenarios=scenarios, methods=methods, budget=budget
            ),
            config=config,
            overwrite=overwrite,
            quiet=quiet,
            execute=None if member is None else member.execute,
            resume_from=resume_from,
        )
        stages = STAGES if name == "run" else (name,)
        run_stages(stages, run, data_dir=data_dir, console=_console(), export=_export)

    command.__doc__ = _HELP[name]
    if name not in _TRAINING:
        signature = inspect.signature(command, eval_str=True)  # as typer reads it
        kept = [p for p in signature.parameters.values() if p.name != "resume_from"]
        command.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    return command


for _name in _HELP:
    app.command(_name)(_command(_name))


@app.command()
def sweep(
    spec: SpecOption = DEFAULT_SPEC,
    data_dir: DataOption = None,
    out: OutOption = None,
    config: ConfigOption = None,
    assignments: SetOption = None,
    seed: SeedOption = None,
    seeds: SeedsOption = None,
    scenarios: ScenariosOption = None,
    methods: Annotated[
        str | None, typer.Option("--methods", help="Further methods to compare, comma-separated.")
    ] = None,
    levels: Annotated[
        str, typer.Option("--levels", help="Granularities: feature, module.")
    ] = "feature,module",
    layers: Annotated[
        str | None,
        typer.Option("--layers", help="Upstream layers, comma-separated; all when left out."),
    ] = None,
    adapters: Annotated[
        str, typer.Option("--adapters", help="Adapters of the feature level.")
    ] = "linear,gate,mlp",
    sides: Annotated[
        str, typer.Option("--sides", help="Whose CR is read: user, item, both.")
    ] = "user",
    task: Annotated[
        str | None,
        typer.Option("--task", help="Task that ranks; the mean over tasks when left out."),
    ] = None,
    budget: BudgetOption = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Rank layers, granularities and adapters on validation and write the chosen one."""
    with native_stderr_hidden():
        from lfm4ads_tf.pipeline.stages import Selection, resolve_run
        from lfm4ads_tf.pipeline.sweep import run_sweep
        from lfm4ads_tf.pipeline.sweep_options import SweepOptions

    run = resolve_run(
        spec=spec,
        out=out,
        assignments=assignments or [],
        selection=Selection(
            seed=seed, seeds=seeds, scenarios=scenarios, methods=methods, budget=budget
        ),
        config=config,
        overwrite=overwrite,
        quiet=quiet,
    )
    with Activity("sweep", quiet=quiet):
        run_sweep(
            SweepOptions(levels=levels, layers=layers, adapters=adapters, sides=sides, task=task),
            run,
            further=methods is not None,
            data_dir=data_dir,
            console=_console(),
        )


@app.command()
def tune(
    spec: SpecOption = DEFAULT_SPEC,
    data_dir: DataOption = None,
    out: OutOption = None,
    config: ConfigOption = None,
    assignments: SetOption = None,
    seed: SeedOption = None,
    budget: BudgetOption = None,
    part: Annotated[
        str, typer.Option("--part", help="What is tuned: upstream or downstream.")
    ] = "upstream",
    scenario: Annotated[
        str | None, typer.Option("--scenario", help="Scenario of the downstream [the largest].")
    ] = None,
    trials: Annotated[int, typer.Option("--trials", help="Trials of the study in all.")] = 30,
    timeout: Annotated[
        str | None, typer.Option("--timeout", help="Begins no further trial after it, as 30m.")
    ] = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Study training settings with Optuna on the last training periods; write the best."""
    with native_stderr_hidden():
        from lfm4ads_tf.pipeline.stages import Selection, resolve_run
        from lfm4ads_tf.pipeline.study import StudyOptions, run_study

    options = StudyOptions(part=part, scenario=scenario, trials=trials, timeout=timeout)
    options.check()
    selection = Selection(seed=seed, budget=budget)
    run = resolve_run(
        spec=spec,
        out=out,
        assignments=assignments or [],
        selection=selection,
        config=config,
        overwrite=overwrite,
        quiet=quiet,
    )
    run_study(
        options,
        run,
        spec=spec,
        data_dir=data_dir,
        console=_console(),
        assignments=assignments or [],
        config=config,
        selection=selection,
    )


@app.command()
def predict(
    out: Annotated[Path, typer.Option("--out", help="Run folder.")],
    model: Annotated[str, typer.Option("--model", help="foundation, or ranker_<scenario>.")],
    input: Annotated[Path, typer.Option("--input", help="Raw rows: CSV, Parquet or TFRecord.")],
    output: Annotated[Path, typer.Option("--output", help="Parquet file to write.")],
) -> None:
    """Score new rows: row, scenario, task, score."""
    with native_stderr_hidden():
        from lfm4ads_tf.pipeline.predict import predict as predict_rows

    with Activity("predict"):
        rows = predict_rows(out, model, input, output)
    _console().print(f"{rows:,} scores in {output}")


@app.command("check-skew")
def check_skew(
    out: Annotated[Path, typer.Option("--out", help="Run folder.")],
    model: Annotated[str, typer.Option("--model", help="foundation, or ranker_<scenario>.")],
    input: Annotated[Path, typer.Option("--input", help="Log: CSV, Parquet or TFRecord.")],
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            help="grpc://host:port or http://host:port; the newest export when left out.",
        ),
    ] = None,
    max_rows: Annotated[
        int | None, typer.Option("--max-rows", help="Rows, spread over the log [all].")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Report to write.")] = None,
    spec: Annotated[
        Path | None,
        typer.Option("--spec", help="Feature spec whose `skew` holds the limits [the run's]."),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Replay logged rows through the served model; compare features, scores, distributions."""
    with native_stderr_hidden():
        from lfm4ads_tf.export.skew.check import check_skew as check
        from lfm4ads_tf.files import write_json

    with Activity("check-skew", quiet=quiet):
        report = check(out, model, input, server=server, max_rows=max_rows, spec=spec, quiet=quiet)
    if json is not None:
        write_json(json, report.to_json())
    report.print(_console())
    report.raise_if_skewed()


@app.command()
def refresh(
    out: Annotated[Path, typer.Option("--out", help="Run folder.")],
    input: Annotated[
        list[Path] | None,
        typer.Option("--input", help="Files of new log rows, in the log's format."),
    ] = None,
    more: Annotated[list[Path] | None, typer.Argument(hidden=True)] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Instead, a folder with the files that the spec names."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed to refresh [all].")] = None,
    quiet: QuietOption = False,
) -> None:
    """Update upstream, representations and retrieval index with new rows, as a new version."""
    with native_stderr_hidden():
        from lfm4ads_tf.pipeline.refresh import refresh as refresh_run

    with Activity("refresh", quiet=quiet):
        run = refresh_run(
            out,
            files=[*(input or []), *(more or [])],
            data_dir=data_dir,
            seed=seed,
            quiet=quiet,
            export=_export_index,
        )
    _console().print(f"version {run.version} in {run.out}")


@app.callback()
def default(context: typer.Context) -> None:
    """Runs the whole pipeline on MovieLens when no command is given."""
    if context.invoked_subcommand is None:
        _command("run")()


def _cluster_task(given: str | None, task: str | None) -> ClusterTask | None:
    """This process as a task of a cluster, None where it is alone."""
    if given is None:
        if task is not None:
            raise UserError(
                "--task is the place of this process in a cluster, which was not given.",
                received=f"--task {task}",
                fix="give --cluster FILE, or leave --task out",
            )
        return None
    with native_stderr_hidden():
        from lfm4ads_tf.pipeline.cluster_task import ClusterTask

    member = ClusterTask(given, task)
    _JOINED.append(member)
    return member


def _console() -> Console:
    """Standard output; wide enough for the tables where it is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


def _export(run: Run) -> None:
    """The export stage; exports stand on the other stages, never the reverse."""
    from lfm4ads_tf.export.stage import export_run

    export_run(run)


def _export_index(run: Run) -> None:
    """The retrieval index of a refreshed version."""
    from lfm4ads_tf.export.stage import export_index

    export_index(run)


def main() -> None:
    """Runs the command line; see the exit codes in docs/cli.md."""
    code = _exit_code()
    if _JOINED:
        leave(code)  # threads that wait for a lost task would keep the process
    if code:
        sys.exit(code)


def _exit_code() -> int:
    """Runs the command line and tells what went wrong."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
    logging.getLogger("lfm4ads_tf").setLevel(logging.INFO)
    errors = Console(stderr=True, soft_wrap=True)

    def tell(title: str, message: object) -> None:
        text = escape(str(message))
        errors.print(f"[bold red]{title}:[/bold red] {text}", highlight=False)

    try:
        # typer turns an interrupt into the exit code 130 and returns it, as it does with `Exit`.
        code = app(standalone_mode=False)
        if code == 130:
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except UserError as error:
        tell("Error", error)
        return 2
    except ExportRefused as error:
        tell("Export refused", error)
        return 3
    except ClusterLost as error:
        tell("Cluster lost", error)
        return TRY_AGAIN
    except (typer.Abort, KeyboardInterrupt):
        errors.print("Interrupted; run the same command again to go on.", highlight=False)
        return 130
    except typer.Exit as error:
        return int(error.exit_code)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's usage errors
            tell("Error", error.format_message())
            return 2
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    main()
