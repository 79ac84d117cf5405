"""TFRecord: kinds are sniffed, absent features are missing, broken records are numbered."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import lfm4ads_tf  # noqa: F401  (selects Keras 2 before TensorFlow is imported)
from lfm4ads_tf.data.sources import read_table
from lfm4ads_tf.errors import UserError


def write(path: Path, rows: Sequence[dict[str, list[Any]]], compression: str = "") -> Path:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for row in rows:
            example = tf.train.Example()
            for name, values in row.items():
                feature = example.features.feature[name]
                if values and isinstance(values[0], bytes):
                    feature.bytes_list.value.extend(values)
                elif values and isinstance(values[0], float):
                    feature.float_list.value.extend(values)
                elif values:
                    feature.int64_list.value.extend(values)
            writer.write(example.SerializeToString())
    return path


def test_kinds_are_converted_and_absent_is_missing(tmp_path: Path) -> None:
    rows: list[dict[str, list[Any]]] = [
        {"id": [7], "price": [b"1.5"], "tags": [b"a", b"b"], "never": []},
        {"price": [b""], "score": [0.5]},
    ]
    path = write(tmp_path / "t.tfrecord", rows)
    types = {
        "id": "string",
        "price": "float",
        "tags": "strings",
        "score": "floats",
        "never": "int",
    }
    assert read_table([path], types).to_pylist() == [
        {"id": "7", "price": 1.5, "tags": ["a", "b"], "score": [], "never": None},
        {"id": None, "price": None, "tags": [], "score": [0.5], "never": None},
    ]


def test_feature_may_be_absent_from_one_file(tmp_path: Path) -> None:
    first = write(tmp_path / "a.tfrecord", [{"id": [1]}])
    second = write(tmp_path / "b.tfrecord", [{"id": [2], "tag": [b"x"]}], "GZIP")
    table = read_table([first, second], {"tag": "string", "id": "int"})
    assert table.to_pylist() == [{"tag": None, "id": 1}, {"tag": "x", "id": 2}]


def test_missing_feature_names_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tfrecord", [{"clicks": [1], "user": [2]}])
    with pytest.raises(UserError, match="'click' is missing .* Did you mean 'clicks'"):
        read_table([path], {"user": "int", "click": "int"})


def test_many_batches_keep_their_order(tmp_path: Path) -> None:
    rows = [{"id": [i], "l": [float(i)] * (i % 3)} for i in range(10_000)]
    table = read_table([write(tmp_path / "t.tfrecord", rows)], {"id": "int", "l": "floats"})
    assert table["id"].to_pylist() == list(range(10_000))
    assert table["l"].to_pylist() == [row["l"] for row in rows]


def test_non_numeric_value_names_the_row(tmp_path: Path) -> None:
    rows = [{"price": [b"1"]}] * 5_000 + [{"price": [b"cheap"]}]
    with pytest.raises(UserError, match="is not a number in data row 5001"):
        read_table([write(tmp_path / "t.tfrecord", rows)], {"price": "float"})


def record_length(content: bytes, start: int) -> int:
    """Bytes of the record at `start`: length (8), its checksum (4), the data, checksum (4)."""
    (length,) = struct.unpack("<Q", content[start : start + 8])
    return 8 + 4 + int(length) + 4


@pytest.mark.parametrize("records", [3, 9_000])
@pytest.mark.parametrize("cut", [5, 14])
def test_truncated_record_is_numbered(tmp_path: Path, records: int, cut: int) -> None:
    path = write(tmp_path / "t.tfrecord", [{"id": [1]}] * records)
    content = path.read_bytes()
    size = record_length(content, 0)
    path.write_bytes(content[: size * (records - 1) + cut])
    with pytest.raises(UserError, match=f"Record {records - 1} .* is truncated or corrupt"):
        read_table([path], {"id": "int"})


def test_corrupt_record_is_numbered(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tfrecord", [{"id": [1]}] * 5)
    content = bytearray(path.read_bytes())
    content[record_length(bytes(content), 0) * 2 + 14] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match="Record 2 .* is truncated or corrupt"):
        read_table([path], {"id": "int"})


@pytest.mark.parametrize("keep", [0.5, -8, -1])
def test_truncated_gzip(tmp_path: Path, keep: float) -> None:
    rows = [{"id": [i * 7919 % 10_007]} for i in range(2_000)]
    path = write(tmp_path / "t.tfrecord.gz", rows, "GZIP")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(UserError, match="truncated or corrupt"):
        read_table([path], {"id": "int"})


def test_records_that_are_no_examples(tmp_path: Path) -> None:
    import tensorflow as tf

    path = tmp_path / "t.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"\xff\xff not an example")
    with pytest.raises(UserError, match="Record 0 .* is not a serialized tf.train.Example"):
        read_table([path], {"id": "int"})


def test_changed_kind_is_numbered(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tfrecord", [{"id": [1]}, {"id": [2]}, {"id": [b"three"]}])
    with pytest.raises(UserError, match="'id' changes its kind at record 2"):
        read_table([path], {"id": "int"})


def test_text_file_under_the_name(tmp_path: Path) -> None:
    (tmp_path / "t.tfrecord").write_text("id\n" + "1\n" * 100)
    with pytest.raises(UserError, match="Record 0 .* is truncated or corrupt"):
        read_table([tmp_path / "t.tfrecord"], {"id": "int"})


def test_gzip_without_records(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tfrecord.gz", [], "GZIP")
    with pytest.raises(UserError, match="no data rows|is empty"):
        read_table([path], {"id": "int"})
