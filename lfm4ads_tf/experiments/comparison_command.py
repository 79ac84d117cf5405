"""The command line of the comparisons of upstream models."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from pathlib import Path

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.experiments.comparison_settings import Axis, ComparisonSettings
from lfm4ads_tf.plugins import load_plugins
from lfm4ads_tf.quiet import native_stderr_hidden

RATES = "0.5,1,2"


def run_command(arguments: list[str] | None, axis: Axis, program: str, what: str) -> int:
    """Runs a command line; returns 2 for what the user can mend.

    Args:
        arguments: Behind the program's name; those of the process when absent.
        axis: What the models are compared by.
        program: The program's name.
        what: What it does, in a sentence.
    """
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
    logging.getLogger("lfm4ads_tf").setLevel(logging.INFO)
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser(program, what).parse_args(given)
    if options.quiet:
        logging.getLogger("lfm4ads_tf").setLevel(logging.WARNING)
    try:
        with native_stderr_hidden():  # TensorFlow's start-up banner
            from lfm4ads_tf.experiments.comparison_runner import run_comparison
        load_plugins(options.plugins)
        text = run_comparison(_settings(options, axis, shlex.join([program, *given])))
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; run the same command again to go on.", file=sys.stderr)
        return 130
    print(text)
    print(f"results: {options.out / 'comparison.json'}")
    print(f"page:    {options.out / 'comparison.html'}")
    return 0


def _parser(program: str, what: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description=what)
    parser.add_argument(
        "--spec", type=Path, required=True, help="feature spec, a file or the name of a shipped one"
    )
    parser.add_argument(
        "--data-dir", type=Path, help="folder of the data files; fetched when left out"
    )
    parser.add_argument(
        "--models",
        required=True,
        metavar="[NAME=]MODEL,...",
        help="upstream models, comma-separated; one that stands there twice, for --model-set, "
        "under names of its own",
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds [3]")
    parser.add_argument("--seed", type=int, default=0, help="first seed [0]")
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument(
        "--rates",
        default=RATES,
        help=f"factors of the configured learning rates, chosen on validation [{RATES}]",
    )
    parser.add_argument(
        "--baseline",
        default="",
        metavar="NAME,...",
        help="models that all are compared with, beside shared_bottom where it is among --models",
    )
    parser.add_argument(
        "--curve",
        dest="curves",
        action="append",
        default=[],
        metavar="CURVE=NAME,...",
        help="draws AUC and information abundance of some of --models by their floats in tables",
    )
    parser.add_argument(
        "--feedback-pair",
        default="",
        metavar="TASK,TASK",
        help="slices by which of two tasks a user tends to, measured by the training rows",
    )
    parser.add_argument(
        "--set",
        dest="assignments",
        action="append",
        default=[],
        metavar="KEY.PATH=VALUE",
        help="overrides a key of the spec or of the run configuration, for all models",
    )
    parser.add_argument(
        "--model-set",
        dest="model_assignments",
        action="append",
        default=[],
        metavar="NAME:KEY.PATH=VALUE",
        help="overrides a key below `upstream` or `embeddings` for one of --models",
    )
    parser.add_argument(
        "--plugin",
        dest="plugins",
        action="append",
        default=[],
        metavar="FILE",
        help="Python file or module that registers models of your own",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="empty an output folder of another comparison"
    )
    parser.add_argument("--quiet", action="store_true", help="hide progress")
    return parser


def _settings(options: argparse.Namespace, axis: Axis, command: str) -> ComparisonSettings:
    assigned = []
    for text in options.model_assignments:
        model, separator, assignment = text.partition(":")
        if not separator or "=" in model:
            raise UserError(
                "--model-set needs the form model:key.path=value.",
                received=text,
                fix="--model-set mmoe:upstream.mmoe.experts=8",
            )
        assigned.append((model.strip(), assignment))
    return ComparisonSettings(
        spec=options.spec,
        data_dir=options.data_dir,
        out=options.out,
        models=_models(options.models),
        seeds=tuple(range(options.seed, options.seed + options.seeds)),
        rates=_rates(options.rates),
        assignments=tuple(options.assignments),
        model_assignments=tuple(assigned),
        further_baselines=tuple(_parts(options.baseline)),
        curves=_curves(options.curves),
        feedback_pair=tuple(_parts(options.feedback_pair)),
        overwrite=options.overwrite,
        quiet=options.quiet,
        axis=axis,
        command=command,
    )


def _models(text: str) -> dict[str, str]:
    """Name -> upstream model."""
    models: dict[str, str] = {}
    for part in _parts(text):
        name, separator, upstream = (each.strip() for each in part.partition("="))
        if not name or ":" in name:
            raise UserError(
                "--models needs a name before '=', without ':'.",
                received=part,
                fix="give one, as in --models mmoe,wide=mmoe",
            )
        if name in models:
            raise UserError(
                "--models needs names of upstream models, each one once; the same model twice "
                "needs names that tell it apart.",
                received=text,
                fix="give a name before '=', as in --models mmoe,wide=mmoe",
            )
        models[name] = upstream if separator else name
    return models


def _curves(texts: list[str]) -> dict[str, tuple[str, ...]]:
    """Curve -> names of models."""
    curves: dict[str, tuple[str, ...]] = {}
    for text in texts:
        curve, _, names = text.partition("=")
        if curve.strip() in curves or not curve.strip() or not _parts(names):
            raise UserError(
                "--curve needs a name of its own and some of --models.",
                received=text,
                fix="--curve one_set=narrow,wide",
            )
        curves[curve.strip()] = tuple(dict.fromkeys(_parts(names)))
    return curves


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _rates(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in _parts(text))
    except ValueError as error:
        raise UserError(
            "--rates needs numbers, comma-separated.", received=text, fix=f"--rates {RATES}"
        ) from error
