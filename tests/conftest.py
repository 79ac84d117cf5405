"""A small ads log with every kind of feature, written as files, loaded and encoded."""

from __future__ import annotations

import copy
import csv
import gc
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

import lfm4ads_tf  # noqa: F401 - settles which Keras is used before anything imports TensorFlow
from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.encode import encode_to
from lfm4ads_tf.data.raw import RawData, load_raw
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.spec_file import parse_spec

# How long an example takes on a busy machine says nothing of what it holds.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

USERS, ITEMS, DAYS = 14, 10, 8

ADS_SPEC: dict[str, Any] = {
    "name": "small_ads",
    "log": {"files": ["log.csv"]},
    "tables": {
        "users": {"files": ["users.csv"], "key": "user_id", "owner": "user"},
        "items": {"files": ["items.csv"], "key": "ad", "owner": "item"},
    },
    "auxiliary": {
        "files": ["history.csv.gz"],
        "scenario": "past",
        "order": "position",
        "labels": {"click": "watched"},
    },
    "keys": {
        "user": "user_id",
        "item": "item_id",
        "time": "time_ms",
        "time_unit": "ms",
        "scenario": "tab",
    },
    "tasks": {"click": "click", "love": {"label": "stars", "positive_at_least": 4}},
    "split": {"by": "day", "train_until": 6, "valid_until": 7},
    "period": {"by": "day"},
    "features": {
        "user_id": {"owner": "user", "kind": "vocabulary", "min_count": 2},
        "age": {"owner": "user", "kind": "numeric", "transform": "log"},
        "level": {"owner": "user", "kind": "identity", "size": 4},
        "segment": {"owner": "user", "kind": "hashed", "buckets": 7, "dim": 2},
        "interests": {
            "owner": "user",
            "kind": "multi",
            "encoding": "vocabulary",
            "weights": "interest_weights",
        },
        "pages": {"owner": "user", "kind": "sequence", "buckets": 9, "max_length": 2},
        "user_click": {"owner": "user", "kind": "statistic", "task": "click", "keys": ["user"]},
        "clicked": {
            "owner": "user",
            "kind": "sequence",
            "events_of": "click",
            "table": "item_id",
            "max_length": 3,
        },
        "item_id": {"owner": "item", "kind": "vocabulary"},
        "price": {"owner": "item", "kind": "numeric", "transform": "buckets", "buckets": 3},
        "brand": {"owner": "item", "kind": "hashed", "buckets": 5},
        "tags": {"owner": "item", "kind": "multi", "buckets": 11, "pooling": "sum"},
        "vector": {"owner": "item", "kind": "pretrained", "size": 2},
        "item_love": {
            "owner": "item",
            "kind": "statistic",
            "task": "love",
            "keys": ["item"],
            "smoothing": 3,
            "values": ["rate"],
        },
        "tab": {"owner": "context", "kind": "vocabulary"},
        "hour": {"owner": "context", "kind": "numeric", "standardize": False},
        "segment_brand": {
            "owner": "context",
            "kind": "crossed",
            "columns": ["segment", "brand"],
            "buckets": 20,
        },
        "user_price_click": {
            "owner": "context",
            "kind": "statistic",
            "task": "click",
            "keys": ["user", "price"],
            "events": "log",
        },
        "item_tab_click": {
            "owner": "context",
            "kind": "statistic",
            "task": "click",
            "keys": ["item", "scenario"],
            "values": ["rate", "count"],
        },
    },
}

Rows = list[dict[str, Any]]
Tables = dict[str, Rows]


def ads_tables(seed: int = 0, per_day: int = 60) -> Tables:
    """The rows of every file; the log is in time order, day after day."""
    rng = np.random.default_rng(seed)

    def some(value: Any) -> Any:
        return "" if rng.random() < 0.1 else value

    def texts(prefix: str, most: int) -> list[str]:
        return [f"{prefix}{k}" for k in rng.integers(0, 6, rng.integers(0, most))]

    users, items, log, history = [], [], [], []
    for u in range(USERS - 1):  # the last user and the last item have no row of their own
        interests = texts("topic", 4)
        users.append(
            {
                "user_id": f"u{u}",
                "age": some(int(rng.integers(16, 80))),
                "level": some(int(rng.integers(0, 5))),
                "segment": some(f"s{rng.integers(0, 4)}"),
                "interests": "|".join(interests),
                "interest_weights": "|".join(f"{rng.random():.3f}" for _ in interests),
                "pages": "|".join(texts("page", 5)),
            }
        )
    for i in range(ITEMS - 1):
        items.append(
            {
                "ad": f"i{i}",
                "price": some(round(float(rng.lognormal(1, 1)), 2)),
                "brand": some(f"b{rng.integers(0, 3)}"),
                "tags": "|".join(texts("tag", 4)),
                "vector": some("|".join(f"{x:.3f}" for x in rng.normal(size=2))),
            }
        )
    for day in range(DAYS):
        for k in range(per_day):
            # Two items appear on later days only, so that cold keys and late vocabulary exist.
            item = int(rng.integers(0, ITEMS - 2 if day < 4 else ITEMS))
            log.append(
                {
                    "user_id": f"u{rng.integers(0, USERS)}",
                    "item_id": f"i{item}",
                    "tab": f"t{rng.integers(0, 2)}",
                    "time_ms": 1_700_000_000_000 + day * 86_400_000 + k * 1000,
                    "day": day,
                    "hour": k % 24,
                    "click": some(int(rng.random() < 0.2 + 0.06 * item)),
                    "stars": int(rng.integers(1, 6)),
                }
            )
    for k in range(40):
        history.append(
            {
                "user_id": f"u{rng.integers(0, USERS)}",
                "item_id": f"i{rng.integers(0, ITEMS - 2)}",
                "position": k,
                "watched": int(rng.random() < 0.5),
            }
        )
    return {"log": log, "users": users, "items": items, "history": history}


