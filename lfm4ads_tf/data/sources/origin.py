"""Where a value comes from, for messages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lfm4ads_tf.errors import UserError


@dataclass(frozen=True)
class Origin:
    """The file, column and first row of an array of raw values.

    Args:
        path: The file.
        column: The column.
        first_row: How many data rows of the file lie before the array.
    """

    path: Path
    column: str
    first_row: int = 0

    def error(self, what: str, index: int, value: object, fix: str) -> UserError:
        """Returns the error for one value.

        Args:
            what: What is wrong, e.g. "is not a number".
            index: Position of the value's row in the array, from 0.
            value: The value.
            fix: How to mend it.
        """
        return UserError(
            f"Column '{self.column}' {what} in data row {self.first_row + index + 1} "
            f"of '{self.path}'.",
            received=repr(value) if isinstance(value, str) else value,
            fix=fix,
        )

    def type_error(self, found: object, wanted: str, fix: str) -> UserError:
        """Returns the error for a column whose stored type cannot become the wanted one."""
        return UserError(
            f"Column '{self.column}' of '{self.path}' cannot be read as '{wanted}'.",
            received=f"stored type {found}",
            fix=fix,
        )
