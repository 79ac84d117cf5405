"""The line by which a launcher knows that a process came up."""

from __future__ import annotations

from lfm4ads_tf.cluster.task import Task


def serving_line(task: Task) -> str:
    """What the log of a worker or parameter server holds once it serves, before its address."""
    return f"serving {task} at "
