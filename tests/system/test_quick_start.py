"""The quick start's CSV, as a reader would try it."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "quickstart.md").read_text("utf-8")
OWN_CSV = PAGE.split("## Your own CSV in five minutes")[1]


def code(language: str) -> str:
    """The only block of a language below the page's last heading."""
    blocks = re.findall(rf"```{language}\n(.*?)```", OWN_CSV, re.DOTALL)
    assert len(blocks) == 1
    return str(blocks[0])


@pytest.fixture
def folder(tmp_path: Path, shop_module: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the page's spec, and the shop's log in the page's columns."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(code("yaml"), "utf-8")
    (tmp_path / "shop").mkdir()
    path = shop_module["write_shop"](tmp_path / "shop")
    header, *shown = code("text").splitlines()
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, header.split(","), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    assert path.read_text("utf-8").splitlines()[1 : 1 + len(shown)] == shown
    return tmp_path


@pytest.mark.slow
def test_the_commands_as_written_train_and_score(folder: Path, cli: Callable[..., Any]) -> None:
    commands = code("bash").replace("\\\n", " ").strip().splitlines()
    for command in commands:
        python, program, *arguments = shlex.split(command)
        assert (python, program) == ("python", "train.py")
        done = cli(*arguments)
        assert done.code == 0, done.text
    scores = pq.read_table(folder / "scores.parquet").to_pydict()
    assert scores["row"] == list(range(2800))
    assert set(scores["task"]) == {"click"}
    assert set(scores["scenario"]) == {"home", "search", "mail"}
    assert all(0 < score < 1 for score in scores["score"])
    assert (folder / "runs" / "my_log" / "report.html").is_file()
