"""Ablation tables of transfer on KuaiRand, from finished runs.

    python -m benchmarks.ablations methods GROUP [GROUP ...]
    python -m benchmarks.ablations table OUT [OUT ...] [--group GROUP] [--slice all]

`methods` prints the method names of some groups, comma-separated, for
`train.py transfer --methods`. `table` prints one Markdown table of the runs' `metrics.json`: test
AUC as the mean over scenarios weighted by rows, mean and deviation over seeds, with paired
differences, and per scenario the difference to `none`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.metrics import paired_comparison
from lfm4ads_tf.pipeline.overall import BASELINES

_UR_IR = "UR+IR"
_CR = "CR_user@ad.cross_2"
_ALL = f"{_UR_IR}+{_CR}+CR_item@ad.cross_2"
_LAYERS = ("towers", "ad.fm", "ad.cross_1", "ad.cross_2", "ad.dnn_1", "ad.dnn_2", "content.cross_2")

GROUPS: dict[str, list[str]] = {
    "baselines": ["none", "feature/linear/UR", "upstream", "full"],
    "representations": [
        f"feature/mlp/{r}" for r in ("UR", "IR", _CR, "CR_item@ad.cross_2", _UR_IR, _ALL)
    ],
    "layers": [f"feature/gate/CR_user@{layer}" for layer in _LAYERS],
    "aggregations": [
        f"feature/gate/{_CR}~{kind}" for kind in ("last", "mean", "count_decay", "time_decay-raw")
    ],
    "adapters": [
        f"feature/{adapter}/{_ALL}"
        for adapter in ("linear", "mlp", "token", "gate", "gate_mlp", "gate_fields")
    ],
    "modules": [
        *(f"module/warm_start/{at}" for at in ("embeddings", "cross_2", "dnn_2", "output")),
        "module/warm_start/output+frozen",
        *(f"module/isomorphic{form}" for form in ("", "+fresh", "+frozen")),
    ],
    "combinations": [
        "feature/linear/UR & module/isomorphic",
        f"feature/mlp/{_ALL} & module/isomorphic",
        f"feature/gate/{_CR} & module/warm_start/output",
    ],
}


def methods_of(groups: list[str]) -> list[str]:
    """Methods of some groups, each once.

    Raises:
        UserError: A group is unknown.
    """
    for group in groups:
        if group not in GROUPS:
            raise UserError(
                f"The group '{group}' is unknown.", fix=f"use some of {', '.join(GROUPS)}"
            )
    return list(dict.fromkeys(m for group in groups for m in GROUPS[group]))


def trained_methods(groups: list[str]) -> list[str]:
    """Those of them that are trained; `upstream` is always scored."""
    return [m for m in methods_of(groups) if m != "upstream"]


class AblationTable:
    """Test AUC of methods by scenario and seed, of one or several runs.

    Args:
        documents: Name of the run -> its `metrics.json`. A method of a run but the first is
            called `<method> [<run>]`.
        task: The task.
        refresh: `frozen` or `daily`.
        split: `test` or `valid`.
        slice_name: Slice of the rows.
    """

    def __init__(
        self,
        documents: dict[str, dict[str, Any]],
        *,
        task: str,
        refresh: str,
        split: str = "test",
        slice_name: str = "all",
    ) -> None:
        wanted = (task, refresh, split, slice_name)
        self._auc: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
        self._rows: dict[str, int] = {}
        for position, (name, document) in enumerate(documents.items()):
            means = {s for e in document["overall"] for s in e["scenarios"]}
            for entry in document["results"]:
                identity = tuple(entry[k] for k in ("task", "refresh", "split", "slice"))
                known = entry["metrics"]["auc"] is not None
                if (
                    entry["stage"] == "downstream"
                    and identity == wanted
                    and entry["scenario"] in means
                    and known
                ):
                    method = entry["method"] + (f" [{name}]" if position else "")
                    by_seed = self._auc[method][entry["scenario"]]
                    by_seed[entry["seed"]] = entry["metrics"]["auc"]
                    self._rows[entry["scenario"]] = entry["rows"]

    @property
    def scenarios(self) -> list[str]:
        """Scenarios, largest first."""
        return sorted(self._rows, key=lambda s: -self._rows[s])

    def mean(self, method: str) -> dict[int, float | None]:
        """Seed -> mean over scenarios weighted by rows, of the seeds with all of them."""
        of = self._auc[method]
        seeds = set.intersection(*(set(of[s]) for s in self.scenarios))
        total = sum(self._rows.values())
        return {
            seed: sum(self._rows[s] * of[s][seed] for s in self.scenarios) / total
            for seed in sorted(seeds)
        }

    def markdown(
        self, methods: Collection[str] | None = None, baselines: tuple[str, ...] = BASELINES
    ) -> str:
        """The table; differences in AUC points, `*` where the paired t-test has p < 0.05.

        Args:
            methods: Methods that get a line, those of further runs included; all when absent.
            baselines: Methods that the means are compared with.
        """
        heads = ["method", "seeds", "mean AUC", *(f"to `{b}`" for b in baselines)]
        heads += [f"tab {s}" for s in self.scenarios]
        lines = ["| " + " | ".join(heads) + " |", "|---|" + "---|" * (len(heads) - 1)]
        order = list(methods) if methods is not None else [m.partition(" [")[0] for m in self._auc]
        chosen = [m for m in self._auc if m.partition(" [")[0] in order]
        for method in sorted(chosen, key=lambda m: order.index(m.partition(" [")[0])):
            mean = self.mean(method)
            values = [v for v in mean.values() if v is not None]
            if not values:
                continue
            spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
            cells = [f"`{method}`", str(len(values)), f"{np.mean(values):.4f}{spread}"]
            cells += [
                _difference(mean, self.mean(b)) if b in self._auc and b != method else ""
                for b in baselines
            ]
            for scenario in self.scenarios:
                own: dict[int, float | None] = dict(self._auc[method][scenario])
                none: dict[int, float | None] = dict(self._auc["none"][scenario])
                auc = np.mean([v for v in own.values() if v is not None])
                cells.append(f"{auc:.4f} {_difference(own, none) if method != 'none' else ''}")
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)


def _difference(own: dict[int, float | None], other: dict[int, float | None]) -> str:
    """`+0.12 ± 0.03`, with a star where p < 0.05."""
    paired = paired_comparison(own, other)
    if paired.diff_mean is None:
        return ""
    text = f"{100 * paired.diff_mean:+.2f}"
    if paired.diff_sd is not None and paired.p is not None:
        text += f" ± {100 * paired.diff_sd:.2f}" + ("*" if paired.p < 0.05 else "")
    return text


def main(arguments: list[str] | None = None) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    names = commands.add_parser("methods")
    names.add_argument("groups", nargs="+")
    table = commands.add_parser("table")
    table.add_argument("runs", nargs="+", type=Path)
    table.add_argument("--task", default="click")
    table.add_argument("--refresh", default="frozen", choices=["frozen", "daily"])
    table.add_argument("--split", default="test", choices=["valid", "test"])
    table.add_argument("--slice", default="all")
    table.add_argument("--group", action="append", help="lines of this group alone; repeatable")
    options = parser.parse_args(arguments)
    try:
        if options.command == "methods":
            print(",".join(trained_methods(options.groups)))
            return 0
        documents = {}
        for run in options.runs:
            path = run / "metrics.json"
            if not path.exists():
                raise UserError(f"'{run}' holds no metrics.json.", fix="run `train.py evaluate`")
            documents[run.name] = json.loads(path.read_text("utf-8"))
        made = AblationTable(
            documents,
            task=options.task,
            refresh=options.refresh,
            split=options.split,
            slice_name=options.slice,
        )
        chosen = methods_of(options.group) if options.group else None
        print(made.markdown(chosen))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
