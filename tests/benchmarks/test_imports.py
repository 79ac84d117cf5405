"""The benchmarks import what there is: no linter sees a name that has moved away."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "benchmarks").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_benchmark_imports_of_ours_is_there(path: Path) -> None:
    lacking = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        source = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        if source.split(".")[0] != "lfm4ads_tf":
            continue  # the peers' libraries need not be installed
        module = importlib.import_module(source)
        for alias in node.names:
            inside = f"{source}.{alias.name}"
            if not hasattr(module, alias.name) and not _is_module(inside):
                lacking.append(inside)
    assert not lacking


def _is_module(name: str) -> bool:
    """Whether a folder of ours holds a module of this name."""
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()
