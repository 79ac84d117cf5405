"""Quotes, escapes and line breaks of text files: every row is read, or the line is named."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.data.sources.csv import read_csv, read_header
from lfm4ads_tf.data.sources.text_stream import TextStream
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.text_options import TextOptions

CELL = st.text(st.sampled_from(list('ab",\\\n\r')), max_size=6)
ROWS = st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("text") / "t.csv"


def rows_of(path: Path, content: str, delimiter: str = ",", **text: Any) -> list[tuple[str, str]]:
    path.write_bytes(content.encode())
    table = read_csv(path, ["x", "y"], delimiter=delimiter, text=TextOptions(**text))
    return [(r["x"] or "", r["y"] or "") for r in table.to_pylist()]


def passed(content: bytes, size: int, path: Path, **text: Any) -> bytes:
    """What the stream passes on when it is read in small pieces."""
    stream = TextStream(io.BytesIO(content), path, ",", TextOptions(**text))
    return b"".join(iter(lambda: stream.read(size), b""))


@given(rows=ROWS, every=st.booleans())
def test_cells_that_python_quotes_are_read_back(
    path: Path, rows: list[tuple[str, str]], every: bool
) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=csv.QUOTE_ALL if every else csv.QUOTE_MINIMAL)
    writer.writerows([("x", "y"), *rows])
    assert rows_of(path, file.getvalue(), newlines_in_cells=True) == rows
    if any("\n" in cell or "\r" in cell for row in rows for cell in row):
        with pytest.raises(UserError, match=r"cell that opens with a quote in line \d+ .* line\."):
            rows_of(path, file.getvalue())
    else:
        assert rows_of(path, file.getvalue()) == rows


def spark_cell(cell: str) -> str:
    r"""As Spark writes a cell: quoted where it must be, and then `\` before `"` and `\`."""
    if cell and not set(cell) & set('",\n\r'):
        return cell
    return '"' + cell.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(rows=ROWS, size=st.integers(1, 9))
def test_cells_that_spark_escapes_are_read_back(
    path: Path, rows: list[tuple[str, str]], size: int
) -> None:
    lines = ["x,y", *[",".join(map(spark_cell, row)) for row in rows]]
    content = "\n".join(lines) + "\n"
    given_as = {"escape": "backslash", "newlines_in_cells": True}
    assert rows_of(path, content, **given_as) == rows
    # The places of blocks are of no matter, and the result is plain CSV.
    whole = passed(content.encode(), size, path, **given_as).decode()
    found = list(csv.reader(io.StringIO(whole, newline="")))
    assert [tuple(row) for row in found[1:]] == rows


@given(
    content=st.text(st.sampled_from(list('a",\n')), max_size=14).map(lambda t: "x,y\n" + t + "\n"),
    size=st.integers(1, 9),
)
def test_no_line_is_lost_whatever_the_quotes(path: Path, content: str, size: int) -> None:
    """Either one row per line, equal to Python's strict reading of that line alone, or an error."""
    lines = [line for line in content.splitlines()[1:] if line]

    def alone(line: str) -> list[str] | None:
        try:
            (cells,) = csv.reader([line], strict=True)
        except csv.Error:
            return None
        return cells if len(cells) == 2 else None

    expected = [alone(line) for line in lines]
    if not lines or None in expected:
        with pytest.raises(UserError):
            rows_of(path, content)
    else:
        assert [list(row) for row in rows_of(path, content)] == expected
    path.write_bytes(content.encode())
    outcomes = set()
    for pieces in (size, 1 << 20):
        try:
            outcomes.add(passed(content.encode(), pieces, path).decode())
        except UserError as error:
            outcomes.add(str(error))
    assert len(outcomes) == 1


