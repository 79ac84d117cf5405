"""How much of the log its side tables join, told before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.spec import FeatureSpec

_LOG = logging.getLogger(__name__)

_EXAMPLES = 3
_ENOUGH = 0.5
_FIX = (
    "correct the table's `key` or `owner`, or write the keys of both sides alike; a key is "
    "compared as text"
)


def _without_zeros(texts: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(texts, "^0+([0-9]+)$", "\\1")


# What makes two texts differ that are meant to be one key -> a form in which they agree.
_CAUSES: dict[str, Callable[[pa.Array], pa.Array]] = {
    "leading zeros": _without_zeros,
    "spaces around them": pc.utf8_trim_whitespace,
    "capital letters": pc.utf8_lower,
}


@dataclass(frozen=True)
class Join:
    """Distinct keys of some rows against those of a side table.

    Attributes:
        rows: Distinct keys of the rows, (K,) string.
        own: The table's keys, (T,) string.
        known: Whether the table has each of the rows' keys, (K,) bool.
    """

    rows: pa.Array
    own: pa.Array
    known: pa.Array

    @classmethod
    def of(cls, rows: pa.Array, own: pa.Array | pa.ChunkedArray) -> Join:
        """The join of rows with a table.

        Args:
            rows: The key of each row, (N,) string.
            own: The table's keys, (T,) string.
        """
        own = own.combine_chunks() if isinstance(own, pa.ChunkedArray) else own
        distinct = pc.drop_null(pc.unique(rows))
        return cls(distinct, own, pc.is_in(distinct, value_set=own))

    @property
    def keys(self) -> int:
        """Distinct keys of the rows."""
        return len(self.rows)

    @property
    def joined(self) -> int:
        """Distinct keys that the table has."""
        return int(pc.sum(self.known).as_py() or 0)

    def examples(self) -> str:
        """Three keys of each side without a partner, and what may be the cause."""
        left = self.rows.filter(pc.invert(self.known))
        lonely = self.own.filter(pc.invert(pc.is_in(self.own, value_set=self.rows)))
        return f"the rows have {_listed(left)}, the table {_listed(lonely)}{_cause(left, lonely)}"


def refuse_unjoined(
    spec: FeatureSpec, tables: Mapping[str, pa.Table], rows: Mapping[str, pa.Array]
) -> None:
    """Refuses a side table that has none of the log's keys.

    Args:
        spec: The feature spec.
        tables: Name -> side table: its key and the columns that are read.
        rows: The log's key columns, (N,) string each.

    Raises:
        UserError: Both sides' keys are named.
    """
    for name, column, join in _joins(spec, tables, rows):
        if not join.joined:
            raise UserError(
                f"Table '{name}' has none of the {join.keys} keys in '{column}' of the log.",
                received=f"{len(join.own)} keys in '{spec.tables[name].key}': {join.examples()}",
                fix=_FIX,
            )


def warn_few_joined(
    spec: FeatureSpec, tables: Mapping[str, pa.Table], rows: Mapping[str, pa.Array]
) -> None:
    """Warns of a side table that has less than half of the rows' keys.

    Args:
        spec, tables, rows: As for `refuse_unjoined`.
    """
    for name, column, join in _joins(spec, tables, rows):
        if join.joined < _ENOUGH * join.keys:
            _LOG.warning(
                "table '%s' has %d of the %d keys in '%s'; the other rows lack its columns: %s",
                name,
                join.joined,
                join.keys,
                column,
                join.examples(),
            )


def _joins(
    spec: FeatureSpec, tables: Mapping[str, pa.Table], rows: Mapping[str, pa.Array]
) -> Iterator[tuple[str, str, Join]]:
    """Table, the rows' key column, and their join."""
    for name, table in tables.items():
        side = spec.tables[name]
        column = spec.keys.user if side.owner == "user" else spec.keys.item
        if table.num_columns > 1:  # a table of which nothing but the key is read joins nothing
            yield name, column, Join.of(rows[column], table[side.key])


def _cause(left: pa.Array, lonely: pa.Array) -> str:
    """What keeps keys apart that differ in one way alone."""
    for cause, form in _CAUSES.items():
        place = pc.index_in(form(left), value_set=form(lonely))
        count = len(place) - place.null_count
        if count:
            at = pc.index(pc.is_valid(place), True).as_py()
            pair = f"'{left[at]}' in the rows, '{lonely[place[at].as_py()]}' in the table"
            return f"; {count} keys are kept apart by {cause} alone ({pair})"
    return ""


def _listed(keys: pa.Array) -> str:
    return ", ".join(f"'{key}'" for key in keys[:_EXAMPLES]) or "no other key"
