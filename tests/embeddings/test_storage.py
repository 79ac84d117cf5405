"""Tables and slots as files: what comes back, what is refused, and how much memory it takes."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.embeddings import storage
from lfm4ads_tf.embeddings.config import Storage
from lfm4ads_tf.embeddings.hashing import Hashing
from lfm4ads_tf.embeddings.storage import count_weights, read_tables, write_tables
from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.optim.rules.row_rule import row_rule
from tests.embeddings.stored_pairs import RULES, TABLES, assert_same, damages, pair, state


@pytest.fixture(scope="module", autouse=True)
def small_slices() -> Iterator[None]:
    """Slices of a few rows, so that small tables have several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "_SLICE_BYTES", 100)
        yield


@pytest.mark.parametrize("rule", RULES)
def test_shards_come_and_go_bit_by_bit(tmp_path: Path, rule: str) -> None:
    first = pair(TABLES, 1, rule)
    expected = {table.name: state(first, table.name) for table in TABLES}
    write_tables(tmp_path / "1", *first)
    for shards, before in ((3, 1), (2, 3)):
        other = pair(TABLES, shards + 5, rule, shards=shards)
        assert read_tables(tmp_path / str(before), *other) == tuple(t.name for t in TABLES)
        for name, values in expected.items():
            assert_same(state(other, name), values)
        write_tables(tmp_path / str(shards), *other)
    files = sorted(path.name for path in (tmp_path / "1").glob("*.npy"))
    assert files == sorted(path.name for path in (tmp_path / "2").glob("*.npy"))
    slots = len(first[1].rule.slots)
    assert len(files) == len(TABLES) + slots * sum(t.trainable for t in TABLES)
    for name in files:  # the files do not know of shards
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_the_files_are_what_numpy_reads(tmp_path: Path) -> None:
    layer, optimizer = pair(TABLES)
    write_tables(tmp_path, layer, optimizer)
    index = json.loads((tmp_path / "tables.json").read_text())
    for table in TABLES:
        for key, values in state((layer, optimizer), table.name).items():
            array = np.load(tmp_path / index["files"][table.name][key]["file"])
            if key == "weights" and table.storage == "bfloat16":
                assert array.dtype == np.uint16
                array = array.view(tf.bfloat16.as_numpy_dtype)
            elif key == "weights":
                assert array.dtype == table.storage
            np.testing.assert_array_equal(array.astype(np.float32), values)
    again = ShardedEmbedding.from_manifest(index["layer"], seed=7)
    read_tables(tmp_path, again)
    for table in TABLES:
        np.testing.assert_array_equal(again.read_table(table.name), layer.read_table(table.name))
    assert count_weights(tmp_path) == sum((t.stored_rows + 1) * 2 * t.dim for t in TABLES)


@st.composite
def tables(draw: st.DrawFn) -> TableConfig:
    rows, dim = draw(st.integers(1, 12)), draw(st.sampled_from([2, 3]))
    hashing = draw(st.sampled_from([None, Hashing("double", 5), Hashing("quotient_remainder", 3)]))
    kept = draw(st.sampled_from(get_args(Storage)))
    return TableConfig("t", rows, dim, 1.0, kept, draw(st.booleans()), hashing=hashing)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(tables(), st.integers(0, 9)), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
    st.tuples(*[st.integers(1, 3)] * 5),
    st.sampled_from(RULES),
    st.booleans(),
)
def test_any_layout_is_read_into_any_grown_one(
    drawn: list[tuple[TableConfig, int]],
    order: object,
    counts: tuple[int, int, int, int, int],
    rule: str,
    added: bool,
) -> None:
    sets, shards, per_width, new_shards, new_per_width = counts
    old = [replace(table, name=f"t{k}") for k, (table, _) in enumerate(drawn)]
    new = [replace(t, rows=t.rows + more) for t, (_, more) in zip(old, drawn, strict=True)]
    new += [TableConfig("added", 4, 2)] if added else []
    order.shuffle(new)  # type: ignore[attr-defined]
    source = pair(old, 1, rule, sets=sets, shards=shards, tables_per_width=per_width)
    target = pair(new, 2, rule, sets=sets, shards=new_shards, tables_per_width=new_per_width)
    before = {table.name: state(target, table.name) for table in new}
    with tempfile.TemporaryDirectory() as folder:
        write_tables(Path(folder), *source)
        if added:
            with pytest.raises(UserError, match="'added' is not among those"):
                read_tables(Path(folder), *target)
            for name, values in before.items():
                assert_same(state(target, name), values)
        read = read_tables(Path(folder), *target, strict=not added)
    assert read == tuple(table.name for table in new if table.name != "added")
    for table in new:
        expected = before[table.name]
        if table.name != "added":
            for key, rows in state(source, table.name).items():
                expected[key][: len(rows) - 1] = rows[:-1]
                expected[key][-1] = rows[-1]  # the missing id's
        assert_same(state(target, table.name), expected)


