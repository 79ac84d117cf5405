"""MkDocs hook: a page per public name of the package, made from its docstring.

The names are those of `lfm4ads_tf.__all__`. A page is called `api/<name>.md`; the navigation lists
it under its group, and `reference.md` gets a table of all at its mark.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import lfm4ads_tf

MARK = "<!-- PYTHON API -->"
ROOT = Path(__file__).resolve().parents[2]
GROUPS = {
    "Data": (
        "batch",
        "data",
        "features",
        "front.encode",
        "front.encoded_log",
        "front.fetch",
        "front.period_chain",
    ),
    "Models": ("embeddings", "interactions", "models"),
    "Training": ("config", "losses", "metrics", "optim", "training"),
    "Transfer and export": ("export", "front", "representations", "retrieval", "transfer"),
}
"""Group of the navigation -> where its names lie in the package; the first that fits is taken."""


def public_names() -> dict[str, str]:
    """Public name -> the dotted path of what it stands for, in the order of `__all__`."""
    places = lfm4ads_tf.PUBLIC
    names = [name for name in lfm4ads_tf.__all__ if not name.startswith("__")]
    return {name: places.get(name, f"lfm4ads_tf:{name}").replace(":", ".") for name in names}


def group_of(path: str) -> str:
    """The group of the navigation that a dotted path belongs to; "More" without any."""
    place = path.removeprefix("lfm4ads_tf.")
    fitting = (g for g, places in GROUPS.items() for p in places if place.startswith(f"{p}."))
    return next(fitting, "More")


def grouped() -> dict[str, dict[str, str]]:
    """Group -> its public names, each with its dotted path; groups without one are left out."""
    groups: dict[str, dict[str, str]] = {group: {} for group in (*GROUPS, "More")}
    for name, path in public_names().items():
        groups[group_of(path)][name] = path
    return {group: names for group, names in groups.items() if names}


def on_config(config: MkDocsConfig) -> None:
    """Lists the pages in the navigation, as the last entry of "Reference"."""
    entries: list[Any] = [
        {group: [{name: f"api/{name}.md"} for name in names]} for group, names in grouped().items()
    ]
    reference = next(entry for entry in config.nav or [] if "Reference" in entry)
    reference["Reference"].append({"Python API": entries})


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    for name, path in public_names().items():
        files.append(File.generated(config, f"api/{name}.md", content=f"::: {path}\n"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts the table of all public names at its mark."""
    return markdown.replace(MARK, _tables()) if MARK in markdown else markdown


def _tables() -> str:
    """A table per group: the name and the first line of its docstring."""
    package = griffe.load("lfm4ads_tf", search_paths=[ROOT])
    lines = []
    for group, names in grouped().items():
        lines += [f"### {group}", "", "| name | what it is |", "|---|---|"]
        for name, path in names.items():
            docstring = package[path.removeprefix("lfm4ads_tf.")].docstring
            first = docstring.value.splitlines()[0] if docstring else ""
            lines.append(f"| [`{name}`](api/{name}.md) | {first} |")
        lines.append("")
    return "\n".join(lines)
