"""Logs without a time or a header, several files, joined keys, vectors in columns: the same cache
as that of the log in which everything stands in a column of its own."""

from __future__ import annotations

import copy
import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from lfm4ads_tf.data.append import append_to
from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.encode import encode_to
from lfm4ads_tf.data.new_rows import read_files, read_folder
from lfm4ads_tf.data.raw import load_raw
from lfm4ads_tf.data.requests import complete, read_requests
from lfm4ads_tf.data.vectors import settle
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.offline import encode_columns
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.spec_file import parse_spec

Row = dict[str, Any]
ROWS, SIZE = 240, 11
SPEC: dict[str, Any] = {
    "name": "plain",
    "log": {"files": ["log.csv"], "user_columns": ["taste", "country"]},
    "tables": {"people": {"files": ["people.csv"], "key": "country+id", "owner": "user"}},
    "keys": {"user": "country+id", "item": "item", "time": "place", "scenario": "kind"},
    "tasks": {"click": "click"},
    "split": {"per": "all", "by": "time", "fractions": [0.6, 0.2, 0.2]},
    "period": {"blocks": 6},
    "features": {
        "who": {"owner": "user", "kind": "vocabulary", "column": "country+id"},
        "hashed_who": {"owner": "user", "kind": "hashed", "column": "country+id"},
        "country": {"owner": "user", "kind": "vocabulary"},
        "age": {"owner": "user", "kind": "numeric"},
        "taste": {"owner": "user", "kind": "pretrained", "size": SIZE},
        "rate": {"owner": "user", "kind": "statistic", "task": "click", "keys": ["user"]},
        "before": {"owner": "user", "kind": "sequence", "events_of": "click", "table": "item"},
        "item": {"owner": "item", "kind": "vocabulary"},
        "kind": {"owner": "context", "kind": "vocabulary"},
    },
}


def spec_of(**over: dict[str, Any]) -> dict[str, Any]:
    """The spec, with some sections updated."""
    found = copy.deepcopy(SPEC)
    for section, values in over.items():
        found[section] = {**found.get(section, {}), **values}
    return found


@pytest.fixture(scope="module")
def log() -> list[Row]:
    """Rows in the order of their places; texts of keys with all that could collide."""
    rng = np.random.default_rng(3)
    parts = [("SE", "1"), ("SE", "1+2"), ("SE+1", "2"), ("S\\", "+1"), ("S\\+", "1"), ("NO", "7")]
    found = []
    for place in range(ROWS):
        country, number = parts[int(rng.integers(len(parts)))]
        row: Row = {"country": country, "id": number}
        row["country+id"] = "+".join(
            t.replace("\\", "\\\\").replace("+", "\\+") for t in (country, number)
        )
        row |= {"item": f"i{rng.integers(9)}", "kind": ["music", "book"][place % 2]}
        row |= {"place": place, "click": int(rng.random() < 0.4)}
        numbers = (np.round(rng.normal(size=SIZE), 3) + 0.0).tolist()  # no -0.0
        if place % 20 == 7:
            numbers[3] = 0.0  # in columns: an empty cell
        row["taste"] = numbers
        found.append(row)
    return found


def wide(row: Row) -> Row:
    """The vector in columns; a zero is an empty cell."""
    columns = {f"taste_{k}": v or "" for k, v in enumerate(row["taste"])}
    return {**{k: v for k, v in row.items() if k != "taste"}, **columns}


def without(*names: str) -> Callable[[Row], Row]:
    return lambda row: {k: v for k, v in row.items() if k not in names}


def write(path: Path, rows: Sequence[Row], *, header: bool = True) -> None:
    path.parent.mkdir(exist_ok=True)
    texts = [
        ["|".join(map(repr, v)) if isinstance(v, list) else str(v) for v in r.values()]
        for r in rows
    ]
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([list(rows[0])] * header + texts)


def write_people(folder: Path, rows: Sequence[Row], *, joined: bool) -> None:
    """A row per user; the last one lacks a part of its key and is nobody's."""
    people = {r["country+id"]: (r["country"], r["id"]) for r in rows}
    keys = [{"country+id": k} if joined else {"land": p[0], "nr": p[1]} for k, p in people.items()]
    nobody = {"country+id": ""} if joined else {"land": "NO", "nr": ""}
    rows = [{**k, "age": 20 + n * n} for n, k in enumerate([*keys, nobody])]
    write(folder / "people.csv", rows)


