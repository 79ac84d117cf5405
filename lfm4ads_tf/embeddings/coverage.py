"""Which ids of a table a file of pretrained vectors had."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Coverage:
    """What `load_pretrained` found.

    Attributes:
        table: The logical table.
        keys: Ids that have a key.
        missing: Those of them that the file does not have.
        first_missing: The keys of the first ten of these.
        hint: Keys of both sides, where less than half of the keys are there.
    """

    table: str
    keys: int
    missing: int
    first_missing: tuple[str, ...]
    hint: str = field(default="", compare=False)

    @property
    def share(self) -> float:
        """Share of the keys that the file has; 1 for a table without keys."""
        return 1.0 - self.missing / self.keys if self.keys else 1.0

    def __str__(self) -> str:
        if not self.missing:
            return f"table '{self.table}': all {self.keys} keys have a pretrained vector"
        more = "" if self.missing == len(self.first_missing) else ", ..."
        return (
            f"table '{self.table}': {self.missing} of {self.keys} keys have no pretrained vector "
            f"and keep their initial values: {', '.join(self.first_missing)}{more}"
            + (f" ({self.hint})" if self.hint else "")
        )
