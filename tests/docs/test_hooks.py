"""The hooks that make pages, each on a small page of its own."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import griffe
import pytest
from pydantic import Field

from lfm4ads_tf.strict import StrictModel

Hook = Callable[[str], ModuleType]


def on_page(hook: Hook, uri: str, markdown: str) -> str:
    """What the site gets of a page's text."""
    page: Any = SimpleNamespace(file=SimpleNamespace(src_uri=uri))
    text: str = hook("repository_links").on_page_markdown(markdown, page, None, None)
    return text


@pytest.mark.parametrize(
    "uri, link, target",
    [
        ("a.md", "../examples/plug_in.py", "source/examples/plug_in.py.md"),
        ("models/a.md", "../../LICENSE", "../source/LICENSE.md"),
        ("models/a.md", "../../README.md#start", "../index.md#start"),
        ("a.md", "../CONTRIBUTING.md#tests", "CONTRIBUTING.md#tests"),
        ("CONTRIBUTING.md", "docs/testing.md#tolerances", "testing.md#tolerances"),
        ("SECURITY.md", "CHANGELOG.md", "CHANGELOG.md"),
        ("a.md", "training.md#loss", "training.md#loss"),
        ("models/a.md", "../training.md", "../training.md"),
        ("a.md", "../no_such_file.py", "../no_such_file.py"),  # for MkDocs to refuse
        ("a.md", "https://example.org/x", "https://example.org/x"),
    ],
)
def test_links_lead_to_the_sites_pages(hook: Hook, uri: str, link: str, target: str) -> None:
    assert on_page(hook, uri, f"See [it]({link}).") == f"See [it]({target})."


def test_code_is_left_alone(hook: Hook) -> None:
    fence = "```python\nf[0](../LICENSE)\n| `a\\|b` |\n```\n"
    given = f"{fence}[x](../LICENSE)\n| `a\\|b` | c \\| d |\n{fence}"
    expected = f"{fence}[x](source/LICENSE.md)\n| `a|b` | c \\| d |\n{fence}"
    assert on_page(hook, "a.md", given) == expected


def test_names_that_share_a_text_get_entries_of_their_own(hook: Hook) -> None:
    docstring = (
        "One line of two words.\n\nArgs:\n    a, b: Both,\n        of (B, D).\n    c: Alone.\n"
        "\nReturns:\n    Two: (B, D), and\n    (B,)."
    )
    separated = hook("docstrings").rewritten(docstring)
    args, returns = griffe.Docstring(separated).parse("google", warnings=False)[1:]
    both = "Both,\nof (B, D)."
    assert [(a.name, a.description) for a in args.value] == [
        ("a", both),
        ("b", both),
        ("c", "Alone."),
    ]
    assert returns.kind is griffe.DocstringSectionKind.returns
    assert separated.endswith("Returns:\n    Two – (B, D), and\n    (B,).")


def test_keys_are_a_list_and_formulas_are_code(hook: Hook) -> None:
    rewritten = hook("docstrings").rewritten(
        "A batch.\n\nKeys:\n    ids: (B, F),\n        int64.\n    b_c: Text: more.\n\n"
        "At step t:\n    m <- b m\n    w <- w - m\n\n"
        "Example:\n    >>> a = 1\n\nArgs:\n    x: Is = 1 here.\n"
    )
    assert rewritten == (
        "A batch.\n\nKeys:\n\n- `ids`: (B, F),\n        int64.\n- `b_c`: Text: more.\n\n"
        "At step t:\n\n    m <- b m\n    w <- w - m\n\n"
        "Examples:\n    >>> a = 1\n\nArgs:\n    x: Is = 1 here.\n"
    )


def test_every_key_of_the_run_configuration_has_a_meaning(hook: Hook) -> None:
    rows = [r for r in hook("run_configuration").tables().splitlines() if r.startswith("| `")]
    assert len(rows) > 80
    assert not [row for row in rows if not row.split(" | ")[-1].strip(" |")]


class _Base(StrictModel):
    """The base.

    Attributes:
        rate, decay: Step sizes, see docs/training.md.
    """

    rate: float = Field(default=0.5, gt=0, le=1)
    decay: float | None = None


class _Part(_Base):
    """A part
    of two lines.

    Attributes:
        names: Their names.
    """

    names: list[str] = ["a", "b"]
    weights: dict[str, float] = {}


def test_a_section_tells_default_values_and_meaning(hook: Hook) -> None:
    about, _, _, _, *rows = hook("run_configuration")._section(_Part, {})
    meaning = "Step sizes, see [training.md](training.md)."
    assert about == "A part of two lines."
    assert rows == [
        f"| `rate` | `0.5` | number > 0, ≤ 1 | {meaning} |",
        f"| `decay` | none | number or none | {meaning} |",
        "| `names` | `[a, b]` | list of text | Their names. |",
        "| `weights` | `{}` | name -> number |  |",
    ]
