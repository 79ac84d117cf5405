"""Names of tasks and scenarios that become names of layers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lfm4ads_tf.errors import UserError


def check_name_parts(names: Sequence[str], kind: str = "task") -> None:
    """Refuses tasks or scenarios whose mixture could not be named as a layer.

    The name is part of a method, where + & / @ separate, and of a folder.

    Args:
        names: Their names.
        kind: What they are, in the message.

    Raises:
        UserError: A name cannot be part of a layer's name.
    """
    for name in names:
        if not re.fullmatch(r"[\w.-]+", name):
            raise UserError(
                f"A {kind}'s name is part of the name of its mixture, which is a layer here.",
                received=repr(name),
                fix=f"rename the {kind}, using letters, digits, '_', '-' and '.' alone",
            )
