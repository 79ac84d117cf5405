"""One log in every storage that people have: the same bits, the same scores, the same joins."""

from __future__ import annotations

import csv
import logging
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.encode import encode_to
from lfm4ads_tf.data.new_rows import read_files, read_folder
from lfm4ads_tf.data.raw import load_raw
from lfm4ads_tf.data.requests import complete, read_requests
from lfm4ads_tf.data.sources.convert import convert_column
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.offline import encode_columns
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.spec_file import parse_spec
from lfm4ads_tf.models.two_towers import TwoTowers

SPEC: dict[str, Any] = {
    "name": "storages",
    "log": {"files": ["log*.*"]},
    "tables": {"items": {"files": ["items.csv"], "key": "id", "owner": "item"}},
    "keys": {"user": "user", "item": "item", "time": "at"},
    "tasks": {"click": "clicked"},
    "split": {"by": "day", "train_until": 3, "valid_until": 4},
    "period": {"by": "day"},
    "features": {
        "user": {"owner": "user", "kind": "vocabulary"},
        "item": {"owner": "item", "kind": "hashed", "buckets": 1000},
        "brand": {"owner": "item", "kind": "vocabulary"},
        "new": {"owner": "context", "kind": "vocabulary"},
        "new_item": {"owner": "context", "kind": "crossed", "columns": ["new", "item"]},
        "rate": {"owner": "context", "kind": "statistic", "task": "click", "keys": ["user", "new"]},
    },
}
ROWS = 60
Row = dict[str, Any]


def log_rows(first: int = 0) -> list[Row]:
    """Users of integer keys from `first` on, a truth value, a label and a day."""
    rng = np.random.default_rng(3)
    return [
        {
            "user": first + int(rng.integers(0, 12)),
            "item": first + int(rng.integers(0, 9)),
            "new": bool(rng.random() < 0.5),
            "at": k,
            "day": k // 12,
            "clicked": int(rng.random() < 0.4),
        }
        for k in range(ROWS)
    ]