@pytest.mark.parametrize("rule", ["adam", "rowwise_adagrad"])
def test_training_goes_on_as_if_it_had_not_stopped(tmp_path: Path, rule: str) -> None:
    def trained() -> tuple[ShardedEmbedding, HybridOptimizer, Callable[[int], None]]:
        layer = ShardedEmbedding(
            [TableConfig("a", 50, 4)], [EmbeddedFeature("a", "a")], shards=2, sets=2
        )
        optimizer = HybridOptimizer(0.1, 0.1, rule=row_rule(rule))
        optimizer.build([layer], [])

        def step(number: int) -> None:
            ids = np.random.default_rng(number).integers(-1, 50, (16, 1))
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(layer(tf.constant(ids))[4] - 1.0))
            parts = layer.all_parts()
            optimizer.apply_gradients(zip(tape.gradient(loss, parts), parts, strict=True))

        return layer, optimizer, step

    layer, optimizer, step = trained()
    other, other_optimizer, other_step = trained()
    for number in range(3):
        step(number)
    write_tables(tmp_path, layer, optimizer)
    read_tables(tmp_path, other, other_optimizer)
    for number in range(3, 6):
        step(number)
        other_step(number)
    assert_same(state((other, other_optimizer), "a"), state((layer, optimizer), "a"))


def test_without_an_optimizer_there_are_no_slots(tmp_path: Path) -> None:
    source, target = pair(TABLES, 1), pair(TABLES, 2)
    before = state(target, "user")["accumulator"]
    write_tables(tmp_path / "bare", source[0])
    assert len(list((tmp_path / "bare").glob("*.npy"))) == len(TABLES)
    with pytest.raises(UserError, match="optimizer slots stored.*\n.*no slots"):
        read_tables(tmp_path / "bare", *target)
    read_tables(tmp_path / "bare", target[0])
    write_tables(tmp_path / "whole", *source)
    read_tables(tmp_path / "whole", target[0])
    np.testing.assert_array_equal(
        state(target, "user")["weights"], state(source, "user")["weights"]
    )
    np.testing.assert_array_equal(state(target, "user")["accumulator"], before)


def test_other_storage_and_thawed_tables(tmp_path: Path) -> None:
    source = pair([TableConfig("a", 9, 4, 1.0), TableConfig("b", 5, 4, trainable=False)])
    target = pair([TableConfig("a", 9, 4, storage="bfloat16"), TableConfig("b", 5, 4)], 2)
    before = state(target, "b")["accumulator"]
    write_tables(tmp_path, *source)
    read_tables(tmp_path, *target)
    values = state(source, "a")["weights"].astype(tf.bfloat16.as_numpy_dtype)
    np.testing.assert_array_equal(state(target, "a")["weights"], values.astype(np.float32))
    np.testing.assert_array_equal(state(target, "b")["weights"], state(source, "b")["weights"])
    np.testing.assert_array_equal(state(target, "b")["accumulator"], before)


