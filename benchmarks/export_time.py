"""What `train.py export` of a finished run takes in two checkouts or with two settings.

    python -m benchmarks.export_time --out OUT --spec SPEC --other CHECKOUT [--pairs 3]
    python -m benchmarks.export_time --out OUT --spec SPEC --set export.warmup_rows=1

Each pair exports all models of copies of the run, anew, once the one way and once the other, the
order changing from pair to pair. Wall time and processor time (of all processes) are both told, and
their ratios of pairs. `docs/benchmarks.md` says more.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lfm4ads_tf.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
_WRITTEN = ("metrics.json", "exports.json", "log.txt", "config.yaml", "report.html")
"""What an export may write beside the exports; the other files of a copy are shared by hard links
and written by nobody, or replaced by a rename."""


@dataclass(frozen=True)
class Way:
    """One of the two ways.

    Attributes:
        checkout: Root of a checkout.
        spec: The run's feature spec.
        assignments: `--set` options of its export.
    """

    checkout: Path
    spec: Path
    assignments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Taken:
    """What an export took.

    Attributes:
        wall_s: Seconds of wall time.
        cpu_s: Processor seconds, user and system, of the command and the processes it started.
    """

    wall_s: float
    cpu_s: float


def exported(way: Way, run: Path, folder: Path) -> Taken:
    """Exports all models of a copy of a run.

    Args:
        way: How.
        run: The finished run.
        folder: Where the copy is made, on the disk of the run for hard links.

    Raises:
        UserError: The export failed.
    """
    copy = folder / "run"
    _copy(run, copy)
    command = [sys.executable, str(way.checkout / "train.py"), "export", "--quiet"]
    command += ["--spec", str(way.spec), "--out", str(copy)]
    for assignment in way.assignments:
        command += ["--set", assignment]
    before, began = _children_s(), time.perf_counter()
    done = subprocess.run(
        command,
        cwd=way.checkout,
        env={**os.environ, "PYTHONPATH": str(way.checkout)},
        capture_output=True,
        text=True,
    )
    taken = Taken(time.perf_counter() - began, _children_s() - before)
    made = [path for path in (copy / "exports").glob("*") if (path / "1").exists()]
    shutil.rmtree(copy)
    if done.returncode or not made:
        raise UserError(
            f"The export of '{run}' failed in '{way.checkout}'.", received=done.stderr[-2000:]
        )
    return taken


def _copy(run: Path, target: Path) -> None:
    """A copy of a run without its exports; large files are hard links where the disk has them."""

    def link(source: str, to: str) -> None:
        if Path(source).name in _WRITTEN:
            shutil.copy2(source, to)
            return
        try:
            os.link(source, to)
        except OSError:
            shutil.copy2(source, to)

    without = shutil.ignore_patterns("exports", "exports.json", "snapshots")
    shutil.copytree(run, target, ignore=without, copy_function=link)


def _children_s() -> float:
    """Processor seconds of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compare(one: Way, other: Way, run: Path, pairs: int) -> dict[str, list[Taken]]:
    """Takes turns, each pair beginning with another way.

    Returns:
        `this` and `other`, one value for each pair.
    """
    ways = {"this": one, "other": other}
    taken: dict[str, list[Taken]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory(dir=run.parent, prefix=".export_time-") as folder:
        for pair in range(pairs):
            for name in list(ways)[:: 1 if pair % 2 == 0 else -1]:
                taken[name].append(exported(ways[name], run, Path(folder)))
    return taken


def told(taken: dict[str, list[Taken]]) -> dict[str, Any]:
    """Medians of both ways, and the medians of the pairs' ratios this / other."""
    found: dict[str, Any] = {}
    for name, values in taken.items():
        found[name] = {
            key: statistics.median(getattr(value, key) for value in values)
            for key in ("wall_s", "cpu_s")
        }
    pairs = list(zip(taken["this"], taken["other"], strict=True))
    for key in ("wall_s", "cpu_s"):
        ratios = [getattr(a, key) / getattr(b, key) for a, b in pairs]
        found[f"{key.removesuffix('_s')}_ratio"] = statistics.median(ratios)
        found[f"{key.removesuffix('_s')}_ratios"] = ratios
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints.

    Returns:
        0; 2 where the run cannot be exported.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export_time", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("--spec", type=Path, required=True, help="its feature spec")
    parser.add_argument("--other", type=Path, default=ROOT, help="another checkout [this one]")
    parser.add_argument("--set", action="append", default=[], help="key=value of the other way")
    parser.add_argument("--both", action="append", default=[], help="key=value of both ways")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    given = parser.parse_args(arguments)
    run, spec = given.out.resolve(), given.spec.resolve()
    one = Way(ROOT, spec, tuple(given.both))
    other = Way(given.other.resolve(), spec, (*given.both, *given.set))
    try:
        if not (run / "config.yaml").exists():
            raise UserError(f"'{run}' is no run folder.", fix="give the --out of a finished run")
        found = told(compare(one, other, run, max(given.pairs, 1)))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    table = Table("export of all models", "wall s", "processor s")
    for name in ("this", "other"):
        table.add_row(name, f"{found[name]['wall_s']:.1f}", f"{found[name]['cpu_s']:.1f}")
    table.add_row("ratio", f"{found['wall_ratio']:.2f}", f"{found['cpu_ratio']:.2f}")
    Console().print(table)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
