"""Markers: values of raw columns that stand for a missing one, and how often data hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import tensorflow as tf

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.raw_types import RawType
from lfm4ads_tf.features.row_sets import RowSet
from lfm4ads_tf.features.spec import FeatureSpec

EVERY_COLUMN = "*"
"""Stands for every column in a `missing` by columns."""


class MissingValues:
    """The markers of a table's columns, and the cells that they were found in.

    Markers under `missing` hold for every column but keys, scenario, labels and times, those of a
    named column for that column. Of a label the texts under `unknown` are read as missing; its
    numbers are left to the label.

    Args:
        spec: The feature spec.
        auxiliary: Whether the columns are those of the auxiliary table, which has keys and labels
            alone.

    Attributes:
        found: (column, marker) -> number of cells that were read as missing.
    """

    def __init__(self, spec: FeatureSpec, *, auxiliary: bool = False) -> None:
        self.found: Counter[tuple[str, str]] = Counter()
        self._sets: dict[str, RowSet | None] = {}
        self._every, self._named = ([], {}) if auxiliary else _declared(spec)
        self._own = set() if auxiliary else _set_apart(spec)
        self._labels: dict[str, list[str]] = {}
        of_auxiliary = spec.auxiliary.labels if spec.auxiliary is not None else {}
        for name, task in spec.feedback.items():
            column = of_auxiliary.get(name) if auxiliary else task.label
            if column is not None:
                self._labels.setdefault(column, []).extend(task.unknown_texts)

    def of(self, column: str) -> RowSet | None:
        """The markers of a column, None if it has none."""
        if column not in self._sets:
            texts = [*self._labels.get(column, ()), *self._named.get(column, ())]
            if column not in self._own and column not in self._labels:
                texts += self._every
            # An empty text is missing anyway.
            values = list(dict.fromkeys(text for text in texts if text))
            self._sets[column] = RowSet(by=column, values=values) if values else None
        return self._sets[column]

    def told(self) -> str | None:
        """What was read as missing, by column; None if nothing was."""
        by_column: dict[str, list[str]] = {}
        for (column, marker), count in sorted(self.found.items()):
            by_column.setdefault(column, []).append(f"{count:,} '{marker}'")
        return "; ".join(f"'{c}' {', '.join(of)}" for c, of in by_column.items()) or None

    def unmatched(self, auxiliary: MissingValues) -> list[str]:
        """Declared markers that no cell of the read columns holds.

        Args:
            auxiliary: What was found in the auxiliary table, whose labels are the same tasks'.
        """
        hits = set(self.found)
        earlier = {marker for _, marker in auxiliary.found}
        anywhere = {marker for _, marker in hits}
        lacking = [f"'{m}' in no column" for m in dict.fromkeys(self._every) if m not in anywhere]
        for columns, elsewhere in ((self._named, set[str]()), (self._labels, earlier)):
            lacking += [
                f"'{m}' in no row of '{column}'"
                for column, markers in columns.items()
                for m in dict.fromkeys(markers)
                if m and (column, m) not in hits and m not in elsewhere
            ]
        return lacking


def blanked(
    raw: Mapping[str, tf.Tensor], columns: Mapping[str, tuple[RawType, RowSet]]
) -> dict[str, tf.Tensor]:
    """A batch of raw columns whose markers are missing values, in stock ops.

    Args:
        raw: Raw column -> tensor of B rows.
        columns: Column -> its type and markers; lists of numbers and vectors have none.

    Returns:
        The columns, those with markers replaced.
    """
    out = dict(raw)
    for column, (raw_type, markers) in columns.items():
        values = raw[column]
        if raw_type.kind == "text":
            out[column] = _without(values, markers)
        elif raw_type.kind == "texts":
            out[column] = values.with_values(_without(values.values, markers))
        elif markers.numbers and raw_type.kind in ("number", "integer"):
            nothing = tf.constant(float("nan") if raw_type.kind == "number" else -1, values.dtype)
            out[column] = tf.where(markers.holds_number(values), nothing, values)
    return out


def _without(texts: tf.Tensor, markers: RowSet) -> tf.Tensor:
    """Texts (M,), empty where they are markers."""
    known = tf.constant(markers.texts)
    is_marker = tf.reduce_any(tf.equal(texts[:, tf.newaxis], known), axis=1)  # (M, V) -> (M,)
    return tf.where(is_marker, tf.constant(""), texts)


def check_missing(spec: FeatureSpec, read: set[str]) -> None:
    """Refuses markers of a column that nothing reads, or that no row may lack.

    Args:
        spec: The feature spec.
        read: Columns that features read.

    Raises:
        UserError: See above.
    """
    keys = {spec.keys.user, spec.keys.item, spec.keys.time}
    keys |= {part for parts in spec.keys.joined.values() for part in parts}
    labels = {task.label for task in spec.feedback.values()}
    sets = [*spec.segments.values(), *([spec.ads] if spec.ads is not None else [])]
    known = read | {of.by for of in sets} | {spec.keys.scenario or ""}
    for column in _declared(spec)[1]:
        if column in keys:
            raise UserError(
                f"`missing` names the key '{column}', which no row may lack.",
                received=f"missing.{column}",
                fix="remove the rows without it from the log",
            )
        if column in labels:
            raise UserError(
                f"`missing` names the label column '{column}'.",
                received=f"missing.{column}",
                fix="give the task's `unknown`: `{label: " + column + ", unknown: [...]}`",
            )
        if column not in known:
            raise UserError(
                f"`missing` names the column '{column}', which no feature reads."
                + nearest(column, known),
                fix="correct the column, or remove it",
            )


def _declared(spec: FeatureSpec) -> tuple[list[str], dict[str, list[str]]]:
    """Markers of every column, and by column."""
    if isinstance(spec.missing, list):
        return spec.missing, {}
    named = dict(spec.missing)
    return named.pop(EVERY_COLUMN, []), named


def _set_apart(spec: FeatureSpec) -> set[str]:
    """Columns that a marker must name to be theirs."""
    keys = spec.keys
    tables = [c for table in spec.tables.values() for c in (table.key, *table.key_parts)]
    columns = [keys.user, keys.item, keys.time, keys.scenario, *tables]
    columns += [part for parts in keys.joined.values() for part in parts]
    return {column for column in [*columns, *spec.best_possible.values()] if column is not None}
