"""What each group of features adds to the upstream's AUC on KuaiRand.

    python -m benchmarks.feature_groups --data-dir DIR --out OUT [--seeds 3]

Trains the upstream on growing sets of features and prints the test AUC of the first task over
all scenarios, mean and deviation over seeds. Selection never looks at these numbers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from lfm4ads_tf.config import resolve
from lfm4ads_tf.pipeline.prepare import prepare
from lfm4ads_tf.pipeline.pretrain import pretrain
from lfm4ads_tf.pipeline.run import Run

SPEC = Path("feature_specs/kuairand.yaml")


def groups(features: dict[str, dict[str, Any]]) -> dict[str, tuple[list[str], int]]:
    """Group -> its features, cumulative, and passes over the watch history's rows."""
    statistics = {n: f for n, f in features.items() if f["kind"] == "statistic"}
    plain = [n for n, f in features.items() if n not in statistics]
    sides = [n for n in plain if features[n]["owner"] != "context"]
    log = [n for n, f in statistics.items() if f["events"] == "log"]
    single = [n for n in log if len(features[n]["keys"]) == 1]
    return {
        "ids and side features": (sides, 0),
        "+ tab and hour": (plain, 0),
        "+ statistics of single keys": (plain + single, 0),
        "+ statistics of pairs": (plain + log, 0),
        "+ statistics of the watch history": (list(features), 0),
        "+ watch history as training rows": (list(features), 1),
    }


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    document = yaml.safe_load(SPEC.read_text("utf-8"))
    table = Table(title="Upstream, KuaiRand, test split, all tabs")
    for head in ("features", "click AUC frozen", "click AUC daily", "valid AUC frozen"):
        table.add_column(head)
    for k, (name, (features, passes)) in enumerate(groups(document["features"]).items()):
        out = options.out / f"group_{k}"
        out.mkdir(parents=True, exist_ok=True)
        spec = {**document, "features": {n: document["features"][n] for n in features}}
        path = out / "spec.yaml"
        path.write_text(yaml.safe_dump(spec, sort_keys=False), "utf-8")
        # The same settings for all groups, those of docs/results.md: only the features differ.
        assignments = [
            "upstream.training.auto=false",
            "upstream.training.batch_size=1024",
            "upstream.training.optimizer.table_learning_rate=0.1",
            "upstream.training.optimizer.dense_learning_rate=0.001",
            f"upstream.training.auxiliary_passes={passes}",
        ]
        run = Run(out / "run", resolve(path, assignments, {"seeds": options.seeds}))
        run.begin()
        prepare(run, options.data_dir)
        cells = [name]
        for seed in run.config.all_seeds:
            pretrain(run, seed)
        for split, refresh in (("test", "frozen"), ("test", "daily"), ("valid", "frozen")):
            values = [_auc(run, seed, split, refresh) for seed in run.config.all_seeds]
            deviation = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.4f}{deviation}")
        table.add_row(*cells)
    Console(width=120).print(table)


def _auc(run: Run, seed: int, split: str, refresh: str) -> float:
    stored = json.loads((run.upstream(seed) / "results.json").read_text("utf-8"))
    wanted = {"scenario": "all", "task": "click", "slice": "all", "split": split}
    wanted |= {"refresh": refresh}
    (entry,) = [e for e in stored["entries"] if all(e[k] == v for k, v in wanted.items())]
    return float(entry["metrics"]["auc"])


if __name__ == "__main__":
    main()
