"""Proves exported SavedModels: `python -m export.verify MODEL_DIR`."""

from __future__ import annotations

import argparse
import base64
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export import verify_child
from export.blessing import BLESSING_FILE, bless, file_digests, read_blessing
from export.cpp_loader import build_loader, run_cpp
from export.spec_check import check_against_spec
from export.warmup import read_warmup
from lfm4ads_tf.errors import ExportRefused, UserError
from lfm4ads_tf.features.spec import FeatureSpec, load_spec

_CHILD = Path(verify_child.__file__)


def verify_export(folder: Path, spec: FeatureSpec | None = None) -> dict[str, Any]:
    """Proves one SavedModel in a process that imports only TensorFlow and NumPy, and in C++.

    That process checks the graph, loads it, replays the warm-up requests, sends the golden requests
    to every signature, and compares with the Keras model's scores. The warm-up file is decoded
    here, with TensorFlow Serving's own message types: what they read is what the server will read,
    and the other process needs no package beside TensorFlow.

    Args:
        folder: A version folder.
        spec: The feature spec that its columns and tasks must be those of, if any.

    Returns:
        What was proven: `tensorflow`, `signatures`, `ops`, `variables`, `rows_compared`,
        `warmup_records`, `largest_difference`, `tolerance`, `load_s`, `latency_ms`; `cpp_loader`
        with the same from C++, or null and `cpp_loader_skipped` with the reason; `files`, the
        SHA-256 of each file.

    Raises:
        ExportRefused: With the reason.
    """
    try:
        warmup = [
            {"signature": s, "inputs": {k: base64.b64encode(v).decode() for k, v in i.items()}}
            for s, i in read_warmup(folder)
        ]
    except ValueError as error:
        raise ExportRefused(f"the warm-up file is damaged: {error}") from error
    files = file_digests(folder)
    report = _in_clean_process(folder, warmup)
    if spec is not None:
        check_against_spec(verify_child.read_contract(folder), spec)
    return {**report, **_in_cpp(folder), "files": files}


def _in_clean_process(folder: Path, warmup: list[dict[str, Any]]) -> dict[str, Any]:
    """What `verify_child` reports."""
    with tempfile.TemporaryDirectory() as scratch:
        requests, report_file = Path(scratch) / "warmup.json", Path(scratch) / "report.json"
        requests.write_text(json.dumps(warmup), encoding="utf-8")
        # -P keeps this folder off the module path
        command = [sys.executable, "-P", str(_CHILD), str(folder), str(requests), str(report_file)]
        child = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if child.returncode or not report_file.exists():
            last = (child.stderr.strip().splitlines() or ["no message"])[-1]
            raise ExportRefused(
                f"cannot be loaded: the verifying process ended with {child.returncode} ({last})"
            )
        report: dict[str, Any] = json.loads(report_file.read_text("utf-8"))
    reason = report.pop("refused")
    if reason is not None:
        raise ExportRefused(reason)
    return report


def _in_cpp(folder: Path) -> dict[str, Any]:
    """What the C++ loader answers, compared in the same way; skipped where it cannot be built."""
    try:
        build_loader()
    except UserError as error:
        return {"cpp_loader": None, "cpp_loader_skipped": " ".join(str(error).split())[:500]}
    try:
        tolerance = float(verify_child.read_contract(folder)["tolerance"])
        requests, expected = verify_child.read_golden(folder)
        answers, timings = run_cpp(folder, requests, repeats=verify_child.LATENCY_CALLS)
        largest = 0.0
        for signature, outputs in answers.items():
            verify_child.check_finite(signature, outputs, "in C++, the golden request")
            if signature in expected:
                difference = verify_child.compare(
                    signature, outputs, expected[signature], tolerance
                )
                largest = max(largest, difference)
    except verify_child.Refused as refused:
        raise ExportRefused(f"in the C++ loader, {refused}") from refused
    return {
        "cpp_loader": {
            "largest_difference": largest,
            "load_s": timings.load_s,
            "latency_ms": timings.run_ms,
        }
    }


def find_exports(path: Path) -> list[Path]:
    """Version folders under a version folder, a model's folder, or a folder of models."""
    if path.name.isdigit() or (path / "saved_model.pb").exists():
        return [path]
    return _versions(path) or [v for model in sorted(path.iterdir()) for v in _versions(model)]


def _versions(model: Path) -> list[Path]:
    if not model.is_dir():
        return []
    return sorted((v for v in model.iterdir() if v.name.isdigit()), key=lambda v: int(v.name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Verifies and prints; the reason of a refusal is the last line.

    Returns:
        0 when all pass, 3 when one is refused, 2 when there is nothing to verify.
    """
    parser = argparse.ArgumentParser(prog="python -m export.verify", description=__doc__)
    parser.add_argument(
        "model_dir", type=Path, help="a version, a model with its versions, or a folder of models"
    )
    parser.add_argument("--spec", type=Path, help="feature spec that it must fit")
    parser.add_argument(
        "--bless", action="store_true", help=f"write {BLESSING_FILE} into each version that passes"
    )
    given = parser.parse_args(arguments)
    path = given.model_dir.resolve()
    try:
        spec = None if given.spec is None else load_spec(given.spec)
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
    refusals = []
    for folder in exports:
        name = f"{folder.parent.name}/{folder.name}"
        try:
            report = verify_export(folder, spec)
            state = _blessed(folder, report, write=given.bless)
        except ExportRefused as refused:
            refusals.append(f"{name} refused: {' '.join(str(refused).split())}")  # one line
            print(f"{name}: refused", flush=True)
            continue
        print(f"{name}: {state}; {_told(report)}", flush=True)
    if refusals:
        print("\n".join(refusals))
        return 3
    return 0


def _blessed(folder: Path, report: dict[str, Any], *, write: bool) -> str:
    """State of a version that passed: blessed before, now, or not."""
    path = folder / BLESSING_FILE
    if write:
        about: dict[str, Any] = {"model": folder.parent.name, "kind": None, "source": {}}
        about["kind"] = verify_child.read_contract(folder)["kind"]
        try:
            before = json.loads(path.read_text("utf-8"))
            about.update({key: before[key] for key in about if key in before})
        except (OSError, ValueError, TypeError):
            pass  # there was none that can be read
        bless(folder, report, **about)
        return "blessed now"
    if not path.exists():
        return f"passes, but there is no {BLESSING_FILE} (--bless writes it)"
    read_blessing(folder, report["files"])
    return "blessed"


def _told(report: dict[str, Any]) -> str:
    cpp = report["cpp_loader"]
    in_cpp = (
        f"C++ loader skipped ({report['cpp_loader_skipped']})"
        if cpp is None
        else f"C++ by at most {cpp['largest_difference']:.1e}, loaded in {cpp['load_s']:.2f} s"
    )
    timings = ", ".join(f"{k}: {v:.2f} ms" for k, v in report["latency_ms"].items())
    return (
        f"{report['rows_compared']} rows differ by at most {report['largest_difference']:.1e}, "
        f"{report['warmup_records']} warm-up requests, loaded in {report['load_s']:.2f} s; "
        f"{in_cpp}; {timings}"
    )


if __name__ == "__main__":
    sys.exit(main())
