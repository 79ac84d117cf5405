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

from export.warmup import read_warmup
from lfm4ads_tf.errors import ExportRefused

_CHILD = Path(__file__).with_name("verify_child.py")


def verify_export(folder: Path) -> dict[str, Any]:
    """Proves one SavedModel in a process that imports only TensorFlow and NumPy.

    That process loads it, replays the warm-up requests, sends the golden requests to both
    signatures, and compares with the Keras model's scores. The warm-up file is decoded here, with
    TensorFlow Serving's own message types: what they read is what the server will read, and the
    other process needs no package beside TensorFlow.

    Args:
        folder: A version folder.

    Returns:
        What was proven: `tensorflow`, `signatures`, `rows_compared`, `warmup_records`,
        `largest_difference`, `load_s`, `latency_ms`.

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
        0 when all are blessed, 3 when one is refused, 2 when there is nothing to verify.
    """
    parser = argparse.ArgumentParser(prog="python -m export.verify", description=__doc__)
    parser.add_argument(
        "model_dir", type=Path, help="a version, a model with its versions, or a folder of models"
    )
    path = parser.parse_args(arguments).model_dir.resolve()
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
            report = verify_export(folder)
        except ExportRefused as refused:
            refusals.append(f"{name} refused: {' '.join(str(refused).split())}")  # one line
            print(f"{name}: refused", flush=True)
            continue
        timings = ", ".join(f"{k}: {v:.2f} ms" for k, v in report["latency_ms"].items())
        print(
            f"{name}: blessed; {report['rows_compared']} rows differ by at most "
            f"{report['largest_difference']:.1e}, {report['warmup_records']} warm-up requests, "
            f"loaded in {report['load_s']:.2f} s; {timings}",
            flush=True,
        )
    if refusals:
        print("\n".join(refusals))
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
