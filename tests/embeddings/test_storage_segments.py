"""Tables that workers make, save and restore: what one machine would, bit for bit."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.embeddings import segments, storage
from lfm4ads_tf.embeddings.checksums import joined_crc32
from lfm4ads_tf.embeddings.config import Storage
from lfm4ads_tf.embeddings.hashing import Hashing
from lfm4ads_tf.embeddings.placement import segment_files
from lfm4ads_tf.embeddings.placement.table_workers import table_workers, working
from lfm4ads_tf.embeddings.storage import count_weights, read_tables, write_tables
from lfm4ads_tf.embeddings.table import ShardedEmbedding, TableConfig
from lfm4ads_tf.embeddings.transplant import transplant
from lfm4ads_tf.errors import UserError
from tests.embeddings.fake_workers import FakeWorkers
from tests.embeddings.stored_pairs import RULES, TABLES, assert_same, damages, pair, state

STRETCH = 7  # rows; most tables have several, the last ones of which are not whole


@pytest.fixture(scope="module", autouse=True)
def small_stretches() -> Iterator[None]:
    """Stretches and slices of a few rows, so that small tables have several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "SEGMENT_ROWS", STRETCH)
        patch.setattr(segments, "PIECE_FLOATS", 30)
        patch.setattr(storage, "_SLICE_BYTES", 100)
        yield


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_checksums_are_joined(first: bytes, second: bytes) -> None:
    joined = joined_crc32(zlib.crc32(first), zlib.crc32(second), len(second))
    assert joined == zlib.crc32(first + second)


def test_workers_are_named_inside_the_block_and_to_every_thread() -> None:
    workers, seen = FakeWorkers(), []
    assert table_workers() is None
    with working(workers):
        thread = Thread(target=lambda: seen.append(table_workers()))
        thread.start()
        thread.join()
        with working(other := FakeWorkers()):
            assert table_workers() is other
        assert table_workers() is workers and seen == [workers]
    assert table_workers() is None


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["adam", "rowwise_adagrad"])
def test_shards_and_workers_come_and_go_bit_by_bit(tmp_path: Path, rule: str) -> None:
    first = pair(TABLES, 1, rule, shards=2)
    expected = {table.name: state(first, table.name) for table in TABLES}
    workers = FakeWorkers(times=2)
    with working(workers):
        write_tables(tmp_path / "2", *first)
    before = 2
    for shards, by_workers in ((1, True), (3, False), (5, True), (2, True), (1, False)):
        other = pair(TABLES, shards + 5, rule, shards=shards)
        if by_workers:
            with working(workers):
                read = read_tables(tmp_path / str(before), *other)
        else:
            read = read_tables(tmp_path / str(before), *other)
        assert read == tuple(table.name for table in TABLES)
        for name, values in expected.items():
            assert_same(state(other, name), values)
        before += 1
        if by_workers:
            with working(workers):
                write_tables(tmp_path / str(before), *other)
        else:
            write_tables(tmp_path / str(before), *other)
    assert workers.runs


def test_a_table_of_one_stretch_has_the_file_of_one_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "SEGMENT_ROWS", 1 << 18)
    source = pair(TABLES, shards=2)
    write_tables(tmp_path / "one", *source)
    with working(FakeWorkers()):
        write_tables(tmp_path / "cluster", *source)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "cluster").iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "cluster" / name).read_bytes()


