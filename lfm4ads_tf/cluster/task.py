"""One process of a cluster."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lfm4ads_tf.errors import UserError, nearest

JOBS = ("chief", "worker", "ps")
"""What a process does: runs the stages, learns batches, holds the tables."""
_FORM = re.compile(r"([^:]+):([0-9]{1,6})", re.ASCII)


@dataclass(frozen=True)
class Task:
    """The place of a process in a cluster.

    Attributes:
        job: `chief`, `worker` or `ps`.
        index: Number of the process within its job, from 0.
    """

    job: str
    index: int

    @classmethod
    def parse(cls, text: str) -> Task:
        """Reads the form `worker:0`.

        Args:
            text: Job and index.

        Returns:
            The task.

        Raises:
            UserError: The form is another one, or there is no such job.
        """
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise UserError(
                "A task needs the form job:index.",
                received=text,
                fix=f"write {text.strip()}:0" if text.strip() in JOBS else "--task worker:0",
            )
        job, index = found[1], int(found[2])
        if job not in JOBS:
            raise UserError(
                f"There is no job '{job}' in a cluster.{nearest(job, JOBS)}",
                received=text,
                fix=f"use one of {', '.join(JOBS)}",
            )
        return cls(job, index)

    def __str__(self) -> str:
        return f"{self.job}:{self.index}"
