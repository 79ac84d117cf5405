"""Proves exported SavedModels: `lfm4ads-verify MODEL_DIR`."""

from __future__ import annotations

import argparse
import base64
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from lfm4ads_tf.errors import ExportRefused, UserError
from lfm4ads_tf.export import verify_child
from lfm4ads_tf.export.blessing import BLESSING_FILE, bless, file_digests, read_blessing
from lfm4ads_tf.export.clean_process import CleanProcess
from lfm4ads_tf.export.cpp_loader import ANSWER_S, build_loader, run_cpp
from lfm4ads_tf.export.spec_check import check_against_spec, read_spec
from lfm4ads_tf.export.version_folders import version_folders
from lfm4ads_tf.export.warmup import read_warmup
from lfm4ads_tf.features.spec import FeatureSpec

_CHILD = Path(verify_child.__file__)
_SMALL_BYTES = 256 << 20


def verify_export(
    folder: Path,
    spec: FeatureSpec | None = None,
    *,
    process: CleanProcess | None = None,
    processors: AbstractContextManager[Any] | None = None,
) -> dict[str, Any]:
    """Proves one SavedModel in a process that imports only TensorFlow and NumPy, and in C++.

    That process checks the graph, loads it, replays the warm-up requests, sends the golden requests
    to every signature, and compares with the golden outputs. The warm-up file is decoded
    here, with TensorFlow Serving's own message types: what they read is what the server will read,
    and the other process needs no package beside TensorFlow.

    Args:
        folder: A version folder.
        spec: The feature spec whose columns and tasks it must ask for and predict, see
            `check_against_spec`; not checked when absent.
        process: Proves it in Python; one of its own when absent.
        processors: Entered by each of both programs while it runs, so that no more run than there
            are processors; unlimited when absent.

    Returns:
        What was proven: `tensorflow`, `signatures`, `ops`, `variables`, `rows_compared`,
        `warmup_records`, `largest_difference`, `largest_share` (of what is allowed where it is),
        `load_s`, `latency_ms`; `cpp_loader`
        with the same from C++, or null and `cpp_loader_skipped` with the reason; `files`, the
        SHA-256 of each file.

    Raises:
        ExportRefused: With the reason.
        OSError: A file cannot be read.
    """
    try:
        warmup = [
            {"signature": s, "inputs": {k: base64.b64encode(v).decode() for k, v in i.items()}}
            for s, i in read_warmup(folder)
        ]
    except ValueError as error:
        raise ExportRefused(f"the warm-up file is damaged: {error}") from error
    files = file_digests(folder)
    held = nullcontext() if processors is None else processors

    def in_cpp() -> dict[str, Any]:
        with held:
            return _in_cpp(folder)

    with ThreadPoolExecutor(1) as beside:
        started = beside.submit(in_cpp) if _side_by_side(folder) else None
        with held:
            report = _in_clean_process(folder, warmup, process)
        if spec is not None:
            check_against_spec(verify_child.read_contract(folder), spec)
        compiled = in_cpp() if started is None else started.result()
    return {**report, **compiled, "files": files}


def _side_by_side(folder: Path) -> bool:
    """Whether C++ answers while the other process still imports TensorFlow, which takes as long.

    Not on a single processor, where the times of both would be wrong, nor with a model that one
    may not want in memory twice.
    """
    return (os.cpu_count() or 1) > 1 and is_small(folder)


def is_small(folder: Path) -> bool:
    """Whether two programs may hold an export in memory at a time."""
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return held <= _SMALL_BYTES


def verifying_process() -> CleanProcess:
    """A process that proves one export after another, see `verify_export`."""
    return CleanProcess(_CHILD)


def _in_clean_process(
    folder: Path, warmup: list[dict[str, Any]], process: CleanProcess | None = None
) -> dict[str, Any]:
    """What `verify_child` reports."""
    if process is not None:
        return process.prove(folder, warmup, ANSWER_S)
    with verifying_process() as started:
        return started.prove(folder, warmup, ANSWER_S)


