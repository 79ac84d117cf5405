"""The LFM4Ads public experiment on KuaiRand: 29 methods per scenario, curves over the layers.

lfm4ads-kuairand --data-dir DIR
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.experiments.experiment_settings import ExperimentSettings
from lfm4ads_tf.experiments.public_method import select_methods
from lfm4ads_tf.features.shipped_specs import shipped_specs
from lfm4ads_tf.quiet import native_stderr_hidden

SPEC = shipped_specs()["kuairand_public"]
TABS = "1,0,4,6,2"
# Chosen on validation; the same for all methods.
CONFIGURATION = (
    "downstream.linear_dim=10",
    "downstream.training.batch_size=256",
    "downstream.training.optimizer.table_learning_rate=0.1",
    "upstream.training.replay=5",
    "upstream.training.batch_size=512",
    "retrieval.loss=bce",
    "retrieval.dim=90",
    "retrieval.units=[]",
    "retrieval.scenarios=[each]",
    "retrieval.training.batch_size=512",
    "retrieval.training.epochs=10",
    "retrieval.training.optimizer.table_learning_rate=0.1",
)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns 2 for what the user can mend."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
    logging.getLogger("lfm4ads_tf").setLevel(logging.INFO)
    options = _parser().parse_args(arguments)
    if options.quiet:
        logging.getLogger("lfm4ads_tf").setLevel(logging.WARNING)
    try:
        with native_stderr_hidden():  # TensorFlow's start-up banner
            from lfm4ads_tf.experiments.runner import run_experiment
        settings = _settings(options)
        run_experiment(settings, options.schedule)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; run the same command again to go on.", file=sys.stderr)
        return 130
    print((settings.out / "results.md").read_text("utf-8"))
    print(f"results: {settings.out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lfm4ads-kuairand", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--data-dir", type=Path, help="folder of the official files; fetched when left out"
    )
    parser.add_argument(
        "--out", type=Path, help="output folder [runs/kuairand_experiment_<schedule>]"
    )
    parser.add_argument("--trials", type=int, default=1, help="trials, each with its own seed [1]")
    parser.add_argument("--tabs", default=TABS, help=f"scenarios, comma-separated [{TABS}]")
    parser.add_argument(
        "--schedule",
        choices=("ours", "original"),
        default="ours",
        help="how models are trained [ours]",
    )
    parser.add_argument(
        "--methods", help="some of the 29, by the paper's name or ours, comma-separated [all]"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first trial [0]")
    parser.add_argument(
        "--set",
        dest="assignments",
        action="append",
        default=[],
        metavar="KEY.PATH=VALUE",
        help="overrides a key of the spec or of our schedule's configuration",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="empty an output folder of another schedule, other data or another configuration",
    )
    parser.add_argument("--quiet", action="store_true", help="hide progress")
    return parser


def _settings(options: argparse.Namespace) -> ExperimentSettings:
    tabs = tuple(dict.fromkeys(tab.strip() for tab in options.tabs.split(",") if tab.strip()))
    methods = tuple(select_methods(options.methods))
    for name, value in (("--tabs", tabs), ("--methods", methods)):
        if not value:
            raise UserError(f"{name} names nothing.", fix="leave it out for all")
    if options.trials < 1 or options.seed < 0:
        raise UserError(
            "--trials must be at least 1 and --seed not negative.",
            received=f"--trials {options.trials} --seed {options.seed}",
        )
    return ExperimentSettings(
        spec=SPEC,
        data_dir=options.data_dir,
        out=options.out or Path("runs") / f"kuairand_experiment_{options.schedule}",
        tabs=tabs,
        methods=methods,
        seeds=tuple(range(options.seed, options.seed + options.trials)),
        assignments=("preset=public_experiment", *CONFIGURATION, *options.assignments),
        overwrite=options.overwrite,
        quiet=options.quiet,
    )


if __name__ == "__main__":
    sys.exit(main())
