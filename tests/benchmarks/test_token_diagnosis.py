"""The benchmark of the diagnostics of tokens, on few of them."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.token_diagnosis import main


def test_the_whole_and_its_parts_are_measured(tmp_path: Path) -> None:
    file = tmp_path / "made" / "result.json"
    sizes = ["--rows", "60", "--tokens", "3", "--dim", "6", "--depth", "1", "--rounds", "1"]
    assert main([*sizes, "--json", str(file)]) == 0
    found = json.loads(file.read_text("utf-8"))["seconds"]
    assert set(found) == {"whole", "ranks", "token_eranks", "correlations", "codes", "pairs"}
    assert all(seconds > 0 for seconds in found.values())