def _in_cpp(folder: Path) -> dict[str, Any]:
    """What the C++ loader answers, compared in the same way; skipped where it does not start."""
    try:
        build_loader()
        requests, expected, allowed = verify_child.read_golden(folder)
        answers, timings = run_cpp(folder, requests, repeats=verify_child.LATENCY_CALLS)
        largest = verify_child.Difference()
        for signature, outputs in answers.items():
            verify_child.check_finite(signature, outputs, "in C++, the golden request")
            if signature in expected:
                limits = allowed.get(signature, {})
                difference = verify_child.compare_outputs(
                    signature, outputs, expected[signature], limits
                )
                largest = largest.joined(difference)
    except UserError as error:
        return {"cpp_loader": None, "cpp_loader_skipped": " ".join(str(error).split())[:500]}
    except verify_child.Refused as refused:
        raise ExportRefused(f"in the C++ loader, {refused}") from refused
    return {
        "cpp_loader": {
            "largest_difference": largest.value,
            "largest_share": largest.share,
            "load_s": timings.load_s,
            "latency_ms": timings.run_ms,
        }
    }


def find_exports(path: Path) -> list[Path]:
    """Version folders under a version folder, a model's folder, or a folder of models."""
    if path in version_folders(path.parent).values() or (path / "saved_model.pb").exists():
        return [path]
    exports = list(version_folders(path).values())
    return exports or [v for m in sorted(path.iterdir()) for v in version_folders(m).values()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Verifies and prints; the reason of a refusal is the last line.

    A version that passes is blessed: its blessing stays as it is where it fits the files, and is
    written where there is none.

    Returns:
        0 when all are blessed, 3 when one is refused, 2 when there is nothing to verify, or files
        cannot be read or written.
    """
    parser = argparse.ArgumentParser(prog="lfm4ads-verify", description=__doc__)
    parser.add_argument(
        "model_dir", type=Path, help="a version, a model with its versions, or a folder of models"
    )
    parser.add_argument(
        "--spec", type=Path, help="feature spec that it must fit, or the config.yaml of a run"
    )
    given = parser.parse_args(arguments)
    path = given.model_dir.resolve()
    try:
        spec = None if given.spec is None else read_spec(given.spec)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if not path.is_dir():
        print(f"There is no folder '{path}'. Fix: name a folder of exports.", file=sys.stderr)
        return 2
    exports = find_exports(path)
    if not exports:
        print(f"No SavedModel version lies in '{path}'.", file=sys.stderr)
        return 2
    refusals, unusable = [], False
    with verifying_process() as process:
        for folder in exports:
            name = f"{folder.parent.name}/{folder.name}"
            try:
                report = verify_export(folder, spec, process=process)
                state = _blessed(folder, report)
            except (OSError, UserError) as error:
                print(f"{name} cannot be verified: {error}", file=sys.stderr, flush=True)
                unusable = True
                continue
            except ExportRefused as refused:
                refusals.append(f"{name} refused: {' '.join(str(refused).split())}")  # one line
                print(f"{name}: refused", flush=True)
                continue
            print(f"{name}: {state}; {_told(report)}", flush=True)
    if refusals:
        print("\n".join(refusals))
        return 3
    return 2 if unusable else 0


def _blessed(folder: Path, report: dict[str, Any]) -> str:
    """Blesses a version that passed, unless it has a blessing, which must fit."""
    model = folder.parent.name
    if (folder / BLESSING_FILE).exists():
        read_blessing(folder, model, found=report["files"])
        return "blessed"
    kind = verify_child.read_contract(folder)["kind"]
    bless(folder, report, model=model, kind=kind, source={})
    return f"blessed now, {BLESSING_FILE} is written"


def _told(report: dict[str, Any]) -> str:
    cpp = report["cpp_loader"]
    in_cpp = (
        f"C++ loader skipped ({report['cpp_loader_skipped']})"
        if cpp is None
        else f"C++ by at most {cpp['largest_difference']:.1e}, loaded in {cpp['load_s']:.2f} s"
    )
    timings = ", ".join(f"{k}: {v:.2f} ms" for k, v in report["latency_ms"].items())
    return (
        f"{report['rows_compared']} rows differ by at most {report['largest_difference']:.1e} "
        f"({report['largest_share']:.0%} of what rounding allows), "
        f"{report['warmup_records']} warm-up requests, loaded in {report['load_s']:.2f} s; "
        f"{in_cpp}; {timings}"
    )


if __name__ == "__main__":
    sys.exit(main())
