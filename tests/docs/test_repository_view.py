"""The documentation as the repository shows it: links, anchors, and what pages repeat."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lfm4ads_tf import __version__

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+)\)|(?:src|href)=\"([^\"]+)\"")
MENTION = re.compile(r"\bdocs/[\w/]+\.md\b")


def anchors(text: str) -> set[str]:
    """The anchors that the host of a repository gives to the headings of a page."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} +(.+?)\s*$", FENCE.sub("", text), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
        if found[slug]:
            found[f"{slug}-{found[slug]}"] = 0
    return set(found)


def dead_links(page: Path) -> Iterator[str]:
    """Links of a page to a file, or a heading, that is not there."""
    text = FENCE.sub("", page.read_text("utf-8"))
    for pair in LINK.findall(re.sub(r"`[^`\n]*`", "", text)):
        link = pair[0] or pair[1]
        path, _, anchor = link.partition("#")
        if ":" in path:
            continue
        target = page.parent / path if path else page
        if not target.exists():
            yield link
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text("utf-8")):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_link_is_dead(page: Path) -> None:
    assert list(dead_links(page)) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text(
        "# A `x.y` heading, twice\n\n# A `x.y` heading, twice\n", "utf-8"
    )
    (tmp_path / "a.md").write_text(
        "# Here\n[1](b.md) [2](c.md) [3](b.md#a-xy-heading-twice) [4](b.md#a-xy-heading-twice-1)\n"
        "[5](b.md#x) [6](#here) [7](#there) `[8](d.md)` [9](https://example.org/none)\n"
        '```\n[10](e.md)\n# No heading\n```\n<img src="f.svg"> [11](#no-heading)\n',
        "utf-8",
    )
    assert list(dead_links(tmp_path / "a.md")) == [
        "c.md",
        "b.md#x",
        "#there",
        "f.svg",
        "#no-heading",
    ]


def test_pages_that_the_code_names_are_there() -> None:
    files = [
        path
        for folder in ("lfm4ads_tf", "export", "benchmarks", "tests", "feature_specs", "examples")
        for kind in ("py", "yaml", "md", "cc")
        for path in (ROOT / folder).rglob(f"*.{kind}")
    ]
    files += [ROOT / "train.py", ROOT / "Makefile"]
    named = {(m, p) for p in files for m in MENTION.findall(p.read_text("utf-8"))}
    assert len(named) > 20
    assert not [(m, p.as_posix()) for m, p in named if not (ROOT / m).is_file()]


def test_every_page_is_in_the_navigation_once() -> None:
    def listed(entries: list[object]) -> Iterator[str]:
        for entry in entries:
            for value in entry.values() if isinstance(entry, dict) else [entry]:
                yield from listed(value) if isinstance(value, list) else [value]

    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    found = list(listed(nav))
    assert len(found) == len(set(found))
    pages = {
        p.relative_to(ROOT / "docs").as_posix() for p in PAGES if p.is_relative_to(ROOT / "docs")
    }
    assert pages <= set(found)


def block(page: str, first: str, last: str) -> str:
    """What stands between two marks of a page."""
    text = (ROOT / page).read_text("utf-8")
    assert text.count(first) == text.count(last) == 1
    return text.split(first)[1].split(last)[0]


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_the_twenty_lines_are_those_of_the_example(page: str) -> None:
    shown = block(page, "<!-- TWENTY LINES -->", "<!-- END OF TWENTY LINES -->")
    code = (ROOT / "examples" / "twenty_lines.py").read_text("utf-8")
    assert shown.strip() == f"```python\n{code.strip()}\n```"


def test_the_numbers_of_the_readmes_result_are_those_of_the_results() -> None:
    marks = ("<!-- RESULT TABLE -->", "<!-- END OF RESULT TABLE -->")
    rows = re.findall(r"^\|.* \d\.\d{4}.*$", block("README.md", *marks), re.MULTILINE)
    results = (ROOT / "docs" / "results.md").read_text("utf-8").splitlines()
    assert len(rows) >= 3
    for row in rows:
        name, *numbers = (cell.strip(" *") for cell in row.strip("|").split("|"))
        of_name = [line for line in results if line.strip("| *").startswith(name)]
        assert of_name, name
        assert all(number in of_name[0] for number in numbers), row


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == __version__
    assert citation["references"][0]["identifiers"][0]["value"] == "arXiv:2508.14948"
