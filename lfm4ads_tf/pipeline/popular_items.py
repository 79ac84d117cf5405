"""The same list for every user: what a retrieval model has to beat."""

from __future__ import annotations

import numpy as np

from lfm4ads_tf.files import write_json
from lfm4ads_tf.metrics import auc
from lfm4ads_tf.pipeline.repeats import Repeats
from lfm4ads_tf.pipeline.retrieval_data import Candidates, Queries, SeenItems, recall, rows_of
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.stored_results import stored_results
from lfm4ads_tf.transfer.retrieval.method import POPULARITY


def score_popularity(
    run: Run, scenario: str, seed: int, *, scored: list[str], repeats: Repeats
) -> None:
    """Scores the items by their positives in training, `s(u, i) = positives of i`.

    Args:
        run: The run.
        scenario: Whose training rows count, `all` for every row.
        seed: Whose results it stands beside; it changes nothing.
        scored: Scenarios with an entry of their own in the results.
        repeats: Whether repeats count.
    """
    folder = run.retrieval(scenario, POPULARITY, seed)
    path = folder / "results.json"
    if path.exists() and stored_results(path)["exclude_seen"] == repeats.exclude_seen:
        return
    cache, k = run.cache, run.config.retrieval.k
    column = cache.layout.tasks.index(repeats.task)
    train = rows_of(cache, "train", scenario)
    positives = train[cache.labels[train, column] == 1]
    counts = np.bincount(cache.item[positives], minlength=int(cache.item.max()) + 1)
    codes = Candidates.of(cache).codes
    items = counts[codes].astype(np.float64)[:, np.newaxis]  # (I, 1)
    seen = SeenItems(cache, column, exclude=repeats.exclude_seen)
    entries = []
    for split in ("valid", "test"):
        for name in scored:
            queries = Queries.of(cache, split, name, column)
            if not len(queries.rows):
                continue
            rows = rows_of(cache, split, name)
            users = np.ones((len(queries.rows), 1))
            metrics = {
                f"recall@{k}": recall(cache, queries, users, codes, items, seen, k),
                "auc": auc(cache.labels[rows, column], counts[cache.item[rows]]),
            }
            identity = {"stage": "retrieval", "scenario": name, "task": repeats.task}
            identity |= {"method": POPULARITY, "slice": "all", "refresh": "frozen", "split": split}
            size = {"seed": seed, "rows": len(queries.rows), "positives": len(queries.relevant)}
            entries.append({**identity, **size, "metrics": metrics, "wall_s": 0.0})
    report = {
        "history": [],
        "best": None,
        "steps": 0,
        "examples_per_s": None,
        "representations": None,
        "trained_on": scenario,
        "exclude_seen": repeats.exclude_seen,
        "entries": entries,
    }
    write_json(path, report)
