"""MkDocs hook: what is written for the repository's view becomes what the site needs.

Links to files outside of docs/ work in the repository as they are written. On the site a page of
the top folder that `PAGES` names is a page of its own, README.md is the start page, and any other
file that is linked to is shown under `source/`. So the site needs no address of a repository, and
shows the files as they were when it was built.

A `|` inside of code in a table is escaped for the repository's view, and must not be for the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1\s*$", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\|.*$", re.MULTILINE)
CODE = re.compile(r"`[^`]+`")
LINK = re.compile(r"(?<=\]\()(?P<path>[^()\s#:]+)(?P<anchor>#[^()\s]*)?(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the top folder, and a page for every other file that one links to."""
    for name in PAGES:
        text = (ROOT / name).read_text("utf-8")
        files.append(File.generated(config, name, content=text))
    linked = {
        place
        for file in files.documentation_pages()
        for path, _ in links(file.content_string)
        if _outside(place := _place(_folder(file.src_uri), path)) and (ROOT / place).is_file()
    }
    for place in sorted(linked - {"README.md", *PAGES}):
        text = (ROOT / place).read_text("utf-8")
        kind = PurePosixPath(place).suffix.removeprefix(".") or "text"
        page = f"# {place}\n\n````{kind}\n{text.rstrip()}\n````\n"
        files.append(File.generated(config, _on_site(place), content=page))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points links to files outside of docs/ at the pages of the site; unescapes code in tables."""
    uri = page.file.src_uri
    if uri.startswith("source/"):
        return markdown

    def on_site(link: re.Match[str]) -> str:
        place = _place(_folder(uri), link["path"])
        if uri not in PAGES and not (_outside(place) and (ROOT / place).is_file()):
            return link[0]
        target = posixpath.relpath(_on_site(place), posixpath.dirname(uri) or ".")
        return target + (link["anchor"] or "")

    parts, end = [], 0
    for fence in [*FENCE.finditer(markdown), None]:
        text = markdown[end : fence.start() if fence else None]
        parts.append(LINK.sub(on_site, ROW.sub(_unescaped, text)))
        if fence:
            parts.append(fence[0])
            end = fence.end()
    return "".join(parts)


def links(markdown: str) -> list[tuple[str, str]]:
    """(path, anchor with its #, or "") of the relative links of a page, those in code left out."""
    text = FENCE.sub("", markdown)
    return [(link["path"], link["anchor"] or "") for link in LINK.finditer(text)]


def _unescaped(row: re.Match[str]) -> str:
    """A row of a table without the backslashes before the `|` of its code."""
    return CODE.sub(lambda code: code[0].replace(r"\|", "|"), row[0])


def _folder(uri: str) -> str:
    """Folder of a page's file, from the repository's top."""
    return "" if uri in PAGES else posixpath.join("docs", posixpath.dirname(uri))


def _place(folder: str, path: str) -> str:
    """A link's target, from the repository's top."""
    return posixpath.normpath(posixpath.join(folder, path))


def _outside(place: str) -> bool:
    """Whether a place of the repository lies outside of docs/."""
    return not place.startswith(("docs/", "../"))


def _on_site(place: str) -> str:
    """The page of the site that shows a file of the repository."""
    if place == "README.md":
        return "index.md"
    if place in PAGES:
        return place
    return place.removeprefix("docs/") if place.startswith("docs/") else f"source/{place}.md"
