"""Nothing of a day or later reaches that day's features, representations or weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.kinds import SequenceFeature, StatisticFeature
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.run import open_run
from lfm4ads_tf.training.checkpoints import read_weights

DAY = 3  # the period from which on events change: the fourth training day
STAGES = ("prepare", "pretrain", "extract")
Rows = list[list[str]]


def _day_of(row: list[str], columns: list[str]) -> int:
    return int(row[columns.index("day")]) - 20260101


def _changed(rows: Rows, columns: list[str]) -> Rows:
    """Other labels, items (new ones too), surfaces and prices from the day on; users stay."""
    rng = np.random.default_rng(3)
    at = {name: columns.index(name) for name in columns}
    out = []
    for row in rows:
        row = list(row)
        if _day_of(row, columns) >= DAY:
            row[at["clicked"]], row[at["ordered"]] = (str(v) for v in rng.integers(0, 2, 2))
            row[at["item_id"]] = f"i{rng.integers(0, 90)}"
            row[at["category"]] = f"c{rng.integers(0, 9)}"
            row[at["price"]] = f"{rng.random() * 1e4:.2f}"
            row[at["surface"]] = str(rng.choice(["home", "mail", "search", "new"]))
        out.append(row)
    return out


def _deleted(rows: Rows, columns: list[str]) -> Rows:
    """No training event from the day on, and only some of the valid and test events."""
    return [
        row
        for k, row in enumerate(rows)
        if _day_of(row, columns) < DAY or (_day_of(row, columns) >= 5 and k % 8 == 0)
    ]


@pytest.fixture(scope="module", params=["changed", pytest.param("deleted", marks=pytest.mark.slow)])
def changed(
    request: pytest.FixtureRequest,
    cli: Callable[..., Any],
    make_shop: Callable[..., Any],
    shop_module: dict[str, Any],
    small: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Path]:
    """A run on the log whose events from the day on are others, or gone."""
    change = _changed if request.param == "changed" else _deleted
    columns = shop_module["COLUMNS"].split(",")
    own = make_shop(change(shop_module["shop_rows"](), columns))
    out = tmp_path_factory.mktemp(request.param) / "run"
    for stage in STAGES:
        done = cli(stage, "--spec", own.spec, "--data-dir", own.folder, *small, "--out", out)
        assert done.code == 0, done.text
    return request.param, out


def _keyed(cache: EncodedCache, rows: np.ndarray, side: str) -> dict[str, dict[str, Any]]:
    """Key -> its moving features on the first of some rows."""
    spec = open_run(cache.folder.parent).spec
    moving = (StatisticFeature, SequenceFeature)
    names = [n for n, f in spec.features.items() if f.owner == side and isinstance(f, moving)]
    keys = cache.keys("user" if side == "user" else "item").to_pylist()
    codes = (cache.user if side == "user" else cache.item)[rows]
    batch = cache.take(rows)
    item_id = _vocabulary_texts(cache)
    starts, start = {}, 0
    for field in cache.layout.dense:
        starts[field.name] = slice(start, start + field.width)
        start += field.width
    found: dict[str, dict[str, Any]] = {}
    for k, code in enumerate(codes):
        if keys[code] in found:
            continue
        values: dict[str, Any] = {}
        for name in names:
            if name in starts:
                values[name] = batch["dense"][k, starts[name]].tobytes()
            else:
                bag = batch["bags"][name]
                ids = bag.values[bag.splits[k] : bag.splits[k + 1]]
                values[name] = [item_id[i] for i in ids]
        assert values
        found[keys[code]] = values
    return found


def _vocabulary_texts(cache: EncodedCache) -> list[str]:
    """Text of each id of the item vocabulary."""
    fitted = FittedEncoding.load(cache.folder / "encoding")
    return ["(rare)", *fitted.vocabularies["item_id"].values]


def test_rows_before_the_day_are_encoded_the_same(shop_run: Any, changed: tuple[str, Path]) -> None:
    ours, theirs = EncodedCache(shop_run[0] / "data"), EncodedCache(changed[1] / "data")
    before = np.flatnonzero(ours.period < DAY)
    assert len(before) > 800 and np.array_equal(before, np.flatnonzero(theirs.period < DAY))
    a, b = ours.take(before), theirs.take(before)
    for name in ("ids", "dense", "labels", "scenario"):
        assert a[name].tobytes() == b[name].tobytes(), name
    for name, bag in a["bags"].items():
        assert np.array_equal(bag.values, b["bags"][name].values), name
        assert np.array_equal(bag.splits, b["bags"][name].splits), name


def test_rows_of_the_day_see_the_same_past(shop_run: Any, changed: tuple[str, Path]) -> None:
    """Statistics and sequences joined to the day's rows, key by key, are bit-equal."""
    if changed[0] == "deleted":
        pytest.skip("the day has no rows left")
    ours, theirs = EncodedCache(shop_run[0] / "data"), EncodedCache(changed[1] / "data")
    for side, least in (("user", 80), ("item", 20)):
        a, b = (_keyed(c, np.flatnonzero(c.period == DAY), side) for c in (ours, theirs))
        shared = a.keys() & b.keys()
        assert len(shared) >= least
        assert any(any(v != next(iter(a.values()))[n] for n, v in a[k].items()) for k in shared)
        assert all(a[key] == b[key] for key in shared)