def in_order_of_items(rows: list[Row]) -> list[Row]:
    """The rows at other times, so that the keys that are named first are known."""
    placed = sorted(rows, key=lambda row: row["item"])
    return [row | {"at": k, "day": k // 12} for k, row in enumerate(placed)]


def write_text(path: Path, rows: list[Row], show: Callable[[Any], str] = str, **how: Any) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, **how)
        writer.writerow(rows[0])
        writer.writerows([show(value) for value in row.values()] for row in rows)
    return path


def write_parquet(path: Path, rows: list[Row], keys: Callable[[list[int]], pa.Array]) -> Path:
    columns = {name: pa.array([row[name] for row in rows]) for name in rows[0]}
    for name in ("user", "item"):
        columns[name] = keys([row[name] for row in rows])
    pq.write_table(pa.table(columns), path)
    return path


def write_records(path: Path, rows: list[Row], list_of: str = "int64_list") -> Path:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in rows:
            example = tf.train.Example()
            for name, value in row.items():
                feature = example.features.feature[name]
                if name == "new":
                    feature.bytes_list.value.append(str(value).encode())
                elif name in ("user", "item"):
                    getattr(feature, list_of).value.append(value)
                else:
                    feature.int64_list.value.append(value)
            writer.write(example.SerializeToString())
    return path


def gaps(value: Any) -> str:
    """As pandas prints a column of integers that once had a gap."""
    return repr(float(value)) if not isinstance(value, bool) else str(value)


def spark(value: Any) -> str:
    """As Spark prints doubles and truth values."""
    if isinstance(value, bool):
        return str(value).lower()
    if value < 10**7:
        return f"{value}.0"
    digits = str(value).rstrip("0")
    return f"{digits[0]}.{digits[1:] or '0'}E{len(str(value)) - 1}"


def typed(kind: pa.DataType) -> Callable[[Path, list[Row]], Path]:
    return lambda folder, rows: write_parquet(
        folder / "log.parquet", rows, lambda keys: pa.array(keys, pa.int64()).cast(kind)
    )


SMALL: dict[str, Callable[[Path, list[Row]], Path]] = {
    "csv": lambda f, rows: write_text(f / "log.csv", rows),
    "int32": typed(pa.int32()),
    "float32": typed(pa.float32()),
    "float_list": lambda f, rows: write_records(f / "log.tfrecord", rows, "float_list"),
}
LARGE: dict[str, Callable[[Path, list[Row]], Path]] = {
    "csv": lambda f, rows: write_text(f / "log.csv", rows),
    "quoted": lambda f, rows: write_text(f / "log.csv", rows, quoting=csv.QUOTE_ALL),
    "tsv": lambda f, rows: write_text(f / "log.tsv", rows, delimiter="\t"),
    "gaps": lambda f, rows: write_text(f / "log.csv", rows, gaps),
    "spark": lambda f, rows: write_text(f / "log.csv", rows, spark),
    "upper": lambda f, rows: write_text(f / "log.csv", rows, lambda v: str(v).upper()),
    "int64": typed(pa.int64()),
    "uint64": typed(pa.uint64()),
    "double": typed(pa.float64()),
    "string": typed(pa.string()),
    "dictionary": lambda f, rows: write_parquet(
        f / "log.parquet", rows, lambda keys: pa.array(keys).dictionary_encode()
    ),
    "decimal": lambda f, rows: write_parquet(
        f / "log.parquet",
        rows,
        lambda keys: pa.array([Decimal(k) for k in keys], pa.decimal128(20, 2)),
    ),
    "int64_list": lambda f, rows: write_records(f / "log.tfrecord", rows),
}


def side_table(folder: Path, keys: Any) -> None:
    lines = [f"{key},b{k % 4}" for k, key in enumerate(keys)]
    (folder / "items.csv").write_text("\n".join(["id,brand", *lines]) + "\n")


def prepared(folder: Path, spec: FeatureSpec) -> EncodedCache:
    (folder / "data").mkdir()
    encode_to(folder / "data", spec, load_raw(spec, folder), {"fingerprint": "test"})
    return EncodedCache(folder / "data")


class World:
    """A log as CSV, encoded, and an untrained model over it."""

    def __init__(self, folder: Path, first: int) -> None:
        self.rows = log_rows(first)
        self.folder, self.first = folder, first
        self.spec = parse_spec(SPEC)
        side_table(folder, range(first, first + 9))
        write_text(folder / "log.csv", self.rows)
        self.cache = prepared(folder, self.spec)
        self.encoder = Encoder(self.spec, FittedEncoding.load(folder / "data" / "encoding"))
        self.model = TwoTowers(self.encoder.layout, [4], [4], EmbeddingsConfig(dim=4), seed=1)

    def scores(self, file: Path) -> np.ndarray:
        """What `predict` does with a file of rows: the product of the towers, (N,)."""
        rows = read_requests(self.spec, self.folder / "data", file)
        found = encode_columns(
            self.encoder, complete(self.spec, self.folder / "data", self.encoder, rows)
        )
        batch = {"ids": tf.constant(found["ids"], tf.int64), "dense": tf.constant(found["dense"])}
        towers = self.model.towers({**batch, "bags": {}})
        return tf.reduce_sum(towers.user * towers.item, axis=1).numpy()


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, World]:
    """Keys that every storage has, and keys that have no 32 bits."""
    return {
        name: World(tmp_path_factory.mktemp(name), first)
        for name, first in (("small", 7), ("large", 98_765_432_100))
    }


@pytest.mark.parametrize(
    ("size", "storage"), [*(("small", s) for s in SMALL), *(("large", s) for s in LARGE)]
)
def test_every_storage_gives_the_same_bits_and_scores(
    worlds: dict[str, World], tmp_path: Path, size: str, storage: str
) -> None:
    world = worlds[size]
    write = (SMALL if size == "small" else LARGE)[storage]
    file = write(tmp_path, world.rows)
    side_table(tmp_path, range(world.first, world.first + 9))
    ours, theirs = prepared(tmp_path, world.spec), world.cache
    names = sorted(p.name for p in theirs.folder.glob("*.npy"))
    assert len(names) > 10
    for name in names:
        assert (ours.folder / name).read_bytes() == (theirs.folder / name).read_bytes(), name
    vocabulary = [(c.folder / "encoding" / "encoding.json").read_bytes() for c in (ours, theirs)]
    assert vocabulary[0] == vocabulary[1]
    assert (ours.column("ids") >= 0).all()  # no key is missing, every item has its brand
    scores = world.scores(file)
    assert np.ptp(scores) > 0
    assert np.array_equal(scores, world.scores(world.folder / "log.csv"))


