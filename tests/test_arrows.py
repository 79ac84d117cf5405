"""Imports point one way: from a room to what lies below it, and never in a circle.

Every import counts, those inside functions and under TYPE_CHECKING too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Set
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS: tuple[set[str], ...] = (
    {"train"},  # the file in a checkout
    {"command_line"},
    {"front"},
    {"export", "experiments"},
    {"pipeline"},
    {"analysis"},
    {"config"},  # of a run: made of all sections
    {"tuning", "diagnostics"},
    {"training", "representations", "transfer", "baselines"},
    {"cluster"},
    {"models", "data"},
    {"interactions", "optim"},
    {"embeddings"},
    {"features", "losses", "metrics", "retrieval"},
    {"batch", "section"},  # a section of the configuration: `config.py` of a folder
    {"names"},  # a table of names: `registry.py` of a folder
    {"kernels"},
    {"ground"},  # the other files beside `config.py`: errors, files, strict, seeding, ...
)
"""From top to bottom; a room imports from itself and from lower layers alone."""
TABLES = {"config": "section", "registry": "names"}
"""Files of a folder that lie below all rooms."""
OUTSIDE = r"^\s*(?:from|import) (?:export|feature_specs)\b.*"
"""An import of a linked folder by its name outside of `lfm4ads_tf`."""
Import = tuple[str, str]


def imports_of(root: Path, *packages: str) -> set[Import]:
    """(importing module, imported module) of the files of some packages below a folder.

    A package that lies in another one as a link is read where it is named itself.
    """
    paths = [p for package in packages for p in (root / package).rglob("*.py")]
    paths += [p for p in (root / f"{package}.py" for package in packages) if p.is_file()]
    names = (".".join(path.relative_to(root).with_suffix("").parts) for path in paths)
    modules = {n.removesuffix(".__init__"): p for n, p in zip(names, paths, strict=True)}
    pairs = set()
    for module, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{module} imports relatively; name the whole module"
                source = node.module or ""
                inside = {f"{source}.{alias.name}" for alias in node.names}
                imported = inside & modules.keys() or {source}  # files of a folder, or its names
            else:
                continue
            pairs |= {(module, other) for other in imported & modules.keys() if other != module}
    return pairs


def place(module: str) -> tuple[str, ...]:
    """Room, folder, ..., file."""
    parts = tuple(module.split("."))
    if parts[0] != "lfm4ads_tf":
        return parts
    parts = parts[1:]
    if parts and parts[0] == "export":  # its tables are of what only exports know
        return parts
    if len(parts) > 1 or parts and (ROOT / "lfm4ads_tf" / parts[0]).is_dir():
        return (TABLES[parts[-1]], *parts) if parts[-1] in TABLES else parts
    return parts if parts in (("command_line",), ("config",), ("batch",)) else ("ground", *parts)


def upward(pairs: Set[Import]) -> list[Import]:
    """Imports of another room that lies no lower."""
    heights = {room: -depth for depth, rooms in enumerate(LAYERS) for room in rooms}
    rooms = {pair: (place(pair[0])[0], place(pair[1])[0]) for pair in pairs}
    return sorted(p for p, (a, b) in rooms.items() if a != b and heights[a] <= heights[b])


def circle(pairs: Set[Import]) -> list[tuple[str, ...]]:
    """A circle of files, or of files and folders side by side in a room; empty without one."""
    for depth in range(2, 6):
        graph: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
        for ends in pairs:
            importer, imported = (place(module)[:depth] for module in ends)
            if importer != imported:
                graph.setdefault(importer, set()).add(imported)
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            return list(error.args[1])
    return []


@cache
def package_imports() -> frozenset[Import]:
    """Imports of the package, of the linked `export` in it, and of the command line."""
    return frozenset(imports_of(ROOT, "lfm4ads_tf", "lfm4ads_tf/export", "train"))


def test_imports_point_down_and_in_no_circle() -> None:
    pairs = package_imports()
    assert len(pairs) > 1000  # they are read at all
    assert ("lfm4ads_tf.export.stage", "lfm4ads_tf.export.exporter") in pairs
    assert not upward(pairs)
    assert not circle(pairs)


@pytest.mark.parametrize(
    "importer, imported",
    [
        ("lfm4ads_tf.interactions.block", "lfm4ads_tf.transfer.downstream"),
        ("lfm4ads_tf.embeddings.table", "lfm4ads_tf.models.tower"),
        ("lfm4ads_tf.interactions.config", "lfm4ads_tf.interactions.block"),
        ("lfm4ads_tf.files", "lfm4ads_tf.features.spec"),
        ("lfm4ads_tf.pipeline.report", "lfm4ads_tf.export.stage"),
        ("lfm4ads_tf.models.heads", "lfm4ads_tf.data.cache"),
    ],
)
def test_an_upward_import_is_found(importer: str, imported: str) -> None:
    pairs = package_imports()
    assert upward(pairs | {(importer, imported)}) == [(importer, imported)]


@pytest.mark.parametrize(
    "importer, imported",
    [
        ("lfm4ads_tf.features.spec", "lfm4ads_tf.features.spec_checks"),
        ("lfm4ads_tf.data.sources.places", "lfm4ads_tf.data.clock"),  # a folder and a file
        ("lfm4ads_tf.errors", "lfm4ads_tf.files"),
        ("lfm4ads_tf.export.wire.transport", "lfm4ads_tf.export.client"),
    ],
)
def test_a_circle_is_found(importer: str, imported: str) -> None:
    pairs = package_imports() | {(importer, imported)}
    assert not upward(pairs)
    assert circle(pairs)


@pytest.mark.parametrize(
    "folder", ["lfm4ads_tf", "export", "tests", "benchmarks", "examples", "docs"]
)
def test_linked_folders_have_one_name(folder: str) -> None:
    """A file that is imported under two names would be run twice, with classes of its own."""
    files = [p for p in (ROOT / folder).rglob("*.*") if p.suffix in (".py", ".md")]
    assert files
    named = {str(p): re.findall(OUTSIDE, p.read_text("utf-8"), re.MULTILINE) for p in files}
    assert not {path: found for path, found in named.items() if found}


def test_hidden_imports_count(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "__init__.py").touch()
    (tmp_path / "a" / "b.py").write_text("def f():\n    from a.c import d\n", "utf-8")
    (tmp_path / "a" / "c.py").write_text("if TYPE_CHECKING:\n    from a import b\n", "utf-8")
    pairs = imports_of(tmp_path, "a")
    assert pairs == {("a.b", "a.c"), ("a.c", "a.b")}
    assert set(circle(pairs)) == {("a", "b"), ("a", "c")}
