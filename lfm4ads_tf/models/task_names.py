"""Names of tasks that become names of layers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lfm4ads_tf.errors import UserError


def check_task_names(tasks: Sequence[str]) -> None:
    """Refuses tasks whose mixture could not be named as a layer.

    The name is part of a method, where + & / @ separate, and of a folder.

    Raises:
        UserError: A task's name cannot be part of a layer's name.
    """
    for task in tasks:
        if not re.fullmatch(r"[\w.-]+", task):
            raise UserError(
                "A task's name is part of the name of its mixture, which is a layer here.",
                received=repr(task),
                fix="rename the task, using letters, digits, '_', '-' and '.' alone",
            )
