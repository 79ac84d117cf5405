"""How many keys of the log its side tables have, told before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import pyarrow as pa

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.key_match import KeyMatch
from lfm4ads_tf.features.spec import FeatureSpec

_LOG = logging.getLogger(__name__)

_ENOUGH = 0.5


def refuse_unjoined(
    spec: FeatureSpec, tables: Mapping[str, pa.Table], rows: Mapping[str, pa.Array]
) -> None:
    """Refuses a side table that has none of the log's keys.

    Args:
        spec: The feature spec.
        tables: Name -> side table: its key and the columns that are read.
        rows: The log's key columns, (N,) string each.

    Raises:
        UserError: Keys of both sides are named.
    """
    for name, column, match in _matches(spec, tables, rows):
        if not match.matched:
            raise UserError(
                f"Table '{name}' has none of the {len(match.wanted)} keys in '{column}' of the "
                "log.",
                received=f"{len(match.known)} keys in '{spec.tables[name].key}': "
                + match.examples("the log", "the table"),
                fix="correct the table's `key` or `owner`, or write the keys of both sides alike: "
                "they are compared as text",
            )


def warn_few_joined(
    spec: FeatureSpec, tables: Mapping[str, pa.Table], rows: Mapping[str, pa.Array]
) -> None:
    """Warns of a side table that has less than half of the rows' keys.

    Args:
        spec, tables, rows: As for `refuse_unjoined`.
    """
    for name, column, match in _matches(spec, tables, rows):
        if match.matched < _ENOUGH * len(match.wanted):
            _LOG.warning(
                "table '%s' has %d of the %d keys in '%s', its columns are missing in the other "
                "rows: %s",
                name,
                match.matched,
                len(match.wanted),
                column,
                match.examples("the log", "the table"),
            )


def _matches(
    spec: FeatureSpec, tables: Mapping[str, pa.Table], rows: Mapping[str, pa.Array]
) -> Iterator[tuple[str, str, KeyMatch]]:
    """Table, the rows' key column, and how they match."""
    for name, table in tables.items():
        side = spec.tables[name]
        column = spec.keys.user if side.owner == "user" else spec.keys.item
        if table.num_columns > 1:  # a table of which nothing but the key is read joins nothing
            yield name, column, KeyMatch.of(rows[column], table[side.key])