def test_files_of_two_storages_have_the_keys_of_one(
    worlds: dict[str, World], tmp_path: Path
) -> None:
    world = worlds["large"]
    for name, kind, part in (
        ("a", pa.int64(), world.rows[:30]),
        ("b", pa.float64(), world.rows[30:]),
    ):
        typed(kind)(tmp_path, part).rename(tmp_path / f"log_{name}.parquet")
    side_table(tmp_path, [f"{world.first + k}.0" for k in range(9)])
    assert (
        load_raw(world.spec, tmp_path)
        .columns["item"]
        .equals(load_raw(world.spec, world.folder).columns["item"])
    )


def test_integers_beyond_2_53_stay_apart(tmp_path: Path) -> None:
    rows = [row | {"user": 2**53 + row["user"]} for row in log_rows()]
    assert len({row["user"] for row in rows}) == 12
    side_table(tmp_path, range(9))
    spec = parse_spec(SPEC)
    for write in (LARGE["csv"], LARGE["uint64"], LARGE["decimal"], LARGE["int64_list"]):
        for file in tmp_path.glob("log*"):
            file.unlink()
        write(tmp_path, rows)
        assert load_raw(spec, tmp_path).columns["user"].to_pylist() == [
            str(row["user"]) for row in rows
        ]


@pytest.mark.parametrize(
    ("array", "count", "first"),
    [
        (pa.array([[2.0**24], [3.0], [], [2.0**24 + 2]], pa.list_(pa.float32())), 2, 2**24),
        (pa.array([2.0**24, 3.0, None], pa.float32()), 1, 2**24),
        (pa.array([2.0**53, -(2.0**60), 1.0]), 2, 2**53),
    ],
)
def test_keys_that_a_float_has_merged_are_told(
    caplog: pytest.LogCaptureFixture, array: pa.Array, count: int, first: int
) -> None:
    for kind in ("strings", "string"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            convert_column(
                pa.chunked_array([array[:2], array[2:]]),
                kind,  # type: ignore[arg-type]
                path=Path("log.tfrecord"),
                name="user",
                list_separator="|",
            )
        (message,) = caplog.messages
        assert f"column 'user' of 'log.tfrecord' holds {count} integers of {first} or" in message
        assert f"cannot tell {first} from {first + 1}" in message


def test_exact_floats_are_not_warned_of(
    caplog: pytest.LogCaptureFixture, worlds: dict[str, World], tmp_path: Path
) -> None:
    SMALL["float_list"](tmp_path, worlds["small"].rows)
    side_table(tmp_path, range(7, 16))
    load_raw(worlds["small"].spec, tmp_path)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (
            [f"{k:06d}" for k in range(3, 12)],
            "9 keys are kept apart by leading zeros alone ('3' against '000003')",
        ),
        ([f"{k} " for k in range(3, 12)], "9 keys are kept apart by spaces around the text alone"),
        ([f"i{k}" for k in range(9)], "the table 'i0', 'i1', 'i2'\nFix:"),
    ],
)
def test_a_table_that_joins_nothing_is_refused(tmp_path: Path, keys: list[str], told: str) -> None:
    rows = in_order_of_items(log_rows(3))
    write_text(tmp_path / "log.csv", rows)
    side_table(tmp_path, keys)
    with pytest.raises(UserError) as caught:
        load_raw(parse_spec(SPEC), tmp_path)
    message = str(caught.value)
    assert "Table 'items' has none of the 9 keys in 'item' of the log." in message
    assert "9 keys in 'id': the log has '3', '4', '5', the table" in message
    assert told in message


