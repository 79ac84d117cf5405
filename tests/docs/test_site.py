"""The built site: a page per public name, no dead link, nothing loaded from elsewhere."""

from __future__ import annotations

import inspect
import posixpath
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lfm4ads_tf
from lfm4ads_tf.config import RunConfig

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
PUBLIC = [name for name in lfm4ads_tf.__all__ if not name.startswith("__")]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_a_page_with_its_docstring(name: str, pages: dict[str, Any]) -> None:
    page = pages[f"api/{name}.html"]
    value = getattr(lfm4ads_tf, name)
    if inspect.isclass(value) or inspect.isroutine(value):  # an instance has its class' docstring
        first = (value.__doc__ or "").strip().splitlines()[0]
        assert first.replace("`", "")[:40] in " ".join(page.text.split())
    assert f"api/{name}.html" in pages["reference.html"].links


def test_no_link_of_the_site_is_dead(site: Path, pages: dict[str, Any]) -> None:
    dead = []
    for uri, page in pages.items():
        for link in page.links:
            path, _, anchor = link.partition("#")
            if ":" in path or uri == "404.html":  # another site; a page without a place of its own
                continue
            target = posixpath.normpath(posixpath.join(posixpath.dirname(uri), path))
            target = target if path else uri
            if not (site / target).exists():
                dead.append((uri, link))
            elif anchor and target in pages and anchor not in pages[target].ids:
                dead.append((uri, link))
    assert not dead


def test_a_page_loads_nothing_from_elsewhere(site: Path, pages: dict[str, Any]) -> None:
    loads = [link for page in pages.values() for link in page.loads]
    assert len(loads) > len(pages)  # each has its style sheets at least
    assert not [link for link in loads if link.startswith("//") or "://" in link]
    sheets = [path.read_text("utf-8") for path in site.rglob("*.css")]
    assert sheets and not [s for s in sheets if "url(http" in s or "url(//" in s or "@import" in s]


def test_files_outside_of_docs_have_pages(pages: dict[str, Any]) -> None:
    assert "source/examples/plug_in.py.html" in pages["add_a_model.html"].links
    shown = pages["source/examples/plug_in.py.html"].text
    code = (ROOT / "examples" / "plug_in.py").read_text("utf-8")
    assert " ".join(code.split()) in " ".join(shown.split())
    assert "testing.html" in pages["CONTRIBUTING.html"].links  # `docs/testing.md` there
    assert "source/LICENSE.html" in pages["CONTRIBUTING.html"].links


def test_the_run_configurations_keys_are_listed(pages: dict[str, Any]) -> None:
    words = set(pages["configuration.html"].text.split())
    keys = [*RunConfig.model_fields, *RunConfig().upstream.training.model_dump()]
    assert not set(keys) - words


def test_a_bar_in_a_tables_code_has_no_backslash(pages: dict[str, Any]) -> None:
    assert "module/isomorphic[+fresh|+frozen]" in pages["transfer.html"].text


def test_dead_links_stop_the_build(
    tmp_path: Path, build: Callable[[Path, Path], subprocess.CompletedProcess[str]]
) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for path in ROOT.iterdir():
        if path.name not in ("docs", "runs", ".git"):
            (checkout / path.name).symlink_to(path)
    shutil.copytree(ROOT / "docs", checkout / "docs")
    dead = ("training.md#no-such-place", "no_such_page.md", "../no_such_file.py")
    with (checkout / "docs" / "skew.md").open("a", encoding="utf-8") as page:
        page.write("\n" + " ".join(f"[a]({link})" for link in dead) + "\n")
    done = build(checkout, tmp_path / "site")
    assert done.returncode != 0
    assert all(link in done.stderr for link in dead), done.stderr
