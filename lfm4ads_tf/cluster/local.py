"""Runs a command of train.py on a cluster of processes of this machine.

    python -m lfm4ads_tf.cluster.local --workers 2 --ps 2 [--max-restarts 3] -- <train.py arguments>

All processes get the same command line with `--cluster env`. Their logs lie in `OUT/cluster/`. A
lost worker is restarted; a lost server or chief has all servers and the chief restarted, which go
on from the last checkpoint. Without servers (`--ps 0`) the training is mirrored. See
docs/cluster.md. The exit code is the chief's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

from lfm4ads_tf.cluster.supervisor import Supervisor
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.shipped_specs import DEFAULT, shipped_specs, spec_file
from lfm4ads_tf.files import unwritable
from lfm4ads_tf.written import load, text_of

_OWN = ("--cluster", "--task")  # what the launcher says to each process
_FOLDER = "cluster"


def run_locally(
    arguments: list[str], *, workers: int = 2, servers: int = 2, max_restarts: int = 3
) -> int:
    """Runs a command of train.py on processes of this machine.

    Args:
        arguments: What follows `train.py`, without `--cluster`.
        workers: Number of workers.
        servers: Number of parameter servers; none for mirrored training.
        max_restarts: How often all servers and the chief are restarted.

    Returns:
        The exit code, see `Supervisor.run`.

    Raises:
        UserError: A number or an argument cannot be, or the run folder not be written.
    """
    for name, value, least in (
        ("workers", workers, 1),
        ("ps", servers, 0),
        ("max-restarts", max_restarts, 0),
    ):
        if value < least:
            raise UserError(f"--{name} must be at least {least}.", received=value)
    for argument in arguments:
        if argument.partition("=")[0] in _OWN:
            raise UserError(
                "The launcher itself gives every process its place in the cluster.",
                received=argument,
                fix=f"leave {argument.partition('=')[0]} out",
            )
    if not arguments or arguments[0].startswith("-"):
        raise UserError(
            "No command of train.py is given.",
            received=" ".join(arguments) or "nothing after --",
            fix="... -- run --spec FILE --out OUT",
        )
    command = [sys.executable, "-m", "lfm4ads_tf.command_line", *arguments, "--cluster", "env"]
    folder = run_folder(arguments) / _FOLDER
    try:
        return Supervisor(
            lambda task: command,
            folder,
            workers=workers,
            servers=servers,
            max_restarts=max_restarts,
            tell=lambda line: print(line, flush=True),
        ).run()
    except OSError as error:
        raise unwritable(folder, error) from error


def run_folder(arguments: list[str]) -> Path:
    """OUT of a command of train.py: its `--out`, else `runs/<name of its spec>`.

    It is found without resolving the configuration: that imports TensorFlow, which a launcher does
    without.

    Args:
        arguments: What follows `train.py`.

    Raises:
        UserError: There is no `--out`, and the spec has no name.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--spec", type=Path, default=shipped_specs()[DEFAULT])
    parser.add_argument("--set", action="append", default=[])
    try:
        options, _ = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(f"An argument of train.py cannot be read: {error}.") from error
    if options.out is not None:
        return Path(options.out)
    name = None
    for assignment in options.set:
        key, _, value = assignment.partition("=")
        name = value if key.strip() == "name" else name
    if name is None:
        name = _name_of(spec_file(options.spec))
    return Path("runs") / name


def _name_of(spec: Path) -> str:
    """What a spec is called."""
    try:
        document = load(spec.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(
            f"The feature spec {spec} cannot be read.",
            received=error,
            fix="give --spec a YAML file or the name of a spec that comes with the package",
        ) from error
    name = text_of(document.get("name")) if isinstance(document, dict) else None
    if not isinstance(name, str):
        raise UserError(
            f"The feature spec {spec} has no name.", fix="give it the key `name`, or give --out"
        )
    return name


def main(arguments: list[str] | None = None) -> int:
    """See the module's text."""
    given = sys.argv[1:] if arguments is None else arguments
    own, after = given, []
    if "--" in given:
        at = given.index("--")
        own, after = given[:at], given[at + 1 :]
    parser = argparse.ArgumentParser(
        prog="lfm4ads-local-cluster",
        usage="%(prog)s [--workers N] [--ps N] [--max-restarts N] -- <train.py arguments>",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workers", type=int, default=2, help="workers [2]")
    parser.add_argument(
        "--ps", type=int, default=2, help="parameter servers; 0 for mirrored training [2]"
    )
    parser.add_argument(
        "--max-restarts",
        type=int,
        default=3,
        help="how often all servers and the chief are restarted [3]",
    )
    options = parser.parse_args(own)
    try:
        return run_locally(
            after, workers=options.workers, servers=options.ps, max_restarts=options.max_restarts
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