@pytest.mark.parametrize(("known", "warned"), [(1, True), (4, True), (5, False)])
def test_a_table_that_joins_less_than_half_is_told(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, known: int, warned: bool
) -> None:
    rows = in_order_of_items(log_rows())
    write_text(tmp_path / "log.csv", rows)
    side_table(tmp_path, [f"{k}" if k < known else f"0{k}" for k in range(9)])
    with caplog.at_level(logging.WARNING):
        raw = load_raw(parse_spec(SPEC), tmp_path)
    assert raw.columns["brand"].null_count == sum(row["item"] >= known for row in rows)
    assert len(caplog.messages) == warned
    left = [k for k in range(known, known + 3)]
    for text in (
        f"table 'items' has {known} of the 9 keys in 'item'",
        "the log has " + ", ".join(f"'{k}'" for k in left),
        "the table " + ", ".join(f"'0{k}'" for k in left),
        f"{9 - known} keys are kept apart by leading zeros alone ('{known}' against '0{known}')",
    ):
        assert not warned or text in caplog.messages[0]


def test_rows_to_predict_and_new_rows_are_told_of_what_the_tables_lack(
    caplog: pytest.LogCaptureFixture, worlds: dict[str, World], tmp_path: Path
) -> None:
    world = worlds["small"]
    late = [row | {"item": 100 + row["item"], "day": 5, "at": 99} for row in world.rows]
    path = write_text(tmp_path / "log.csv", late)
    told = "table 'items' has 0 of the 9 keys in 'item'"
    read_requests(world.spec, world.folder / "data", path)
    assert told in caplog.text
    caplog.clear()
    read_files(world.spec, world.cache, [path])
    assert told in caplog.text
    side_table(tmp_path, range(900, 909))
    with pytest.raises(UserError, match="Table 'items' has none of the 9 keys in 'item'"):
        read_folder(world.spec, world.cache, tmp_path)
    side_table(tmp_path, [107])
    caplog.clear()
    rows = read_folder(world.spec, world.cache, tmp_path)
    assert rows.columns["brand"].null_count < len(late)
    assert "table 'items' has 1 of the 9 keys in 'item'" in caplog.text
    branded = [row | {"brand": "b"} for row in late]
    caplog.clear()
    read_requests(world.spec, world.folder / "data", write_text(tmp_path / "own.csv", branded))
    assert not caplog.messages  # the rows bring the column themselves


def test_truth_values_are_numbers_in_every_format(tmp_path: Path) -> None:
    column = [True, None, False, True]
    for texts in [("true", "false"), ("True", "False"), ("TRUE", "FALSE")]:
        array = pa.array([None if v is None else texts[not v] for v in column])
        for kind, expected in (("float", [1.0, None, 0.0, 1.0]), ("int", [1, None, 0, 1])):
            found = [
                convert_column(
                    pa.chunked_array([a]),
                    kind,  # type: ignore[arg-type]
                    path=tmp_path,
                    name="x",
                    list_separator="|",
                ).to_pylist()
                for a in (array, pa.array(column))
            ]
            assert found == [expected, expected]


def test_a_run_of_older_texts_is_told(
    caplog: pytest.LogCaptureFixture, worlds: dict[str, World], tmp_path: Path
) -> None:
    world = worlds["small"]
    file = world.folder / "log.csv"
    read_requests(world.spec, world.folder / "data", file)
    assert not caplog.messages
    shutil.copytree(world.folder / "data", tmp_path / "vocabulary")
    shutil.copytree(world.folder / "data", tmp_path / "sample")
    (held,) = [
        path
        for path in (tmp_path / "vocabulary" / "encoding").glob("*.parquet")
        if "true" in pq.read_table(path)["value"].to_pylist()
    ]
    table = pq.read_table(held)
    old = pa.array(["True" if v == "true" else v for v in table["value"].to_pylist()])
    pq.write_table(table.set_column(0, "value", old), held)
    samples = pq.read_table(tmp_path / "sample" / "samples.parquet")
    place = samples.column_names.index("item")
    old = pa.array([f"{key}.0" for key in samples["item"].to_pylist()])
    pq.write_table(samples.set_column(place, "item", old), tmp_path / "sample" / "samples.parquet")
    read_requests(world.spec, tmp_path / "vocabulary", file)
    assert "feature 'new' holds 'True', which files now give as 'true' (1 such" in caplog.text
    caplog.clear()
    read_requests(world.spec, tmp_path / "sample", file)
    assert f"column 'item' holds '{old[0]}', which files now give as '{str(old[0])[:-2]}'" in (
        caplog.text
    )
