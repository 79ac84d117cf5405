"""MovieLens-1M as implicit feedback: each rating is a positive and has two sampled negatives.

    python -m benchmarks.implicit_movielens FOLDER
    python train.py run --spec FOLDER/implicit.yaml --data-dir FOLDER --out OUT

The log has no time and no drift: rows are shuffled, and statistics of the past say next to nothing
that the ids do not. A one-pass upstream is at its worst on it, trees and many epochs at their best.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lfm4ads_tf.data.datasets import movielens
from lfm4ads_tf.files import write_text
from lfm4ads_tf.pipeline.prepare import download_folder

NEGATIVES = 2

SPEC = """\
# MovieLens-1M as an implicit-feedback log; made by `python -m benchmarks.implicit_movielens`.
name: implicit
log: {files: [log.parquet]}
tables:
  users: {files: [users.parquet], key: user_id, owner: user}
  items: {files: [items.parquet], key: item_id, owner: item}
keys: {user: user_id, item: item_id, time: none, shuffle: 0}
tasks: {watched: watched, loved: loved}
split: {per: scenario, by: time, fractions: [0.8, 0.1, 0.1]}
period: {blocks: 8}
features:
  user_id: {owner: user, kind: vocabulary}
  gender: {owner: user, kind: vocabulary}
  age: {owner: user, kind: vocabulary}
  occupation: {owner: user, kind: vocabulary}
  item_id: {owner: item, kind: vocabulary}
  genres: {owner: item, kind: multi, encoding: vocabulary}
"""


def write_log(folder: Path, seed: int = 0) -> int:
    """Writes the log, its side tables and its spec; returns the number of rows.

    A negative is a movie drawn evenly among all that the user has not rated. `loved` is a rating of
    five, 0 for negatives.
    """
    source = movielens.prepare(None, download_folder())
    ratings = pq.read_table(source / "ratings.parquet")
    ratings = ratings.filter(pc.equal(ratings["scenario"], "ML-1M"))
    users, user = np.unique(ratings["user_id"].to_numpy(zero_copy_only=False), return_inverse=True)
    items, item = np.unique(ratings["item_id"].to_numpy(zero_copy_only=False), return_inverse=True)
    rated = np.zeros((len(users), len(items)), bool)
    rated[user, item] = True
    draw = np.random.default_rng(seed)
    negatives = []
    for who in range(len(users)):
        free = np.flatnonzero(~rated[who])
        count = min(NEGATIVES * int(rated[who].sum()), len(free))
        negatives.append((np.full(count, who), draw.choice(free, count, replace=False)))
    of_user = np.concatenate([user, *[n[0] for n in negatives]])
    of_item = np.concatenate([item, *[n[1] for n in negatives]])
    none = np.zeros(len(of_user) - len(user), np.int8)
    loved = np.concatenate([ratings["love"].to_numpy().astype(np.int8), none])
    watched = np.concatenate([np.ones(len(user), np.int8), none])
    order = draw.permutation(len(of_user))
    folder.mkdir(parents=True, exist_ok=True)
    log = pa.table(
        {
            "user_id": users[of_user[order]],
            "item_id": items[of_item[order]],
            "watched": watched[order],
            "loved": loved[order],
        }
    )
    pq.write_table(log, folder / "log.parquet")
    for name in ("users.parquet", "items.parquet"):
        pq.write_table(pq.read_table(source / name), folder / name)
    write_text(folder / "implicit.yaml", SPEC)
    return len(log)


def main() -> None:
    """Writes the log to the folder given."""
    parser = argparse.ArgumentParser(description="An implicit-feedback log of MovieLens-1M.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print(f"{write_log(folder):,} rows in {folder}")


if __name__ == "__main__":
    main()
