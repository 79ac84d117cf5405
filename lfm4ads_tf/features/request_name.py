"""Names of the raw tensors in a Predict request; needs no TensorFlow, so clients can use it."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

from lfm4ads_tf.errors import UserError

EXCLUDE = "exclude"
"""Request column of a retrieval model: item keys that a user must not get."""

_SPELLED = {".": "_dot_", "@": "_at_"}


def request_name(column: str) -> str:
    """Name under which the signature `predict` takes a column or a representation.

    An input of a signature must be an ASCII identifier that starts with a letter and is no Python
    keyword. Such names stay as they are; otherwise `.` is spelled `_dot_`, `@` is spelled `_at_`,
    any other character becomes `_u<hex code>_`, a leading digit or underscore gets an `x` before
    it, and a keyword or `self` an `_` behind it: `CR_user@cross_2` -> `CR_user_at_cross_2`.

    Args:
        column: Raw column, or name of a representation. In a `tf.Example` it keeps this name.
    """
    name = re.sub(
        "[^A-Za-z0-9_]", lambda m: _SPELLED.get(m.group(), f"_u{ord(m.group()):x}_"), column
    )
    if not name[:1].isalpha():
        name = f"x{name}"
    return f"{name}_" if name == "self" or keyword.iskeyword(name) else name


def request_names(columns: Iterable[str]) -> dict[str, str]:
    """Column -> `request_name(column)`.

    Raises:
        UserError: Two columns get the same name, up to upper and lower case.
    """
    names: dict[str, str] = {}
    taken: dict[str, str] = {}
    for column in columns:
        name = request_name(column)
        other = taken.setdefault(name.lower(), column)
        if other != column or column in names:
            raise UserError(
                "Two inputs of an export get the same name in a request.",
                received=f"'{other}' and '{column}', both requested as '{name}'",
                fix="rename one of them in the data and the feature spec",
            )
        names[column] = name
    return names