class World:
    """A log in a folder, read and encoded."""

    def __init__(self, folder: Path, raw: dict[str, Any]) -> None:
        self.folder = folder
        self.spec: FeatureSpec = settle(parse_spec(raw), folder)
        self.data = folder / "encoded"
        self.data.mkdir()
        encode_to(self.data, self.spec, load_raw(self.spec, folder), {"fingerprint": "x"})

    @property
    def cache(self) -> EncodedCache:
        return EncodedCache(self.data)

    def scored(self, path: Path) -> dict[str, Any]:
        """Rows as `predict` encodes them."""
        encoder = Encoder(self.spec, FittedEncoding.load(self.data / "encoding"))
        rows = read_requests(self.spec, self.data, path)
        return encode_columns(encoder, complete(self.spec, self.data, encoder, rows))

    def bits(self) -> dict[str, bytes]:
        """Every array, vocabulary and state."""
        return {
            str(path.relative_to(self.data)): path.read_bytes()
            for path in sorted(self.data.rglob("*"))
            if path.is_file() and (path.suffix == ".npy" or "state" in path.parts)
        }


def assert_same_bits(one: World, other: World) -> None:
    ours, theirs = one.bits(), other.bits()
    assert ours.keys() == theirs.keys() and len(ours) > 10
    for name, held in ours.items():
        if name.endswith(".parquet"):
            tables = [pq.read_table(w.data / name) for w in (one, other)]
            assert tables[0].equals(tables[1]), name
        else:
            assert held == theirs[name], name


