"""What `retrieval.exclude_seen` comes to, and the popularity row, against loops over the rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.data.execution import Execution
from lfm4ads_tf.data.splits import TRAIN
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.files import write_json
from lfm4ads_tf.metrics import auc
from lfm4ads_tf.pipeline import retrieve
from lfm4ads_tf.pipeline.popular_items import score_popularity
from lfm4ads_tf.pipeline.repeats import LIMIT, Repeats, repeated_share
from lfm4ads_tf.pipeline.retrieval_data import SeenItems
from lfm4ads_tf.pipeline.retrieval_model import REFRESHED
from lfm4ads_tf.strict import parse
from lfm4ads_tf.transfer.retrieval.method import parse_retrieval_method


def _run(ads: Any, out: Path, **retrieval: Any) -> Any:
    config = parse(RunConfig, {"retrieval": {"k": 3, **retrieval}}, source="run")
    return SimpleNamespace(
        cache=ads.cache,
        config=config,
        execution=Execution(),
        retrieval=lambda s, m, seed: out / s / str(seed),
    )


def _share(cache: Any, column: int) -> tuple[int, float]:
    positive = (cache.split == TRAIN) & (cache.labels[:, column] == 1)
    last = cache.period[positive].max()
    earlier = {
        (cache.user[r], cache.item[r]) for r in np.flatnonzero(positive & (cache.period < last))
    }
    late = np.flatnonzero(positive & (cache.period == last))
    return len(late), np.mean([(cache.user[r], cache.item[r]) in earlier for r in late])


def test_the_share_is_that_of_a_loop_over_training_rows(
    ads: Any, make_ads: Callable[..., Any], changed_from: Any
) -> None:
    for column in (0, 1):
        found = repeated_share(ads.cache, column)
        assert found == pytest.approx(_share(ads.cache, column)) and found[1] is not None
        assert 0 < found[1] < 1
        later = make_ads(changed_from(6)).cache  # every row after training
        assert repeated_share(later, column) == found


def test_one_period_is_cut_in_halves() -> None:
    cache: Any = SimpleNamespace(
        train_rows=np.arange(5),
        labels=np.array([[1], [0], [1], [1], [1.0]]),
        period=np.zeros(5, np.int32),
        user=np.array([0, 0, 1, 0, 1]),
        item=np.array([5, 5, 6, 5, 7]),
    )
    assert repeated_share(cache, 0) == (2, 0.5)  # (0, 5) again, (1, 7) for the first time
    cache.train_rows = np.arange(1)
    assert repeated_share(cache, 0) == (1, None)
    cache.train_rows = np.arange(1, 2)
    assert repeated_share(cache, 0) == (0, None)


@pytest.mark.parametrize(("asked", "excluded"), [("auto", None), (True, True), (False, False)])
def test_the_switch(ads: Any, tmp_path: Path, asked: Any, excluded: bool | None) -> None:
    repeats = Repeats.of(_run(ads, tmp_path, exclude_seen=asked))
    assert repeats.share is not None and repeats.share > LIMIT  # a small log of few items
    assert repeats.exclude_seen is (False if excluded is None else excluded)
    assert f"{100 * repeats.share:.1f} % of {repeats.positives}" in repeats.told
    assert repeats.to_json()["limit"] == LIMIT
    seen = SeenItems(ads.cache, 0, exclude=repeats.exclude_seen)
    assert bool(len(seen.of(np.unique(ads.cache.user))[1])) is repeats.exclude_seen


def test_another_value_is_refused() -> None:
    with pytest.raises(UserError, match="exclude_seen: use auto, true or false"):
        parse(RunConfig, {"retrieval": {"exclude_seen": "maybe"}}, source="run")


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        ({"exclude_seen": True}, "exclude_seen was true, which chose its epoch, and is now false"),
        ({}, "exclude_seen was true, which chose its epoch, and is now false"),  # a version before
        ({"exclude_seen": False}, None),
        ({"exclude_seen": False, REFRESHED: True}, None),
    ],
)
def test_a_model_that_is_trained_anew_is_told(
    ads: Any,
    tmp_path: Path,
    stored: dict[str, Any],
    told: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "lfm4ads_tf")
    nothing = SimpleNamespace(rows=[])  # leaves before the training
    monkeypatch.setattr(retrieve, "RetrievalModel", lambda *_: nothing)
    run = _run(ads, tmp_path)
    path = tmp_path / "all" / "0" / "results.json"
    write_json(path, {"entries": [], **stored})
    method = parse_retrieval_method("model/own", [])
    retrieve.train_retrieval(run, "all", method, 0, scored=["all"], exclude_seen=False)
    lines = [m for m in caplog.messages if "exclude_seen" in m]
    assert len(lines) == (told is not None) and all(told in line for line in lines if told)
    assert path.exists() is (stored == {"exclude_seen": False})


@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("scenario", ["all", "t1"])
def test_popularity_is_the_count_of_training_positives(
    ads: Any, tmp_path: Path, scenario: str, exclude: bool
) -> None:
    run = _run(ads, tmp_path, exclude_seen=exclude)
    score_popularity(run, scenario, 4, scored=[scenario], repeats=Repeats.of(run))
    path = tmp_path / scenario / "4" / "results.json"
    stored = json.loads(path.read_text())
    cache = ads.cache
    name = None if scenario == "all" else scenario
    train = cache.rows_of("train", name)
    hits = train[cache.labels[train, 0] == 1]
    counts = np.bincount(cache.item[hits], minlength=cache.item.max() + 1)
    assert [(e["split"], e["method"], e["seed"]) for e in stored["entries"]] == [
        ("valid", "model/popularity", 4), ("test", "model/popularity", 4)
    ]  # fmt: skip
    for entry in stored["entries"]:
        rows = cache.rows_of(entry["split"], name)
        values = []
        for user in np.unique(cache.user[rows]):
            own = rows[cache.user[rows] == user]
            relevant = set(cache.item[own][cache.labels[own, 0] == 1].tolist())
            mine = (cache.split == TRAIN) & (cache.user == user) & (cache.labels[:, 0] == 1)
            hidden = set(cache.item[mine].tolist()) if exclude else set()
            order = sorted(np.unique(cache.item).tolist(), key=lambda i: (-counts[i], i))
            top = [i for i in order if i not in hidden][:3]
            if relevant:
                values.append(len(relevant & set(top)) / len(relevant))
        assert entry["metrics"]["recall@3"] == pytest.approx(np.mean(values))
        assert entry["metrics"]["auc"] == auc(cache.labels[rows, 0], counts[cache.item[rows]])
    before = path.stat().st_mtime_ns
    score_popularity(run, scenario, 4, scored=[scenario], repeats=Repeats.of(run))
    assert path.stat().st_mtime_ns == before
    other = _run(ads, tmp_path, exclude_seen=not exclude)
    score_popularity(other, scenario, 4, scored=[scenario], repeats=Repeats.of(other))
    assert json.loads(path.read_text())["exclude_seen"] is not exclude
