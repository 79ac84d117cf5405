"""CSV: quoting, ragged rows, encodings and broken gzip, each with the row it is in."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from lfm4ads_tf.data.sources import read_table
from lfm4ads_tf.data.sources.csv import read_csv
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.text_options import TextOptions


def write(tmp_path: Path, content: bytes, name: str = "t.csv") -> Path:
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


def test_quotes_newlines_crlf_bom_and_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path, b'\xef\xbb\xbfa,b\r\n"x,1","line\nbreak"\r\n\r\n"say ""hi""",\r\n')
    text = TextOptions(newlines_in_cells=True)
    assert read_table([path], {"b": "string", "a": "string"}, text=text).to_pylist() == [
        {"b": "line\nbreak", "a": "x,1"},
        {"b": None, "a": 'say "hi"'},
    ]


def test_quoting_can_be_switched_off(tmp_path: Path) -> None:
    path = write(tmp_path, b'a\tb\n"Quoted" title\t1\n"open\t2\n')
    table = read_csv(path, ["a", "b"], delimiter="\t", text=TextOptions(quoting="none"))
    assert table["a"].to_pylist() == ['"Quoted" title', '"open']


@pytest.mark.parametrize("extra", ["7,8,9", "7"])
@pytest.mark.parametrize("rows_before", [0, 3, 2_000_000])
def test_ragged_row_is_numbered(tmp_path: Path, extra: str, rows_before: int) -> None:
    body = b"1,2\n" * rows_before + extra.encode() + b"\n5,6\n"
    path = write(tmp_path, b"a,b\n" + body)
    fields = extra.count(",") + 1
    with pytest.raises(UserError) as error:
        read_table([path], {"a": "int"})
    assert f"data row {rows_before + 1} has {fields} fields, but the header has 2" in str(
        error.value
    )


@pytest.mark.parametrize("content", [b"a,b\n", b"a,b", b"\n\n"])
def test_header_only_has_no_rows(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match="no data rows"):
        read_table([write(tmp_path, content)], {"a": "int"})


@pytest.mark.parametrize("column", ["a", "b"])
def test_not_utf8_names_row_and_column(tmp_path: Path, column: str) -> None:
    cells = {"a": b"ok", "b": b"ok"} | {column: "é".encode("latin-1")}
    path = write(tmp_path, b"a,b\nx,y\n" + cells["a"] + b"," + cells["b"] + b"\n")
    with pytest.raises(UserError, match=f"Column '{column}' is not UTF-8 text in data row 2"):
        read_table([path], {"a": "string", "b": "string"})


def test_header_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="header of .* is not UTF-8"):
        read_table([write(tmp_path, "a,b\n1,2\n".encode("utf-16"))], {"a": "int"})


@pytest.mark.parametrize("keep", [12, 0.5, -8, -1])
def test_truncated_gzip(tmp_path: Path, keep: float) -> None:
    rows = "".join(f"{i},{i * 7919 % 1000}\n" for i in range(20_000))
    packed = gzip.compress(b"a,b\n" + rows.encode())
    cut = int(len(packed) * keep) if isinstance(keep, float) else keep
    path = write(tmp_path, packed[:cut], "t.csv.gz")
    with pytest.raises(UserError, match="truncated or corrupt"):
        read_table([path], {"a": "int"})


def test_corrupt_gzip(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b"a,b\n" + b"1,2\n" * 1000))
    packed[-6] ^= 0xFF  # in the checksum
    with pytest.raises(UserError, match="truncated or corrupt"):
        read_table([write(tmp_path, bytes(packed), "t.csv.gz")], {"a": "int"})


def test_gzip_is_detected_by_content(tmp_path: Path) -> None:
    plain = write(tmp_path, b"a\n1\n", "plain.csv.gz")
    two_members = gzip.compress(b"a\n2\n") + gzip.compress(b"3\n")
    packed = write(tmp_path, two_members, "packed.csv")
    assert read_table([plain, packed], {"a": "int"})["a"].to_pylist() == [1, 2, 3]


@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_unclosed_quote_is_refused(tmp_path: Path, suffix: str) -> None:
    content = b'a,b\n1,x\n2,"y\n3,z\n4,w\n'
    path = write(tmp_path, gzip.compress(content) if suffix == "csv.gz" else content, "t." + suffix)
    with pytest.raises(UserError, match="in line 3 of .* is not closed in its line"):
        read_table([path], {"a": "int"})


def test_closed_quote_with_a_newline_at_the_end_is_fine(tmp_path: Path) -> None:
    path = write(tmp_path, b'a,b\n1,"x\n"\n')
    text = TextOptions(newlines_in_cells=True)
    assert read_table([path], {"b": "string"}, text=text)["b"].to_pylist() == ["x\n"]


def test_repeated_column_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, b"a,b,a\n1,2,3\n")
    with pytest.raises(UserError, match="'a' occurs 2 times"):
        read_table([path], {"a": "int"})
    assert read_table([path], {"b": "int"})["b"].to_pylist() == [2]


def test_missing_values(tmp_path: Path) -> None:
    path = write(tmp_path, b's,i,f,l,m\n,,,,\n"","","","",""\nNaN,NaN,nan,NaN,1\n')
    types = {"s": "string", "i": "int", "f": "float", "l": "strings", "m": "floats"}
    empty = {"s": None, "i": None, "f": None, "l": [], "m": []}
    assert read_table([path], types).to_pylist() == [
        empty,
        empty,
        {"s": "NaN", "i": None, "f": None, "l": ["NaN"], "m": [1.0]},
    ]
