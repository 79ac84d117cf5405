"""Which row of which file a row of a table is, for messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from lfm4ads_tf.errors import UserError

_KEY = b"lfm4ads_tf.places"
ROW = "{row}"
"""Stands for a row in the message of a `BadRow`."""


class BadRow(UserError):
    """A row of a table is wrong; who knows the files says which row of which file it is.

    Args:
        what: As in `UserError`, with `ROW` where the row is named.
        row: The row in the table, from 0.
        received: As in `UserError`, likewise.
        fix: As in `UserError`.
    """

    def __init__(
        self, what: str, *, row: int, received: str | None = None, fix: str | None = None
    ) -> None:
        self.row = row
        self._parts = (what, received, fix)
        place = f"row {row + 1}"
        shown = None if received is None else received.replace(ROW, place)
        super().__init__(what.replace(ROW, place), received=shown, fix=fix)

    def at(self, place: str) -> UserError:
        """The error with the row called `place`."""
        what, received, fix = self._parts
        shown = None if received is None else received.replace(ROW, place)
        return UserError(what.replace(ROW, place), received=shown, fix=fix)


class Places:
    """The files that a table was read from, in order.

    Args:
        files: File and number of its rows.
    """

    def __init__(self, files: Sequence[tuple[Path, int]]) -> None:
        self._files = list(files)

    def __call__(self, row: int) -> str:
        """A row of the table, from 0, as the user sees it: `data row 3 of 'log.csv'`, from 1."""
        path, own = self.find(row)
        return f"data row {own + 1} of '{path}'"

    def find(self, row: int) -> tuple[Path, int]:
        """File of a row of the table, and which row of the file it is, both from 0."""
        for path, rows in self._files:
            if row < rows:
                return path, row
            row -= rows
        raise IndexError(row)

    def on(self, table: pa.Table) -> pa.Table:
        """The table with these places, for `of`."""
        text = json.dumps([[str(path), rows] for path, rows in self._files])
        return table.replace_schema_metadata({_KEY: text.encode("utf-8", "surrogateescape")})

    @classmethod
    def of(cls, table: pa.Table) -> Places:
        """Where the rows of a table that `read_table` gave come from."""
        text = (table.schema.metadata or {})[_KEY]
        return cls([(Path(path), rows) for path, rows in json.loads(text)])

    @contextmanager
    def named(self) -> Iterator[None]:
        """Names the row and its file in every `BadRow` that is raised inside."""
        try:
            yield
        except BadRow as error:
            raise error.at(self(error.row)) from error
