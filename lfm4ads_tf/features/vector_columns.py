"""Vectors whose numbers lie in columns of their own: which columns, and how many."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.kinds import PretrainedFeature
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.split import SplitByColumn


def natural_key(name: str) -> tuple[tuple[str, int, str], ...]:
    """Sorts names as people count: `a_2` before `a_10`."""
    pieces = re.findall(r"(\D*)([0-9]*)", name)
    return tuple((text, int(digits or -1), digits) for text, digits in pieces if text or digits)


def matching(pattern: str, names: Sequence[str]) -> list[str]:
    """The names that a pattern (`*`, `?`, `[...]`) matches, in natural order."""
    return sorted({n for n in names if fnmatchcase(n, pattern)}, key=natural_key)


def is_settled(spec: FeatureSpec) -> bool:
    """Whether the columns of every vector are known by name."""
    return not any(isinstance(f.columns, str) for f in _features(spec).values())


def settled_vectors(spec: FeatureSpec) -> dict[str, list[str]]:
    """Column of vectors -> its columns of numbers, of a spec that `with_vectors` settled."""
    if not is_settled(spec):
        raise ValueError("the columns of a vector are a pattern: settle the spec by the data first")
    return {n: list(f.columns) for n, f in _features(spec).items() if f.columns is not None}


def with_vectors(spec: FeatureSpec, vectors: Mapping[str, Sequence[str]]) -> FeatureSpec:
    """The spec with the columns of its vectors by name.

    Args:
        spec: The feature spec.
        vectors: What `vectors_of` gave.
    """
    features = dict(spec.features)
    for name, columns in vectors.items():
        settled = {"columns": list(columns), "size": len(columns)}
        features[name] = features[name].model_copy(update=settled)
    return spec.model_copy(update={"features": features})


def vectors_of(spec: FeatureSpec, headers: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The columns of every vector that is made of columns.

    Args:
        spec: The feature spec.
        headers: Table (`log` or a key of `spec.tables`) -> its columns.

    Returns:
        Feature -> columns of one table in the order of the vector: the first side table that has
        any, else the log.

    Raises:
        UserError: A pattern matches no column, a column is in no table, there are not as many as
            `size` says, or one is a label, a key, the time, the scenario, or of the other side; or
            a table has a column called as the vector.
    """
    columns_of = {}
    for name, feature in _features(spec).items():
        if feature.columns is None:
            continue
        for held, header in headers.items():
            if name in header:
                raise UserError(
                    f"The column '{name}' would stand for two things: the vector that is made of "
                    f"columns is called so, and '{held}' has a column of this name.",
                    received=f"columns: {feature.columns}",
                    fix="rename the feature",
                )
        table, columns = _in_one_table(name, feature.columns, spec, headers)
        if feature.size and feature.size != len(columns):
            raise UserError(
                f"The vector '{name}' has {feature.size} numbers by its `size`, but its columns "
                f"are {len(columns)}.",
                received=_shown(columns),
                fix="correct `size` or `columns`, or leave out `size`",
            )
        _check(spec, name, feature, table, columns)
        columns_of[name] = columns
    return columns_of


def _features(spec: FeatureSpec) -> dict[str, PretrainedFeature]:
    return {n: f for n, f in spec.features.items() if isinstance(f, PretrainedFeature)}


def _in_one_table(
    name: str, columns: str | list[str], spec: FeatureSpec, headers: Mapping[str, Sequence[str]]
) -> tuple[str, list[str]]:
    """The table that has a vector's columns, and the columns."""
    for table in [*spec.tables, "log"]:
        if isinstance(columns, str):
            held = matching(columns, headers[table])
        else:
            held = columns if {*columns} <= {*headers[table]} else []
        if held:
            return table, held
    known = sorted({c for header in headers.values() for c in header}, key=natural_key)
    if isinstance(columns, str):
        raise UserError(
            f"No column matches '{columns}', of which the vector '{name}' is made.",
            received=f"columns {', '.join(known)}",
            fix="correct the feature's `columns`, or add the columns to the log or a side table",
        )
    wanting = next((c for c in columns if c not in known), columns[0])
    raise UserError(
        f"No table has all columns of the vector '{name}': it is made of one table's."
        + nearest(wanting, known),
        received=f"columns {', '.join(known)}",
        fix=f"correct '{wanting}' in the feature's `columns`, or add it to the table",
    )


def _check(
    spec: FeatureSpec, name: str, feature: PretrainedFeature, table: str, columns: Sequence[str]
) -> None:
    """A vector holds nothing that the impression does not know, and nothing of the other side."""
    keys = spec.keys
    labels = {task.label for task in spec.feedback.values()} | set(spec.best_possible.values())
    keys_and_order = {keys.user, keys.item, *keys.user_parts, *keys.item_parts, keys.time_column}
    keys_and_order |= {keys.scenario}
    if isinstance(spec.split, SplitByColumn):
        keys_and_order |= {spec.split.by}
    if spec.period.by is not None:
        keys_and_order |= {spec.period.by}
    for column in columns:
        if column in labels or column in keys_and_order:
            what = "a label" if column in labels else "a key, or orders the log"
            raise UserError(
                f"The vector '{name}' would hold the column '{column}', which is {what}.",
                received=f"columns: {feature.columns}",
                fix="give a pattern that matches the vector's own columns, or list them",
            )
        side = spec.column_side(column)
        if side is None and table != "log":
            side = spec.tables[table].owner
        if feature.owner != "context" and side not in (None, feature.owner):
            raise UserError(
                f"The vector '{name}' is owned by the {feature.owner} but holds '{column}', which "
                f"describes the {side}.",
                received=f"columns: {feature.columns}",
                fix=f"declare `owner: context` for '{name}', or leave the column out",
            )


def _shown(columns: Sequence[str]) -> str:
    """The ends of a list of columns."""
    if len(columns) <= 6:
        return ", ".join(columns)
    return f"{', '.join(columns[:3])}, ..., {columns[-1]}"
