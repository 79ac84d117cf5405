"""Parquet: corrupt and empty files are messages, and only asked columns are read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lfm4ads_tf.data.sources import read_table
from lfm4ads_tf.errors import UserError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    table = pa.table(
        {
            "id": list(range(1000)),
            "tags": [["a", "b"]] * 1000,
            "nested": [{"x": 1}] * 1000,
            "dotted.name": ["v"] * 1000,
        }
    )
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=100)
    return tmp_path / "t.parquet"


def test_reads_over_row_groups(path: Path) -> None:
    table = read_table([path], {"dotted.name": "string", "tags": "strings", "id": "string"})
    assert table.column_names == ["dotted.name", "tags", "id"]
    assert table["id"].to_pylist() == [str(i) for i in range(1000)]
    assert table["tags"][999].as_py() == ["a", "b"]
    assert table["dotted.name"][0].as_py() == "v"


@pytest.mark.parametrize("cut", [20, -1, -200])
def test_truncated(path: Path, cut: int) -> None:
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match="truncated or corrupt"):
        read_table([path], {"id": "int"})


def test_corrupt_page(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4:400] = b"\xff" * 396
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match="truncated or corrupt"):
        read_table([path], {"id": "int"})


def test_another_format_under_the_name(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_text("id\n1\n")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        read_table([tmp_path / "t.parquet"], {"id": "int"})


def test_no_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": pa.array([], pa.int64())}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="no data rows"):
        read_table([tmp_path / "t.parquet"], {"id": "int"})


def test_structure_is_refused(path: Path) -> None:
    with pytest.raises(UserError, match="'nested' .* cannot be read as 'string'"):
        read_table([path], {"nested": "string"})