def write_tables(folder: Path, tables: Tables) -> None:
    """Writes the files that `ADS_SPEC` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        path = folder / ("history.csv.gz" if name == "history" else f"{name}.csv")
        opened = gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w")
        with opened as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def pytest_collection_finish() -> None:
    """Keeps the garbage collector from walking over what all tests share, again and again.

    A traced function is many small objects, so that full passes come often, and each looks at
    everything that is alive: TensorFlow, the test modules, the session's models. They took a tenth
    of the session's processor time. What is imported by now stays to the end and is left out; full
    passes over the rest may come ten times less often.
    """
    young, middle, old = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(young, middle, 10 * old)


@dataclass(frozen=True)
class AdsWorld:
    """One encoded data set and what it was made of."""

    spec: FeatureSpec
    raw: RawData
    folder: Path
    cache: EncodedCache


@pytest.fixture(scope="session")
def make_ads(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AdsWorld]:
    """Builds an encoded data set: `make_ads(change=None, **spec_keys)`.

    `change` may alter the tables in place before they are written.
    """

    def make(
        change: Callable[[Tables], None] | None = None, *, per_day: int = 60, **over: Any
    ) -> AdsWorld:
        folder = tmp_path_factory.mktemp("ads")
        tables = ads_tables(per_day=per_day)
        if change is not None:
            change(tables)
        write_tables(folder / "files", tables)
        spec = parse_spec({**ADS_SPEC, **over})
        raw = load_raw(spec, folder / "files")
        (folder / "data").mkdir()
        encode_to(folder / "data", spec, raw, {"fingerprint": "test"})
        return AdsWorld(spec, raw, folder / "data", EncodedCache(folder / "data"))

    return make


@pytest.fixture(scope="session")
def ads_files() -> Callable[[Path, Callable[[Tables], None]], Path]:
    """`ads_files(folder, change)`: the changed tables as files, without encoding them."""

    def write(folder: Path, change: Callable[[Tables], None]) -> Path:
        tables = ads_tables()
        change(tables)
        write_tables(folder, tables)
        return folder

    return write


@pytest.fixture(scope="session")
def ads_features() -> Callable[..., dict[str, Any]]:
    """`ads_features(*names)`: some of the features, for models that are traced fast."""
    return lambda *names: {n: ADS_SPEC["features"][n] for n in names}


@pytest.fixture()
def ads_spec() -> dict[str, Any]:
    """The spec as plain values, to be changed."""
    return copy.deepcopy(ADS_SPEC)


@pytest.fixture(scope="session")
def ads(make_ads: Callable[..., AdsWorld]) -> AdsWorld:
    """The unchanged data set."""
    return make_ads()


@pytest.fixture(scope="session")
def changed_from() -> Callable[..., Callable[[Tables], None]]:
    """`changed_from(day, labels_only=False)`: a change of every event from a day on."""

    def changer(day: int, *, labels_only: bool = False) -> Callable[[Tables], None]:
        def change(tables: Tables) -> None:
            rng = np.random.default_rng(99)
            log = tables["log"]
            for row in log:
                if row["day"] < day:
                    continue
                row["click"] = int(rng.random() < 0.5)
                row["stars"] = int(rng.integers(1, 6))
                if not labels_only:
                    row["item_id"] = f"i{rng.integers(0, ITEMS + 3)}"
                    row["user_id"] = f"u{rng.integers(0, USERS + 3)}"
                    row["tab"] = f"t{rng.integers(0, 3)}"
                    row["hour"] = int(rng.integers(0, 24))
            if not labels_only:
                more = [dict(row, time_ms=row["time_ms"] + 500) for row in log if row["day"] >= day]
                tables["log"] = sorted(log + more, key=lambda row: row["time_ms"])

        return change

    return changer
