"""The comparison of two run folders: it fails where they differ, and where there is nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.same_bits import main

VALUES = np.array([0.0, 1.5, np.nan], np.float32)
ENTRY = {"metrics": {"auc": 0.75}, "wall_s": 1.0}


def folder(path: Path, values: np.ndarray, entry: dict[str, object]) -> Path:
    path.mkdir()
    np.save(path / "table.npy", values)
    (path / "results.json").write_text(json.dumps({"entries": [entry]}), "utf-8")
    return path


def code(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> object:
    monkeypatch.setattr(sys, "argv", ["same_bits", *map(str, folders)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


@pytest.mark.parametrize(
    ("values", "entry", "expected"),
    [
        (VALUES.copy(), {**ENTRY, "wall_s": 2.0}, 0),
        (VALUES.copy(), {**ENTRY, "added": 1}, 0),
        (np.nextafter(VALUES, np.float32(2.0)), ENTRY, 1),  # by one bit
        (np.array([-0.0, 1.5, np.nan], np.float32), ENTRY, 1),  # an equal number, other bits
        (VALUES.astype(np.float64), ENTRY, 1),
        (VALUES.copy(), {**ENTRY, "metrics": {"auc": 0.5}}, 1),
        (VALUES.copy(), {"wall_s": 1.0}, 1),
    ],
)
def test_a_difference_is_told(
    values: np.ndarray,
    entry: dict[str, object],
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = folder(tmp_path / "a", VALUES, ENTRY), folder(tmp_path / "b", values, entry)
    assert code(monkeypatch, *folders) == expected


def test_a_file_on_one_side_alone_is_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = folder(tmp_path / "a", VALUES, ENTRY), folder(tmp_path / "b", VALUES, ENTRY)
    np.save(folders[1] / "more.npy", VALUES)
    assert code(monkeypatch, *folders) == 1


def test_folders_without_results_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    assert code(monkeypatch, tmp_path / "a", tmp_path / "not_there") == 2
