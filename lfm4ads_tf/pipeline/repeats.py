"""Whether retrieval is to find items that the user was positive about before."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.pipeline.retrieval_model import retrieval_task
from lfm4ads_tf.pipeline.run import Run

LIMIT = 0.2
"""Share of repeats from which `exclude_seen: auto` lets them count."""


@dataclass(frozen=True)
class Repeats:
    """What `retrieval.exclude_seen` comes to in a run; training rows alone decide.

    Attributes:
        task: The task of the positives.
        asked: `retrieval.exclude_seen` as it was given.
        positives: Positives of the last training period that has some; where all are of one
            period, of the later half of its positives.
        share: Share of them whose user was positive about the item in an earlier training period
            (in the earlier half), None without an earlier positive.
        exclude_seen: Whether a user's training positives are no candidates: with `auto`, where
            the share is below `LIMIT` or unknown.
    """

    task: str
    asked: str | bool
    positives: int
    share: float | None
    exclude_seen: bool

    @classmethod
    def of(cls, run: Run) -> Repeats:
        """Reads the training rows of a run."""
        task, asked = retrieval_task(run), run.config.retrieval.exclude_seen
        column = run.cache.layout.tasks.index(task)
        positives, share = repeated_share(run.cache, column)
        chosen = asked if isinstance(asked, bool) else share is None or share < LIMIT
        return cls(task, asked, positives, share, chosen)

    @property
    def told(self) -> str:
        """One line about it."""
        what = "are left out of" if self.exclude_seen else "stay among"
        share = "no earlier ones to compare with"
        if self.share is not None:
            share = f"{100 * self.share:.1f} % of {self.positives:,} are repeats"
        return (
            f"a user's training positives {what} the candidates (exclude_seen: "
            f"{str(self.asked).lower()}; '{self.task}' in the last training period: {share}, "
            f"limit {100 * LIMIT:.0f} %)"
        )

    def to_json(self) -> dict[str, Any]:
        """As `metrics.json` holds it."""
        return {**asdict(self), "limit": LIMIT}


def repeated_share(cache: EncodedCache, column: int) -> tuple[int, float | None]:
    """Positives of the last training period, and the share of repeats among them; see `Repeats`.

    Args:
        cache: The encoded cache.
        column: Column of the labels.
    """
    train = cache.train_rows
    rows = train[cache.labels[train, column] == 1]
    if not len(rows):
        return 0, None
    late = cache.period[rows] == cache.period[rows].max()
    if late.all():
        late = np.arange(len(rows)) >= len(rows) // 2
    items = int(cache.item.max()) + 1
    pair = cache.user[rows].astype(np.int64) * items + cache.item[rows]
    if late.all():
        return len(rows), None
    return int(late.sum()), float(np.isin(pair[late], pair[~late]).mean())
