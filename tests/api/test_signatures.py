"""The signatures of the public names are frozen."""

from __future__ import annotations

import difflib
import runpy
from pathlib import Path

import pytest

import lfm4ads_tf
from tests.api.signatures import RECORDED, signatures

MODULE = "tests.api.record_signatures"
HOW = f"python -m {MODULE}"


def difference(recorded: str, found: list[str]) -> str:
    """What changed, line by line."""
    lines = difflib.unified_diff(
        recorded.splitlines(), found, "recorded", "found", lineterm="", n=0
    )
    return "\n".join(lines)


def test_signatures_are_as_they_were_recorded() -> None:
    changed = difference(RECORDED.read_text("utf-8"), signatures())
    assert not changed, (
        f"The public signatures changed:\n{changed}\n"
        f"Users' code calls them. Where the change is wanted, record it with `{HOW}` and tell it "
        "in CHANGELOG.md."
    )


def test_a_changed_argument_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_rows(self: object, table: str, stop: int, start: int = 0) -> object: ...

    monkeypatch.setattr(lfm4ads_tf.ShardedEmbedding, "read_rows", read_rows)
    read_rows.__module__ = lfm4ads_tf.ShardedEmbedding.__module__
    changed = difference(RECORDED.read_text("utf-8"), signatures())
    assert "+    read_rows(self: object, table: str, stop: int, start: int = 0)" in changed
    assert "-    read_rows(self, table: str, start: int, stop: int" in changed


def test_the_command_records_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    target = tmp_path / "signatures.txt"
    monkeypatch.setattr(f"{signatures.__module__}.RECORDED", target)
    runpy.run_module(MODULE, run_name="__main__")
    assert target.read_text("utf-8") == "\n".join(signatures()) + "\n"
