"""Who owns a column: user and item features read their own side alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.source_columns import columns_read
from lfm4ads_tf.features.spec import FeatureSpec, Owner


def check_owners(spec: FeatureSpec) -> None:
    """A user or item feature reads only its own side, so UR and IR can be stored by key.

    Raises:
        UserError: A feature reads a column of the other side or a label, or one column is read by
            features of both sides.
    """
    labels = {task.label for task in spec.feedback.values()} | set(spec.best_possible.values())
    claims: dict[str, dict[Owner, str]] = {}
    for name, feature in spec.features.items():
        for column in columns_read(spec, name):
            side = spec.column_side(column)
            if column in labels:
                raise UserError(
                    f"Feature '{name}' reads the label column '{column}'.",
                    fix="remove it: a label is never an input; use kind `statistic` for its past",
                )
            context = column in (spec.keys.time_column, spec.keys.scenario)
            if feature.owner != "context" and (context or side not in (None, feature.owner)):
                raise UserError(
                    f"Feature '{name}' is owned by the {feature.owner} but reads '{column}', "
                    f"which describes the {'context' if context else side}.",
                    fix=f"declare `owner: context` for '{name}', or read a {feature.owner} column",
                )
            claims.setdefault(column, {}).setdefault(feature.owner, name)
    for column, owners in claims.items():
        if "user" in owners and "item" in owners:
            raise UserError(
                f"Column '{column}' is read by the user feature '{owners['user']}' and by the "
                f"item feature '{owners['item']}': a column has one side.",
                fix="correct the owner of one of them",
            )


def check_table_owners(spec: FeatureSpec, table_columns: Mapping[str, Iterable[str]]) -> None:
    """The part of the owner check that needs the joined tables' headers.

    Args:
        spec: The feature spec.
        table_columns: Table name (`log` or a key of `spec.tables`) -> its column names.

    Raises:
        UserError: A user or item feature reads a column of the other side's table, or a log
            column that the spec does not list under `user_columns` or `item_columns`.
    """
    sides: dict[str, Owner] = {}
    for table, columns in table_columns.items():
        owner: Owner = "context" if table == "log" else spec.tables[table].owner
        for column in columns:
            sides.setdefault(column, spec.column_side(column) or owner)
    for name, feature in spec.features.items():
        if feature.owner == "context":
            continue
        for column in columns_read(spec, name):
            if sides.get(column, feature.owner) != feature.owner:
                raise UserError(
                    f"Feature '{name}' is owned by the {feature.owner} but reads '{column}', "
                    f"which describes the {sides[column]}.",
                    fix=f"declare `owner: context` for '{name}'; if '{column}' is a log column "
                    f"that describes the {feature.owner}, list it under "
                    f"`log.{feature.owner}_columns`",
                )
