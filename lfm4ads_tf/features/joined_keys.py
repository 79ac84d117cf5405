r"""Keys that are joined of several columns, such as a country and a number.

The text of a joined key is the texts of its parts with a `+` between them; a `+` or a backslash
inside a part gets a backslash before it, so that different parts give different keys. The key's
column is named after its parts in the same way: `country+id`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

_SEPARATOR = "+"
_ESCAPE = "\\"

KeyParts = Annotated[list[str], Field()]
"""Columns that a key is joined of; empty for a key of one column."""


def joined_text(parts: Iterable[str]) -> str:
    r"""One text of several: `SE`, `1+2` -> `SE+1\+2`."""
    escaped = (
        part.replace(_ESCAPE, _ESCAPE * 2).replace(_SEPARATOR, _ESCAPE + _SEPARATOR)
        for part in parts
    )
    return _SEPARATOR.join(escaped)


def joined_texts(parts: Iterable[pa.Array]) -> pa.Array:
    """`joined_text` of every row, (N,) string; null where a part is.

    Args:
        parts: Texts of each part, (N,) string each.
    """
    escaped = []
    for part in parts:
        twice = pc.replace_substring(part, _ESCAPE, _ESCAPE * 2)
        escaped.append(pc.replace_substring(twice, _SEPARATOR, _ESCAPE + _SEPARATOR))
    return pc.binary_join_element_wise(*escaped, _SEPARATOR, null_handling="emit_null")


def with_parts(data: Any, keys: Iterable[str]) -> Any:
    """A document in which a key given as a list has its joined name, and its parts beside it.

    Args:
        data: A mapping as the spec writes it; anything else is left to the validation.
        keys: Keys of the mapping that may be lists.

    Raises:
        ValueError: A list has fewer than two columns, or one twice; or parts are named without
            the key that they make.
    """
    if not isinstance(data, Mapping):
        return data
    full = dict(data)
    for key in keys:
        given = full.get(key)
        if isinstance(given, list):
            if len(given) < 2 or len(set(map(str, given))) < len(given):
                raise ValueError(f"`{key}` must list two or more different columns, got {given}")
            full[key] = joined_text(map(str, given))
            full[f"{key}_parts"] = [str(part) for part in given]
        elif full.get(f"{key}_parts") and full[f"{key}_parts"] != _parts_of(given):
            raise ValueError(
                f"`{key}_parts` is what `{key}: [<column>, <column>]` becomes; give that instead"
            )
    return full


def _parts_of(name: Any) -> list[str]:
    """The parts behind a joined name."""
    parts, escaped = [""], False
    for character in str(name):
        if not escaped and character == _ESCAPE:
            escaped = True
            continue
        if not escaped and character == _SEPARATOR:
            parts.append("")
        else:
            parts[-1] += character
        escaped = False
    return parts