def assert_same_rows(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name in ("ids", "dense", "scenario"):
        np.testing.assert_array_equal(one[name], other[name], name)
    for name, bag in one["bags"].items():
        for mine, theirs in zip(bag[:2], other["bags"][name][:2], strict=True):
            np.testing.assert_array_equal(mine, theirs, name)


@pytest.fixture(scope="module")
def plain(log: list[Row], tmp_path_factory: pytest.TempPathFactory) -> World:
    """The log in which everything stands in a column of its own."""
    folder = tmp_path_factory.mktemp("plain")
    write(folder / "log.csv", log)
    write_people(folder, log, joined=True)
    return World(folder, spec_of())


# --- each alone ---------------------------------------------------------------------------------


def test_a_log_without_a_time_is_one_whose_time_is_its_place(
    log: list[Row], plain: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "log.csv", [without("place")(r) for r in log])
    write_people(tmp_path, log, joined=True)
    assert_same_bits(World(tmp_path, spec_of(keys={"time": "none"})), plain)
    assert "the log has no time: 240 rows are ordered by their place in the files" in caplog.text
    assert "not point in time in the sense of real time" in caplog.text


def test_a_shuffled_log_is_one_whose_time_is_a_seeded_place(
    log: list[Row], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders = [tmp_path / name for name in ("none", "timed")]
    places = np.random.default_rng(5).permutation(ROWS).tolist()
    write(folders[0] / "log.csv", [without("place")(r) for r in log])
    write(folders[1] / "log.csv", [{**r, "place": p} for r, p in zip(log, places, strict=True)])
    for folder in folders:
        write_people(folder, log, joined=True)
    shuffled = World(folders[0], spec_of(keys={"time": "none", "shuffle": 5}))
    assert_same_bits(shuffled, World(folders[1], spec_of()))
    assert "in an order shuffled by the seed 5" in caplog.text


def test_a_log_without_a_time_is_split_by_a_column(log: list[Row], tmp_path: Path) -> None:
    rows = [{**without("place")(r), "part": 1 + (n % 3)} for n, r in enumerate(log)]
    write(tmp_path / "log.csv", rows)
    write_people(tmp_path, log, joined=True)
    raw = spec_of(keys={"time": "none"})
    raw["split"] = {"by": "part", "train_until": 2, "valid_until": 3}
    split = np.asarray(World(tmp_path, raw).cache.split)
    np.testing.assert_array_equal(split, np.arange(ROWS) % 3)


def test_names_stand_for_the_header(log: list[Row], plain: World, tmp_path: Path) -> None:
    write(tmp_path / "log.csv", log[:100], header=False)
    write(tmp_path / "more.csv", log[100:], header=False)
    write_people(tmp_path, log, joined=True)
    (tmp_path / "people.csv").write_text(
        (tmp_path / "people.csv").read_text().partition("\n")[2], "utf-8"
    )
    files = {"files": ["log.csv", "more.csv"], "columns": list(log[0])}
    raw = spec_of(log=files)
    raw["tables"]["people"]["columns"] = ["country+id", "age"]
    assert_same_bits(World(tmp_path, raw), plain)


def test_a_file_per_scenario_gives_the_scenario(
    log: list[Row], plain: World, tmp_path: Path
) -> None:
    for kind in ("music", "book"):
        rows = [without("kind")(r) for r in log if r["kind"] == kind]
        write(tmp_path / f"{kind}_1.csv", rows[:40])
        write(tmp_path / f"{kind}_2.csv", rows[40:])
    write_people(tmp_path, log, joined=True)
    files = {"music": ["music_1.csv", "music_2.csv"], "book": "book_*.csv"}
    assert_same_bits(World(tmp_path, spec_of(log={"files": files})), plain)


def test_a_joined_key_is_the_column_of_its_parts(
    log: list[Row], plain: World, tmp_path: Path
) -> None:
    write(tmp_path / "log.csv", [without("country+id")(r) for r in log])
    write_people(tmp_path, log, joined=False)
    raw = spec_of(keys={"user": ["country", "id"]})
    raw["tables"]["people"]["key"] = ["land", "nr"]
    joined = World(tmp_path, raw)
    assert_same_bits(joined, plain)
    assert len(joined.cache.keys("user")) == 6  # no two of the colliding texts are one


@pytest.mark.parametrize("columns", ["taste_*", [f"taste_{k}" for k in range(SIZE)]])
def test_columns_are_a_vector_in_natural_order(
    log: list[Row], plain: World, tmp_path: Path, columns: Any
) -> None:
    write(tmp_path / "log.csv", [wide(r) for r in log])
    write_people(tmp_path, log, joined=True)
    raw = spec_of()
    raw["features"]["taste"] = {"owner": "user", "kind": "pretrained", "columns": columns}
    found = World(tmp_path, raw)
    assert_same_bits(found, plain)
    feature = found.spec.features["taste"]
    assert feature.columns == [f"taste_{k}" for k in range(SIZE)]  # type: ignore[union-attr]
    assert found.cache.manifest["vectors"] == {"taste": feature.columns}  # type: ignore[union-attr]


def test_columns_of_a_side_table_are_a_vector(tmp_path: Path, log: list[Row]) -> None:
    write(tmp_path / "log.csv", [without("taste")(r) for r in log])
    write_people(tmp_path, log, joined=True)
    text = (tmp_path / "people.csv").read_text().splitlines()
    lines = [text[0] + ",t_10,t_9", *(f"{line},{n},{n / 4}" for n, line in enumerate(text[1:]))]
    (tmp_path / "people.csv").write_text("\n".join(lines) + "\n")
    raw = spec_of()
    raw["features"]["taste"] = {"owner": "user", "kind": "pretrained", "columns": "t_*", "size": 2}
    world = World(tmp_path, raw)
    row = world.scored(tmp_path / "log.csv")
    number = [line.split(",")[0] for line in text[1:]].index(log[0]["country+id"])
    start = sum(f.width for f in world.cache.layout.dense[:1])
    assert [f.name for f in world.cache.layout.dense][:2] == ["age", "taste"]
    np.testing.assert_array_equal(row["dense"][0, start : start + 2], [number / 4, number])


def test_auxiliary_rows_hold_the_key_in_parts_too(log: list[Row], tmp_path: Path) -> None:
    write(tmp_path / "log.csv", [without("country+id")(r) for r in log])
    write_people(tmp_path, log, joined=False)
    past = [{**{k: r[k] for k in ("country", "id", "item")}, "n": 3 - k, "seen": k % 2}
            for k, r in enumerate(log[:3])]  # fmt: skip
    write(tmp_path / "past.csv", past, header=False)
    raw = spec_of(keys={"user": ["country", "id"]})
    raw["tables"]["people"]["key"] = ["land", "nr"]
    raw["auxiliary"] = {"files": ["past.csv"], "columns": list(past[0]), "scenario": "past"}
    raw["auxiliary"] |= {"order": "n", "labels": {"click": "seen"}}
    found = load_raw(parse_spec(raw), tmp_path)
    assert found.columns["country+id"].to_pylist()[:3] == [
        r["country+id"] for r in reversed(log[:3])
    ]
    assert found.labels[:3, 0].tolist() == [0, 1, 0]


# --- all at once --------------------------------------------------------------------------------


def everything(folder: Path, rows: Sequence[Row]) -> dict[str, Any]:
    """The log without time and header, in two files, with keys in parts and a vector in columns."""
    parts = without("kind", "place", "country+id")
    for kind in ("music", "book"):
        own = [wide(parts(r)) for r in rows if r["kind"] == kind]
        write(folder / f"{kind}.csv", own, header=False)
    write_people(folder, rows, joined=False)
    names = list(wide(parts(rows[0])))
    raw = spec_of(
        log={"files": {"music": "music.csv", "book": "book.csv"}, "columns": names},
        keys={"user": ["country", "id"], "time": "none", "shuffle": 2},
    )
    raw["tables"]["people"]["key"] = ["land", "nr"]
    raw["features"]["taste"] = {"owner": "user", "kind": "pretrained", "columns": "taste_*"}
    return raw


@pytest.fixture(scope="module")
def all_at_once(log: list[Row], tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("all")
    return World(folder, everything(folder, log))


def in_columns(rows: Sequence[Row]) -> list[Row]:
    """Rows for a headerless input: the log's columns and, behind them, the scenario."""
    parts = without("kind", "place", "country+id")
    return [{**wide(parts(r)), "kind": r["kind"]} for r in rows]


@pytest.mark.parametrize("form", ["no header", "parquet in parts", "parquet as it is", "tfrecord"])
def test_rows_to_predict_get_the_cached_values(
    all_at_once: World, log: list[Row], tmp_path: Path, form: str
) -> None:
    """Rows in file order are the files' rows; their cached places are in `time`."""
    ordered = [r for kind in ("music", "book") for r in log if r["kind"] == kind]
    cache = all_at_once.cache
    held_out = np.flatnonzero(np.asarray(cache.split) != 0)
    places = np.random.default_rng(2).permutation(ROWS)
    row_at = np.argsort(places)[np.asarray(cache.time).astype(int)]  # cached row -> row in files
    chosen = [ordered[k] for k in row_at[held_out]]
    path = tmp_path / "rows.csv"
    if form == "no header":
        write(path, in_columns(chosen), header=False)
    elif form == "tfrecord":
        path = tmp_path / "rows.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for row in chosen:
                writer.write(example(wide(row)))
    else:
        path = tmp_path / "rows.parquet"
        rows = in_columns(chosen) if form == "parquet in parts" else chosen
        empty = [{k: None if v == "" else v for k, v in r.items()} for r in rows]
        pq.write_table(pa.Table.from_pylist(empty), path)
    cached = cache.take(held_out, "frozen")
    cached["bags"] = {n: (b.values, b.splits) for n, b in cached["bags"].items()}
    assert_same_rows(all_at_once.scored(path), cached)


def test_a_part_that_the_rows_lack_is_named(
    all_at_once: World, log: list[Row], tmp_path: Path
) -> None:
    rows = [without("id")(r) for r in log[:5]]
    pq.write_table(
        pa.Table.from_pylist([without("country+id")(r) for r in rows]), tmp_path / "r.parquet"
    )
    message = r"lack the column 'country\+id'[^~]*or all of country, id, of which it is made"
    with pytest.raises(UserError, match=message):
        read_requests(all_at_once.spec, all_at_once.data, tmp_path / "r.parquet")


def example(row: Row) -> bytes:
    features = {}
    for name, value in row.items():
        if isinstance(value, float):
            features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        elif value != "":
            texts = tf.train.BytesList(value=[str(value).encode()])
            features[name] = tf.train.Feature(bytes_list=texts)
    return bytes(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def test_new_rows_go_on_behind_the_last_place(
    all_at_once: World, log: list[Row], tmp_path: Path
) -> None:
    write(tmp_path / "new.csv", in_columns(log[:30]), header=False)
    cache = all_at_once.cache
    rows = read_files(all_at_once.spec, cache, [tmp_path / "new.csv"])
    expected = ROWS + np.sort(np.random.default_rng(2).permutation(30))
    np.testing.assert_array_equal(rows.time, expected)
    order = np.argsort(np.random.default_rng(2).permutation(30))
    keys = [log[k]["country+id"] for k in order]
    assert rows.columns["country+id"].to_pylist() == keys
    (tmp_path / "data").mkdir()
    append_to(tmp_path / "data", all_at_once.spec, cache, rows, {"fingerprint": "y", "version": 2})
    after = EncodedCache(tmp_path / "data")
    assert after.rows == ROWS + 30
    assert after.manifest["vectors"] == cache.manifest["vectors"]
    assert len(after.keys("user")) == 6
    with pytest.raises(UserError, match="earlier rows of a shuffled log without a time"):
        read_folder(all_at_once.spec, cache, all_at_once.folder)


def test_a_longer_file_holds_the_earlier_rows_first(
    log: list[Row], plain: World, tmp_path: Path
) -> None:
    raw = spec_of(keys={"time": "none"})
    write(tmp_path / "log.csv", [without("place")(r) for r in log[:200]])
    write_people(tmp_path, log, joined=True)
    world = World(tmp_path, raw)
    write(tmp_path / "log.csv", [without("place")(r) for r in log])
    rows = read_folder(world.spec, world.cache, tmp_path)
    assert rows.time.tolist() == list(range(200, ROWS))
    assert rows.columns["item"].to_pylist() == [r["item"] for r in log[200:]]
