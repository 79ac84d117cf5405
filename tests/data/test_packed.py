"""The packed form against the cache that it was written from."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lfm4ads_tf.batch import read
from lfm4ads_tf.data.block_format import BagFormat, BlockFormat, ColumnFormat
from lfm4ads_tf.data.cache import INDEX, Bag, EncodedCache
from lfm4ads_tf.data.input import batches
from lfm4ads_tf.data.pack import block_format, main, pack
from lfm4ads_tf.data.packed import PackedCache
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.training.schedule import Phase

BLOCK = 16


@pytest.fixture
def packed_folder(ads: Any, tmp_path: Path) -> Path:
    pack(ads.cache, tmp_path / "packed", BLOCK, files=3)
    return tmp_path / "packed"


def assert_same_batches(found: Any, expected: Any) -> None:
    left, right = list(read(found)), list(expected)
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        tf.nest.assert_same_structure(one, other, expand_composites=True)
        flat = (tf.nest.flatten(batch, expand_composites=True) for batch in (one, other))
        for a, b in zip(*flat, strict=True):
            if a is None:
                continue
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.slow
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    block_rows=st.sampled_from([1, 7, 64, 1000]),
    files=st.integers(1, 5),
    window=st.sampled_from([1, 30, 100, 5000]),
    batch=st.sampled_from([13, 64]),
    start=st.integers(0, 3),
    refresh=st.sampled_from(["frozen", "daily"]),
)
def test_gives_the_batches_of_the_cache(
    ads: Any, block_rows: int, files: int, window: int, batch: int, start: int, refresh: Any
) -> None:
    cache: EncodedCache = ads.cache
    order = Phase("epoch_1", np.arange(5, cache.rows)).order(3, True, window)
    with tempfile.TemporaryDirectory() as folder:
        pack(cache, Path(folder) / "packed", block_rows, files)
        packed = PackedCache(Path(folder) / "packed")
        options: dict[str, Any] = {"start": start, "refresh": refresh}
        assert_same_batches(
            batches(packed, order, batch, window=window, **options),
            batches(cache, order, batch, **options),
        )


def test_blocks_make_room_for_others(ads: Any, packed_folder: Path) -> None:
    window = 2 * BLOCK
    order = Phase("epoch_1", np.arange(ads.cache.rows)).order(0, True, window)
    of_block = 1 + sum(
        c.row_bytes * BLOCK for c in block_format(ads.cache, BLOCK).columns
    )  # the lists come on top, so that fewer blocks fit than asked for
    packed = PackedCache(packed_folder, memory_bytes=20 * of_block, readers=2)
    assert packed._slots * BLOCK < ads.cache.rows / 4
    for _ in range(2):
        assert_same_batches(
            batches(packed, order, 24, window=window), batches(ads.cache, order, 24)
        )
    assert len(packed._held) == packed._slots and len(packed._coming) <= packed._slots


def test_too_little_memory_for_the_order_names_the_setting(ads: Any, packed_folder: Path) -> None:
    packed = PackedCache(packed_folder, memory_bytes=1)
    order = Phase("epoch_1", np.arange(ads.cache.rows)).order(0, True)
    with pytest.raises(UserError, match="shuffle_window"):
        list(read(batches(packed, order, 64)))
    # In time order a batch of one block's rows needs that block alone.
    order = np.arange(ads.cache.rows)
    assert_same_batches(batches(packed, order, BLOCK), batches(ads.cache, order, BLOCK))


def test_everything_else_equals_the_cache(ads: Any, packed_folder: Path) -> None:
    packed, cache = PackedCache(packed_folder), ads.cache
    assert packed.rows == cache.rows and packed.layout == cache.layout
    for name in INDEX:
        np.testing.assert_array_equal(getattr(packed, name), getattr(cache, name))
    np.testing.assert_array_equal(packed.train_rows, cache.train_rows)
    np.testing.assert_array_equal(packed.auxiliary_rows, cache.auxiliary_rows)
    assert packed.keys("user").equals(cache.keys("user"))
    assert packed.keys("item").equals(cache.keys("item"))
    assert (packed.best_possible is None) == (cache.best_possible is None)


def test_records_are_tfrecords_of_whole_blocks(ads: Any, packed_folder: Path) -> None:
    of = block_format(ads.cache, BLOCK)
    count = -(-ads.cache.rows // BLOCK)
    files = sorted(str(p) for p in packed_folder.glob("*.tfrecord"))
    records = [[r.numpy() for r in tf.data.TFRecordDataset(f)] for f in files]
    assert sum(len(r) for r in records) == count
    for b in range(count):
        rows = slice(b * BLOCK, min((b + 1) * BLOCK, ads.cache.rows))
        columns, bags = of.decode(records[b % 3][b // 3], rows.stop - rows.start)
        expected = ads.cache.take(np.arange(rows.start, rows.stop))
        np.testing.assert_array_equal(columns["ids"], expected["ids"])
        np.testing.assert_array_equal(columns["labels"], expected["labels"])
        for name, bag in expected["bags"].items():
            np.testing.assert_array_equal(bags[name].values, bag.values)
            np.testing.assert_array_equal(bags[name].splits, bag.splits)


def test_a_packed_cache_can_be_packed_again(packed_folder: Path, tmp_path: Path, ads: Any) -> None:
    pack(PackedCache(packed_folder), tmp_path / "again", 50, files=2)
    order = np.arange(ads.cache.rows)
    assert_same_batches(
        batches(PackedCache(tmp_path / "again"), order, 100), batches(ads.cache, order, 100)
    )


def test_truncated_and_missing_files_are_named_when_opened(packed_folder: Path) -> None:
    file = sorted(packed_folder.glob("*.tfrecord"))[1]
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    with pytest.raises(UserError, match=f"{file.name}.*\n.*{len(whole) - 10} bytes instead"):
        PackedCache(packed_folder)
    file.unlink()
    with pytest.raises(UserError, match=file.name):
        PackedCache(packed_folder)


def test_a_flipped_byte_is_reported_with_its_file(ads: Any, packed_folder: Path) -> None:
    file = sorted(packed_folder.glob("*.tfrecord"))[2]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    order = np.arange(ads.cache.rows)
    with pytest.raises(UserError, match=f"{file.name}.*\n.*checksum"):
        list(read(batches(PackedCache(packed_folder), order, 32, window=64)))


def test_what_is_no_packed_cache_is_refused(ads: Any, packed_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="an encoded cache"):
        PackedCache(ads.cache.folder)
    with pytest.raises(UserError, match="no manifest"):
        PackedCache(tmp_path / "nowhere")
    with pytest.raises(UserError, match="not empty"):
        pack(ads.cache, packed_folder)
    with pytest.raises(UserError, match="block_rows=0"):
        pack(ads.cache, tmp_path / "other", 0)
    (packed_folder / "split.npy").write_bytes(b"not an array")
    with pytest.raises(UserError, match="split.npy"):
        _ = PackedCache(packed_folder).split


def test_the_command_packs_a_cache(ads: Any, tmp_path: Path, capsys: Any) -> None:
    arguments = [str(ads.cache.folder), str(tmp_path / "out"), "--block-rows", "100"]
    assert main(arguments) == 0
    assert PackedCache(tmp_path / "out").rows == ads.cache.rows
    assert main(arguments) == 2
    assert main([str(tmp_path), str(tmp_path / "other")]) == 2
    assert "holds no encoded cache" in capsys.readouterr().err


def test_a_block_of_another_length_is_refused() -> None:
    of = BlockFormat(2, (ColumnFormat("ids", "<i4", (3,)),), (BagFormat("b", True, 4),))
    ids = np.arange(6, dtype=np.int32).reshape(2, 3)  # (2, 3)
    bag = Bag(np.arange(3, dtype=np.int32), np.array([0, 1, 3]), np.ones(3, np.float32))
    data = of.encode({"ids": ids}, {"b": bag})
    assert len(data) == 24 + 8 + 12 + 12
    columns, bags = BlockFormat.from_json(of.to_json()).decode(data, 2)
    np.testing.assert_array_equal(columns["ids"], ids)
    assert bags["b"].splits.tolist() == [0, 1, 3]
    with pytest.raises(ValueError, match="bytes"):
        of.decode(data + b"x", 2)