@pytest.mark.parametrize("rule", ["rowwise_adagrad", "ftrl", "sgd"])
def test_slots_of_another_rule_are_refused(tmp_path: Path, rule: str) -> None:
    write_tables(tmp_path, *pair(TABLES))
    target = pair(TABLES, 2, rule)
    before = state(target, "user")
    with pytest.raises(UserError, match="are not those of the optimizer"):
        read_tables(tmp_path, *target)
    assert_same(state(target, "user"), before)


@pytest.mark.parametrize(
    "table, sets",
    [
        (TableConfig("user", 19, 4), 2),
        (TableConfig("user", 20, 2), 2),
        (TableConfig("user", 20, 8), 1),  # as many floats per row
        (TableConfig("user", 20, 4, hashing=Hashing("double", 30)), 2),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_a_table_that_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, table: TableConfig, sets: int, strict: bool
) -> None:
    first = TableConfig("first", 5, 4)
    write_tables(tmp_path, *pair([first, TABLES[0]]))
    target = pair([replace(first, dim=4 if sets == 2 else 8), table], 2, sets=sets)
    before = state(target, "first")
    with pytest.raises(UserError, match=r"does not fit[\s\S]*Received[\s\S]*Fix"):
        read_tables(tmp_path, *target, strict=strict)
    assert_same(state(target, "first"), before)


DAMAGES = damages(rows=21)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    write_tables(tmp_path, *pair(TABLES))
    path = tmp_path / "0000_user.accumulator.npy"
    DAMAGES[damage](path)
    target = pair(TABLES, 2)
    before = {table.name: state(target, table.name) for table in TABLES}
    with pytest.raises(UserError, match=f"{path.name}' is missing or damaged"):
        read_tables(tmp_path, *target)
    if damage != "flipped":  # only a checksum shows it, at the end of the file
        for name, values in before.items():
            assert_same(state(target, name), values)


@pytest.mark.parametrize("content", ["{", "[]", '{"files": {}}', '{"files": {"a": {"b": 1}}}'])
def test_a_damaged_description_is_named(tmp_path: Path, content: str) -> None:
    write_tables(tmp_path, *pair(TABLES))
    (tmp_path / "tables.json").write_text(content)
    with pytest.raises(UserError, match="tables.json' is missing or damaged"):
        read_tables(tmp_path, *pair(TABLES))


def test_a_folder_without_tables(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no embedding tables in"):
        read_tables(tmp_path, *pair(TABLES[:1]))


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(UserError, match="cannot be written[\\s\\S]*No space left"):
        write_tables(tmp_path, *pair(TABLES[:1]))
    assert not (tmp_path / "tables.json").exists()


_MEMORY = """
import resource, sys
from pathlib import Path
import lfm4ads_tf
import tensorflow as tf
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.optim.rules.adagrad import Adagrad
from lfm4ads_tf.embeddings.storage import read_tables, write_tables
from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig

def trained(rows):
    tables, features = [TableConfig("a", rows, 16)], [EmbeddedFeature("a", "a")]
    layer = ShardedEmbedding(tables, features, shards=2)
    optimizer = HybridOptimizer(0.1, 0.1, rule=Adagrad(row_wise=True))
    optimizer.build([layer], [])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(tf.range(500)[:, tf.newaxis])[16] ** 2)
    parts = layer.all_parts()
    optimizer.apply_gradients(zip(tape.gradient(loss, parts), parts))
    return layer, optimizer

def peak():
    # not ru_maxrss, which starts at what the parent process held
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

def save_and_restore(folder, pair):
    write_tables(folder, *pair)
    written = peak()
    read_tables(folder, *pair)
    return written, peak()

folder = Path(sys.argv[1])
save_and_restore(folder / "warm", trained(1000))
base = held()
print(*[most - base for most in save_and_restore(folder / "large", trained(3_200_000))])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_near_table_and_slots(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    table_and_slots = 3_200_001 * (16 + 1) * 4 / 2**20
    assert table_and_slots > 200
    written, restored = map(float, done.stdout.split()[-2:])
    assert written < table_and_slots + 100
    assert restored < table_and_slots + 100
