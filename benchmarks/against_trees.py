"""Upstream and LightGBM of finished runs side by side, as a Markdown table.

    python -m benchmarks.against_trees OUT [OUT ...]

Each OUT is the folder of a run with the stages `pretrain` and `baseline`. Per task and refresh:
test AUC over all rows, mean over the seeds that both have (with the deviation, if there are
several), and the difference with its 95 % interval by a paired bootstrap over users. Nothing is
trained.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lfm4ads_tf.baselines.light_gbm import LightGBM
from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.metrics import Interval, auc
from lfm4ads_tf.metrics.paired_bootstrap import Scored, paired_bootstrap

TREES = LightGBM.name
HEADS = ("log", "task", "refresh", "rows", "seeds", "upstream", "LightGBM", "difference, points")


@dataclass(frozen=True)
class ResultLine:
    """One task of one run under one refresh; `upstream` and `trees` are AUCs by seed."""

    name: str
    task: str
    refresh: str
    rows: int
    upstream: list[float]
    trees: list[float]
    difference: Interval

    def cells(self) -> list[str]:
        """The cells of its row."""
        of = self.difference
        value, low, high = (100 * v for v in (of.value, of.low, of.high))
        return [
            self.name,
            self.task,
            self.refresh,
            f"{self.rows:,}",
            str(len(self.upstream)),
            _spread(self.upstream),
            _spread(self.trees),
            f"{value:+.2f} [{low:+.2f}, {high:+.2f}]",
        ]


def lines(out: Path) -> Iterator[ResultLine]:
    """The lines of one run; tasks with one class in the test rows are left out.

    Raises:
        UserError: The folder lacks the upstream or LightGBM.
    """
    cache = EncodedCache(out / "data")
    folders = {"upstream": out / "upstream", TREES: out / "baseline" / TREES}
    found = {m: {p.parent.name for p in f.glob("seed_*/results.json")} for m, f in folders.items()}
    seeds = sorted(found["upstream"] & found[TREES], key=lambda name: int(name.split("_")[1]))
    if not seeds:
        raise UserError(
            f"'{out}' has no seed with both an upstream and LightGBM.",
            received={method: sorted(names) for method, names in found.items()},
            fix="run the stages `pretrain` and `baseline` there first",
        )
    rows = cache.rows_of("test")
    users = cache.user[rows]
    for k, task in enumerate(cache.layout.tasks):
        labels = cache.labels[rows, k]
        for refresh in ("frozen", "daily"):
            scores = {
                method: np.stack([_scores(folder / seed, rows, refresh)[:, k] for seed in seeds])
                for method, folder in folders.items()
            }
            interval = paired_bootstrap([Scored(labels, users, scores)], TREES).get("upstream")
            if interval is None:
                continue
            values = {m: [auc(labels, s) or 0.0 for s in of] for m, of in scores.items()}
            yield ResultLine(
                out.name,
                task,
                refresh,
                int(np.isfinite(labels).sum()),
                values["upstream"],
                values[TREES],
                interval,
            )


def _scores(folder: Path, rows: np.ndarray, refresh: str) -> np.ndarray:
    with np.load(folder / "predictions.npz") as stored:
        if not np.array_equal(stored["test_rows"], rows):
            raise UserError(
                f"The predictions in '{folder}' are of other rows than the encoded data's.",
                fix="run the stage again in a new folder",
            )
        scores: np.ndarray = stored[f"test_{refresh}"]
        return scores


def _spread(values: list[float]) -> str:
    mean = f"{np.mean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.4f}"


def markdown(found: list[ResultLine]) -> str:
    """The table as text."""
    rows = [HEADS, ("---",) * len(HEADS), *(line.cells() for line in found)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="+")
    options = parser.parse_args()
    print(markdown([line for out in options.out for line in lines(out)]))


if __name__ == "__main__":
    main()
