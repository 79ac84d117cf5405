"""Extension of griffe: entries of a docstring that explain several names at once.

`a, b: Text.` of the sections Args and Attributes is read as one entry for each name, so that each
gets its type and is held to the signature.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

SECTION = re.compile(r"^(?:Args|Attributes):\n(?:(?: {4}.*)?\n?)+", re.MULTILINE)
ENTRY = re.compile(r"^ {4}(?P<names>\w+(?:, \w+)+)(?P<text>:.*(?:\n {5,}.*)*)", re.MULTILINE)


class JointNames(griffe.Extension):
    """Gives each of several names an entry of its own."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites the sections of an object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = separated(obj.docstring.value)


def separated(docstring: str) -> str:
    """A docstring with an entry for each name."""
    return SECTION.sub(_entries, docstring)


def _entries(section: re.Match[str]) -> str:
    """The section with an entry for each name."""
    return ENTRY.sub(
        lambda e: "\n".join(f"    {name}{e['text']}" for name in e["names"].split(", ")), section[0]
    )
