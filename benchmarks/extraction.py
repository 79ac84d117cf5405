"""How fast representations are extracted, next to plain inference over the same rows.

    python -m benchmarks.extraction [--run OUT | --rows 1000000] [--rounds 5] [--json FILE]

Inference scores every row of the log with the final upstream; extraction writes UR, IR and the CR
of every layer, loading each period's snapshot. Both read the encoded cache through the same input,
in one process, in turns. Without `--run`, a generated log is prepared and an upstream trained on
it first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import interleave, summary
from lfm4ads_tf.pipeline.extract import snapshot_loader
from lfm4ads_tf.pipeline.run import open_run
from lfm4ads_tf.pipeline.scoring import predict_rows
from lfm4ads_tf.pipeline.trained_models import load_upstream
from lfm4ads_tf.representations.extract_periods import extract_periods
from lfm4ads_tf.representations.writer import RepresentationWriter


def measure(out: Path, *, rounds: int = 5, **over: Any) -> dict[str, Any]:
    """Times both on a run folder whose upstream of the run's first seed is trained.

    Args:
        out: The run folder.
        rounds: Turns of each; one more before them does not count.
        over: Settings of the representations other than the run's.

    Returns:
        Examples a second of both (medians), their spread, `ratio` of extraction to inference,
        `rows`, `layers` and `width`, the numbers stored per event and side.
    """
    run = open_run(out)
    seed, cache = run.config.seed, run.cache
    model = load_upstream(run, seed)
    load = snapshot_loader(run, seed, model)
    config = run.config.representations.model_copy(update=over)
    rows = np.arange(cache.rows)
    widths: dict[str, int] = {}

    def inference() -> float:
        began = time.perf_counter()
        predict_rows(model, cache, rows)
        return time.perf_counter() - began

    def extraction() -> float:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            writer = RepresentationWriter(Path(folder))
            extract_periods(model, load, cache, config, writer, quiet=True)
            writer.close({"version": "benchmark"})
            seconds = time.perf_counter() - began
            manifest = json.loads((Path(folder) / "manifest.json").read_text("utf-8"))
        stored = manifest["representations"].items()
        widths.update({name: entry["dim"] for name, entry in stored if "CR_user@" in name})
        return seconds

    turns = {"inference": inference, "extraction": extraction}
    seconds = interleave(turns, rounds=rounds, warmup=1)
    found = {name: summary(values) for name, values in seconds.items()}
    return {
        "rows": cache.rows,
        "layers": list(widths),
        "width": sum(widths.values()),
        "examples_per_s": {name: cache.rows / one.median for name, one in found.items()},
        "spread": {name: one.spread for name, one in found.items()},
        "ratio": found["inference"].median / found["extraction"].median,
    }


def make_run(out: Path, rows: int) -> None:
    """Prepares a generated log and trains an upstream on it."""
    spec = Path(__file__).parents[1] / "feature_specs" / "synthetic.yaml"
    for stage in ("prepare", "pretrain"):
        command = [sys.executable, "-m", "train", stage, "--spec", str(spec), "--out", str(out)]
        command += ["--quiet", "--set", f"dataset_options.rows={rows}"]
        command += ["--set", "upstream.training.auto=false"]
        subprocess.run([*command, "--set", "upstream.training.replay=0"], check=True)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="run folder with a trained upstream")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the generated log")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = options.run
        if out is None:
            out = Path(folder) / "run"
            make_run(out, options.rows)
        found = measure(out, rounds=options.rounds)
    for name, rate in found["examples_per_s"].items():
        print(f"{name:<12}{rate:>12,.0f} examples/s, spread {found['spread'][name]:.1%}")
    print(f"{'ratio':<12}{found['ratio']:>12.2f} ({len(found['layers'])} layers)")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
