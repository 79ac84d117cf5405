"""The README's twenty lines and the notebook, as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "twenty_lines.py"
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


def test_they_are_twenty() -> None:
    assert len([line for line in SCRIPT.read_text("utf-8").splitlines() if line.strip()]) == 20


def small(text: str) -> str:
    """The same on few rows."""
    assert text.count("50_000") == 1
    return text.replace("50_000", "6_000")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Variables of a user's process, with a cache of its own."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "LFM4ADS_CACHE": str(tmp_path / "cache")}


@pytest.mark.slow
def test_the_script_runs(tmp_path: Path, environment: dict[str, str]) -> None:
    path = tmp_path / "script.py"
    path.write_text(small(SCRIPT.read_text("utf-8")), "utf-8")
    result = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "click_auc" in result.stdout
    last = result.stdout.strip().splitlines()[-1]
    assert last.startswith("{'click': array([") and "'conversion': array([" in last
    assert (tmp_path / "exports" / "ranker_feed" / "1" / "saved_model.pb").exists()


@pytest.mark.slow
def test_the_notebook_runs(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat = pytest.importorskip("nbformat")
    from nbclient import NotebookClient

    for name in ("PYTHONPATH", "LFM4ADS_CACHE"):
        monkeypatch.setenv(name, environment[name])
    notebook = nbformat.reads(small(NOTEBOOK.read_text("utf-8")), as_version=4)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    answers = ["".join(o["data"]["text/plain"] for o in c.outputs if "data" in o) for c in cells]
    assert answers[1].startswith("EncodedLog(synthetic: ")
    assert "True" in answers  # the loaded model's scores are the saved one's
    assert "'click': array(" in answers[-1]


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
