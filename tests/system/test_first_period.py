"""A number that is constant on the first day does not blind the model."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from lfm4ads_tf.data.cache import EncodedCache

DAYS, PER_DAY = 7, 150
SPEC = {
    "name": "late",
    "log": {"files": ["log.csv"]},
    "keys": {"user": "user", "item": "item", "time": "time"},
    "tasks": {"click": "click", "coin": "coin"},
    "split": {"by": "day", "train_until": 5, "valid_until": 6},
    "period": {"by": "day"},
    "features": {
        "user": {"owner": "user", "kind": "hashed", "buckets": 50},
        "item": {"owner": "item", "kind": "hashed", "buckets": 50},
        "amount": {"owner": "context", "kind": "numeric"},
    },
}


@pytest.fixture(scope="module")
def late(
    cli: Callable[..., Any], small: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A pre-trained run: `amount` is 0 on the first day, then 0 to 60,000, and decides a click."""
    folder = tmp_path_factory.mktemp("late")
    rng = np.random.default_rng(5)
    columns = ["user", "item", "time", "day", "amount", "click", "coin"]
    with (folder / "log.csv").open("w", newline="") as stream:
        write = csv.writer(stream)
        write.writerow(columns)
        for k in range(DAYS * PER_DAY):
            day = k // PER_DAY
            amount = int(rng.integers(0, 60_001)) if day else 0
            click = rng.random() < 0.1 + 0.8 * amount / 60_000
            coin = rng.random() < 0.5
            keys = (f"u{rng.integers(0, 40)}", f"i{rng.integers(0, 40)}")
            write.writerow([*keys, k * 60, day, amount, int(click), int(coin)])
    (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC, sort_keys=False))
    options = [
        "--spec",
        folder / "spec.yaml",
        "--data-dir",
        folder,
        "--out",
        folder / "run",
        *small,
    ]
    done = [cli(stage, *options) for stage in ("prepare", "pretrain")]
    assert [of.code for of in done] == [0, 0], done[-1].text
    return folder / "run", done


def test_the_first_period_is_two_days(late: tuple[Path, Any]) -> None:
    out, (prepared, _) = late
    cache = EncodedCache(out / "data")
    assert np.bincount(cache.period).tolist() == [2 * PER_DAY, *[PER_DAY] * 5]
    with (out.parent / "log.csv").open() as stream:
        amount = np.array([float(row["amount"]) for row in csv.DictReader(stream)])
    first = amount[: 2 * PER_DAY]
    dense = np.asarray(cache.column("dense"))[:, 0]
    np.testing.assert_allclose(dense, (amount - first.mean()) / first.std(), rtol=1e-5, atol=1e-6)
    assert np.abs(dense).max() < 10
    assert "the first 2 of 5 training periods (300 rows, 0 to 1) count as one" in prepared.log
    assert "'amount' has one value (0) in 150 rows" in prepared.log


def test_the_upstream_learns_from_it_and_says_what_it_does_not_learn(
    late: tuple[Path, Any],
) -> None:
    out, (_, trained) = late
    folder = out / "upstream" / "seed_0"
    scores = np.load(folder / "predictions.npz")
    labels = EncodedCache(out / "data").labels[scores["test_rows"]]
    assert roc_auc_score(labels[:, 0], scores["test_frozen"][:, 0]) > 0.75
    poor = json.loads((folder / "results.json").read_text())["unlearnt"]
    assert poor and {of["task"] for of in poor} == {"coin"}
    assert len({of["split"] for of in poor}) == len(poor)
    assert "upstream seed 0 is no better than a constant for 'coin' on 150" in trained.log
    assert sorted(p.name for p in (folder / "snapshots").iterdir()) == ["1", "2", "3", "4"]