def test_snapshots_valid_on_the_day_have_the_same_weights(
    shop_run: Any, changed: tuple[str, Path]
) -> None:
    """Dense weights bit-equal, and every id of the older vocabulary has a bit-equal row."""
    seen = {}
    for out in (shop_run[0], changed[1]):
        run = open_run(out)
        model = build.upstream(run.cache.layout, run.config, 0)
        for period in (1, DAY):
            read_weights(model, run.upstream(0) / "snapshots" / str(period))
            seen[out, period] = _weights(model, run.cache)
    for period in (1, DAY):
        ours, theirs = seen[shop_run[0], period], seen[changed[1], period]
        assert ours.keys() == theirs.keys()
        for name in ours:
            # The last row of a table belongs to the missing value, wherever the table ends.
            count = min(len(ours[name]), len(theirs[name])) - (not name.startswith("dense"))
            assert ours[name][:count].tobytes() == theirs[name][:count].tobytes(), name
            if count < len(ours[name]) and not name.startswith("dense"):
                assert ours[name][-1].tobytes() == theirs[name][-1].tobytes(), name
    start, end = seen[shop_run[0], 1], seen[shop_run[0], DAY]
    assert all(not np.array_equal(start[n], end[n]) for n in ("user_id", "item_id"))


def _weights(model: Any, cache: EncodedCache) -> dict[str, np.ndarray]:
    """Rows of every logical table by id, and every dense variable, scenarios in order first."""
    embeddings = model.backbone.embeddings
    found: dict[str, np.ndarray] = {}
    for table in cache.layout.tables:
        found[table.name] = embeddings.read_table(table.name)
    parts = {id(p) for p in embeddings.all_parts()}
    for k, variable in enumerate(v for v in model.variables if id(v) not in parts):
        value = variable.numpy()
        # A head per scenario is some columns: those of the scenarios that both logs have count.
        if "scenario" in variable.name:
            value = np.moveaxis(value, -1, 0)  # (S T, d)
        found[f"dense {k} {variable.name}"] = value
    return found


def test_representations_valid_on_the_day_are_the_same(
    shop_run: Any, changed: tuple[str, Path]
) -> None:
    folders = [out / "representations" / "seed_0" for out in (shop_run[0], changed[1])]
    compared = 0
    for path in sorted(folders[0].rglob("train_*.parquet")):
        if int(path.stem.rpartition("_")[2]) > DAY:
            continue
        other = folders[1] / path.relative_to(folders[0])
        a, b = pq.read_table(path), pq.read_table(other)
        assert a["key"].equals(b["key"]), path
        flat = [t["vector"].combine_chunks().flatten().to_numpy() for t in (a, b)]
        assert flat[0].tobytes() == flat[1].tobytes(), path
        compared += 1
    assert compared == DAY * 10


def test_later_state_does_change(shop_run: Any, changed: tuple[str, Path]) -> None:
    """The property is not empty: the end of training knows the change."""
    name = "UR/train_5.parquet"
    ours = pq.read_table(shop_run[0] / "representations" / "seed_0" / name)
    other = changed[1] / "representations" / "seed_0" / name
    assert not other.exists() or not ours.equals(pq.read_table(other))
