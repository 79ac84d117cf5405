"""Extension of griffe: the forms of this package's docstrings that its parser does not know.

- `a, b: Text.` in the sections Args and Attributes is an entry for each name, so that each gets its
  type and is held to the signature.
- `Keys:` with `name: text` below is a list, as Attributes is.
- A colon in Returns is one of its sentence: types stand in the signature.
- `Example:` is the section Examples.
- Any other line that ends in a colon and has indented formulas below is text and a block of code.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

SECTION = re.compile(r"^(?:Args|Attributes):\n(?:(?: {4}.*)?\n?)+", re.MULTILINE)
JOINT = re.compile(r"^ {4}(?P<names>\w+(?:, \w+)+)(?P<text>:.*(?:\n {5,}.*)*)", re.MULTILINE)
KEYS = re.compile(r"^Keys:\n(?P<entries>(?: {4}.*\n?)+)", re.MULTILINE)
KEY = re.compile(r"^ {4}(?P<name>[^\s:][^:\n]*): ", re.MULTILINE)
RETURNS = re.compile(r"^Returns:\n(?:(?: {4}.*)?\n?)+", re.MULTILINE)
EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
FORMULAS = re.compile(
    r"^(?P<text>(?!(?:Args|Attributes|Examples?|Raises|Returns|Yields):)\S.*:)\n"
    r"(?P<lines> {4}.* (?:<-|=) .*\n)",
    re.MULTILINE,
)


class Docstrings(griffe.Extension):
    """Rewrites docstrings before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites an object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value)


def rewritten(docstring: str) -> str:
    """A docstring in forms that the parser knows."""
    docstring = SECTION.sub(_entries, docstring)
    docstring = KEYS.sub(
        lambda m: "Keys:\n\n" + KEY.sub(r"- `\g<name>`: ", m["entries"]), docstring
    )
    docstring = RETURNS.sub(lambda section: section[0].replace(": ", " – "), docstring)
    docstring = EXAMPLE.sub("Examples:", docstring)
    return FORMULAS.sub(r"\g<text>\n\n\g<lines>", docstring)


def _entries(section: re.Match[str]) -> str:
    """The section with an entry for each name."""
    return JOINT.sub(
        lambda e: "\n".join(f"    {name}{e['text']}" for name in e["names"].split(", ")), section[0]
    )