def test_segments_are_what_numpy_reads_one_after_the_other(tmp_path: Path) -> None:
    source = pair(TABLES, shards=3)
    with working(FakeWorkers()):
        write_tables(tmp_path / "cluster", *source)
    write_tables(tmp_path / "one", *source)
    whole = json.loads((tmp_path / "one" / "tables.json").read_text())["files"]
    cut = json.loads((tmp_path / "cluster" / "tables.json").read_text())["files"]
    for table in TABLES:
        for key, kept in whole[table.name].items():
            rows = table.stored_rows + 1
            count = -(-rows // STRETCH)
            files = [kept["file"]]
            if count > 1:
                stem = kept["file"].removesuffix(".npy")
                files = [f"{stem}.{n:05d}-of-{count:05d}.npy" for n in range(count)]
                entries = cut[table.name][key]["segments"]
                assert [entry["file"] for entry in entries] == files
                assert [e["rows"] for e in entries[:-1]] == [STRETCH] * (count - 1)
            else:
                assert cut[table.name][key] == kept
            joined = np.concatenate([np.load(tmp_path / "cluster" / name) for name in files])
            np.testing.assert_array_equal(joined, np.load(tmp_path / "one" / kept["file"]))
    assert count_weights(tmp_path / "cluster") == count_weights(tmp_path / "one")
    assert not list((tmp_path / "cluster").glob(segment_files.LEFTOVERS))


@st.composite
def tables(draw: st.DrawFn) -> TableConfig:
    rows, dim = draw(st.integers(1, 30)), draw(st.sampled_from([2, 3]))
    hashing = draw(st.sampled_from([None, Hashing("double", 9), Hashing("quotient_remainder", 3)]))
    kept = draw(st.sampled_from(get_args(Storage)))
    return TableConfig("t", rows, dim, 1.0, kept, draw(st.booleans()), hashing=hashing)


@settings(max_examples=6, deadline=None)
@given(
    st.lists(st.tuples(tables(), st.integers(0, 9)), min_size=1, max_size=3),
    st.tuples(*[st.integers(1, 3)] * 3),
    st.sampled_from(RULES),
    st.booleans(),
    st.booleans(),
)
def test_any_layout_is_read_into_any_grown_one(
    drawn: list[tuple[TableConfig, int]],
    counts: tuple[int, int, int],
    rule: str,
    written_by_workers: bool,
    read_by_workers: bool,
) -> None:
    sets, shards, new_shards = counts
    old = [replace(table, name=f"t{k}") for k, (table, _) in enumerate(drawn)]
    new = [replace(t, rows=t.rows + more) for t, (_, more) in zip(old, drawn, strict=True)][::-1]
    source = pair(old, 1, rule, sets=sets, shards=shards)
    target = pair(new, 2, rule, sets=sets, shards=new_shards)
    before = {table.name: state(target, table.name) for table in new}
    with tempfile.TemporaryDirectory() as folder:
        _maybe(written_by_workers, lambda: write_tables(Path(folder), *source))
        _maybe(read_by_workers, lambda: read_tables(Path(folder), *target))
    for table in new:
        expected = before[table.name]
        for key, rows in state(source, table.name).items():
            expected[key][: len(rows) - 1] = rows[:-1]
            expected[key][-1] = rows[-1]  # the missing id's
        assert_same(state(target, table.name), expected)


def _maybe(by_workers: bool, task: Callable[[], object]) -> None:
    if by_workers:
        with working(FakeWorkers()):
            task()
    else:
        task()


@pytest.mark.parametrize("init", ["normal", "uniform"])
@pytest.mark.parametrize("shards", [1, 2, 3])
def test_initial_values_are_those_of_one_machine(
    init: str, shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "SEGMENT_ROWS", 1 << 13)  # two blocks of initial values
    monkeypatch.setattr(segments, "PIECE_FLOATS", 1 << 14)  # a few pieces: each is traced
    several = [*TABLES, TableConfig("long", 21_000, 3, 0.7), TableConfig("even", 8192, 4)]
    options = {"sets": 2, "seed": 5, "init": init}
    one = ShardedEmbedding(several, [], **options)  # type: ignore[arg-type]
    workers = FakeWorkers()
    with working(workers):
        other = ShardedEmbedding(several, [], shards=shards, **options)  # type: ignore[arg-type]
    assert workers.runs == 2 * len(TABLES) + (3 + 1) + (1 + 1)
    for table in several:
        np.testing.assert_array_equal(other.read_table(table.name), one.read_table(table.name))


def test_a_worker_holds_a_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SEGMENT_ROWS", 1 << 18)
    layer = ShardedEmbedding([TableConfig("a", 5, 16), TableConfig("b", 5, 2048)], [])
    rows = [segments._stretch_rows(layer.parts(name)) for name in layer.physical]
    assert rows == [1 << 18, (1 << 24) // 2048]


def test_tables_for_inference_are_not_left_to_workers(tmp_path: Path) -> None:
    table, workers = TableConfig("a", 30, 4, storage="int8"), FakeWorkers()
    source = ShardedEmbedding([table], [], seed=1)
    with working(workers):
        target = ShardedEmbedding([table], [], seed=2)
        write_tables(tmp_path, source)
        read_tables(tmp_path, target)
    np.testing.assert_array_equal(target.read_table("a"), source.read_table("a"))
    assert not workers.runs


@pytest.mark.parametrize("by_workers", [True, False])
def test_a_value_too_large_for_the_storage_is_refused(tmp_path: Path, by_workers: bool) -> None:
    wide, narrow = TableConfig("a", 9, 4), TableConfig("a", 9, 4, storage="float16")
    source = ShardedEmbedding([wide], [])
    source.write_rows("a", 3, np.full((1, 4), -7e4))
    write_tables(tmp_path, source)
    target = ShardedEmbedding([narrow], [])
    with pytest.raises(UserError, match="too large[\\s\\S]*70000"):
        _maybe(by_workers, lambda: read_tables(tmp_path, target))
    with pytest.raises(UserError, match="too large"):
        _maybe(by_workers, lambda: ShardedEmbedding([replace(narrow, init_scale=1e9)], []))


def test_transplanted_from_segments(tmp_path: Path) -> None:
    source = pair(TABLES, shards=2)
    with working(FakeWorkers()):
        write_tables(tmp_path, *source)
    index = json.loads((tmp_path / "tables.json").read_text())
    again = ShardedEmbedding.from_manifest(index["layer"], seed=7)
    read_tables(tmp_path, again)
    grown = ShardedEmbedding([replace(TABLES[0], rows=33)], [], sets=2)
    transplant(again, grown)
    rows = source[0].read_table("user")
    np.testing.assert_array_equal(grown.read_table("user")[:20], rows[:20])
    np.testing.assert_array_equal(grown.read_table("user")[-1], rows[-1])


DAMAGES = damages(rows=7)


@pytest.mark.parametrize("written_by_workers", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named(tmp_path: Path, damage: str, written_by_workers: bool) -> None:
    _maybe(written_by_workers, lambda: write_tables(tmp_path, *pair(TABLES[:2], shards=2)))
    (path,) = tmp_path.glob(
        f"0000_user.accumulator{'.00001-of-*' if written_by_workers else ''}.npy"
    )
    DAMAGES[damage](path)
    target = pair(TABLES[:2], 2, shards=3)
    before = {table.name: state(target, table.name) for table in TABLES[:2]}
    for by_workers in (True, False):
        with pytest.raises(UserError, match=f"{path.name}' is missing or damaged") as error:
            _maybe(by_workers, lambda: read_tables(tmp_path, *target))
        assert "Received: " in str(error.value)
        if damage != "flipped":  # only a checksum shows it, at the end of the file
            for name, values in before.items():
                assert_same(state(target, name), values)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_a_worker_sees_otherwise_is_named(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pair(TABLES[:2], shards=2)
    with working(FakeWorkers()):
        write_tables(tmp_path, *source)
        monkeypatch.setattr(storage, "_open", lambda path, *_: open(os.devnull, "rb"))
        (path,) = tmp_path.glob("0000_user.weights.00002-of-*.npy")
        DAMAGES[damage](path)
        with pytest.raises(UserError, match=f"{path.name}' is missing or damaged"):
            read_tables(tmp_path, *source)


@pytest.mark.parametrize(
    "change",
    [
        {"segments": []},
        {"segments": [{"file": "a.npy", "rows": 3, "crc32": 1}]},
        {"segments": [{"file": "a.npy", "rows": 21}]},
        {"segments": 3},
        {"rows": 22},
    ],
)
def test_a_description_of_other_segments_is_damaged(
    tmp_path: Path, change: dict[str, object]
) -> None:
    with working(FakeWorkers()):
        write_tables(tmp_path, *pair(TABLES[:1]))
    path = tmp_path / "tables.json"
    index = json.loads(path.read_text())
    index["files"]["user"]["weights"] |= change
    path.write_text(json.dumps(index))
    with pytest.raises(UserError, match="tables.json' is missing or damaged"):
        read_tables(tmp_path, *pair(TABLES[:1]))


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_header, written = segment_files.write_header, [0]

    def full(*values: Any) -> None:
        written[0] += 1
        if written[0] > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_header(*values)

    monkeypatch.setattr(segment_files, "write_header", full)
    with working(FakeWorkers()), pytest.raises(UserError) as error:
        write_tables(tmp_path, *pair(TABLES[:1], shards=2))
    assert "0000_user.weights.00002-of-00003.npy' cannot be written" in str(error.value)
    assert "No space left on device" in str(error.value)
    assert not (tmp_path / "tables.json").exists()
    assert not list(tmp_path.glob(segment_files.LEFTOVERS))


def test_a_worker_that_does_not_see_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(path: Path) -> Path:
        return Path("/nowhere") / path.name

    with monkeypatch.context() as patch:
        patch.setattr(segment_files, "Path", lambda text: elsewhere(Path(text)))
        with working(FakeWorkers()), pytest.raises(UserError, match="cannot be written"):
            write_tables(tmp_path, *pair(TABLES[:1]))
    (tmp_path / "other").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(segment_files, "Path", lambda text: tmp_path / "other" / Path(text).name)
        with working(FakeWorkers()), pytest.raises(UserError, match="share") as error:
            write_tables(tmp_path / "here", *pair(TABLES[:1]))
    assert "0000_user.weights.00000-of-00003.npy', but it is not there" in str(error.value)


def test_what_a_lost_worker_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".0000_user.weights.npy.abc.part").write_bytes(b"half")
    with working(FakeWorkers()):
        write_tables(tmp_path, *pair(TABLES[:1]))
    assert not list(tmp_path.glob(".*"))
