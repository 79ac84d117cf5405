"""Records tests/expected_metrics.json anew: `python tests/record_expected_metrics.py`.

Run it only when a change is meant to move the numbers; the tolerances stay as they are.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent
LOOP = re.compile(
    r"for stage in (?P<stages>[a-z ]+); do python train\.py \$stage (?P<options>.*); done"
)
SEEDS = 3
# The numbers hold the training to its settings; what a search chooses is tested elsewhere.
FIXED = ["--config", "benchmarks/training/synthetic.yaml"]
"""The training by hand that the values were recorded with."""


def value_of(entry: dict[str, Any], metric: str) -> float:
    """A metric of an entry of `metrics.json`; `auc_gap` is best possible minus reached."""
    found = entry["metrics"]
    if metric == "auc_gap":
        return float(found["auc_best_possible"] - found["auc"])
    return float(found[metric])


def is_meant(entry: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether an entry of `metrics.json` is the one that was recorded."""
    wanted = {k: expected[k] for k in ("stage", "scenario", "task")}
    wanted |= {"method": expected["model"], "slice": "all", "refresh": "frozen", "split": "test"}
    return all(entry[key] == value for key, value in wanted.items())


def _metrics(command: str, out: Path) -> dict[str, Any]:
    loop = LOOP.fullmatch(command)
    if loop is None:
        sys.exit(f"not a loop over stages: {command}")
    options = [*shlex.split(loop["options"]), *FIXED, "--seeds", str(SEEDS)]
    options += ["--out", str(out), "--quiet"]
    for stage in loop["stages"].split():
        subprocess.run([sys.executable, "train.py", stage, *options], cwd=TESTS.parent, check=True)
    return dict(json.loads((out / "metrics.json").read_text("utf-8")))


def main() -> None:
    """Runs each command once and rewrites the values."""
    path = TESTS / "expected_metrics.json"
    expected: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
    for number, command in enumerate(dict.fromkeys(e["command"] for e in expected)):
        with tempfile.TemporaryDirectory() as folder:
            document = _metrics(command, Path(folder) / str(number))
        for item in expected:
            if item["command"] == command:
                found = [e for e in document["results"] if is_meant(e, item)]
                by_seed = {str(e["seed"]): round(value_of(e, item["metric"]), 5) for e in found}
                mean = round(sum(by_seed.values()) / len(by_seed), 5)
                item["value"] = {"mean": mean, "by_seed": by_seed}
                item["runs"] = len(by_seed)
                spread = max(abs(v - mean) for v in by_seed.values())
                print(f"{item['model']} {item['task']} {item['metric']}: {mean} +- {spread:.5f}")
    path.write_text(json.dumps(expected, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