def test_a_quote_too_many_is_refused_with_its_line_and_read_where_it_is_text(path: Path) -> None:
    """900 lines, every third with a cell that begins with a quote: once 600 rows."""
    cells = [f'"w{i}' if i % 3 == 0 else f"w{i}" for i in range(900)]
    content = "x\ty\n" + "".join(f"{i}\t{cell}\n" for i, cell in enumerate(cells))
    with pytest.raises(UserError) as error:
        rows_of(path, content, "\t")
    message = str(error.value)
    assert f"opens with a quote in line 2 of '{path}' is not closed in its line" in message
    assert "`quoting: none`" in message and "`newlines_in_cells: true`" in message
    found = rows_of(path, content, "\t", quoting="none")
    assert found == [(str(i), cell) for i, cell in enumerate(cells)]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ('"a" b,c', "is followed by text behind its closing quote"),
        ('"",""c', "is followed by text"),
        ('"a,b', "is not closed in its line"),
        ('a,"b\nc"', "is not closed in its line"),
        ('"say \\"hi\\"",c', "is followed by text .*\n.*\n.*`escape: backslash`"),
        ('"\\"a, b\\"",c', "is followed by text .*\n.*\n.*`escape: backslash`"),
    ],
)
def test_a_wrong_cell_is_named_with_its_line(path: Path, row: str, what: str) -> None:
    with pytest.raises(UserError, match=rf"in line 4 of .* {what}"):
        rows_of(path, f'x,y\r\n1,"2"\r\n\r\n{row}\r\n5,6\r\n')


def test_line_breaks_in_cells_do_not_hide_a_quote_too_many(path: Path) -> None:
    with pytest.raises(UserError, match="line 3 of .* followed by text"):
        rows_of(path, 'x,y\n1,"a\nb"\n2,"c\n3,"d\n'.replace('"a\nb"', "a"), newlines_in_cells=True)
    with pytest.raises(UserError, match="line 3 of .* is never closed"):
        rows_of(path, 'x,y\n1,2\n2,"c\n3,d\n', newlines_in_cells=True)


def test_spark_escapes_are_the_text_they_stand_for(path: Path) -> None:
    content = 'x,y\n"say \\"hi, you\\"",a\\b\n"c:\\\\d, e","\\f,"\n'
    rows = [('say "hi, you"', "a\\b"), ("c:\\d, e", "\\f,")]
    assert rows_of(path, content, escape="backslash") == rows


def test_escapes_in_the_header(path: Path) -> None:
    path.write_text('"a\\"b",c\\d\n1,2\n')
    text = TextOptions(escape="backslash")
    assert read_header(path, text=text) == ['a"b', "c\\d"]
    assert read_csv(path, ["c\\d", 'a"b'], text=text).to_pylist() == [{"c\\d": "2", 'a"b': "1"}]


def test_options_that_contradict_each_other_are_refused() -> None:
    for more in ({"escape": "backslash"}, {"newlines_in_cells": True}):
        with pytest.raises(ValueError, match="are for quoted cells"):
            TextOptions(quoting="none", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("end", ["\n", ""])
@pytest.mark.parametrize("block", [48, 97, 1024])
@pytest.mark.parametrize("style", ["python", "spark"])
def test_rows_across_the_blocks_of_the_reader(
    path: Path, monkeypatch: pytest.MonkeyPatch, block: int, style: str, end: str
) -> None:
    monkeypatch.setattr("lfm4ads_tf.data.sources.csv._BLOCK_BYTES", block)
    cells = ["plain", 'a "b"', "c, d", "", 'e"', "\\", 'f\\"', "g\nh"]
    rows = [(cells[i % 8], cells[i // 3 % 7]) for i in range(300)]
    rows[100:160] = [("plain", "text")] * 60
    cell = spark_cell if style == "spark" else lambda v: '"' + v.replace('"', '""') + '"'
    content = "\n".join(["x,y", *[",".join(map(cell, row)) for row in rows]]) + end
    escape = "backslash" if style == "spark" else "none"
    assert rows_of(path, content, escape=escape, newlines_in_cells=True) == rows
    one_line = [(a.replace("\n", " "), b) for a, b in rows]
    content = "\n".join(["x,y", *[",".join(map(cell, row)) for row in one_line]]) + end
    assert rows_of(path, content, escape=escape) == one_line
