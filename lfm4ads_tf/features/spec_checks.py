"""What a feature spec may not say, beyond the types of its keys."""

from __future__ import annotations

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.kinds import (
    CrossedFeature,
    HashedFeature,
    IdentityFeature,
    NumericFeature,
    SequenceFeature,
    StatisticFeature,
    VocabularyFeature,
)
from lfm4ads_tf.features.label_columns import check_labels
from lfm4ads_tf.features.missing_values import check_missing
from lfm4ads_tf.features.name_checks import RESERVED_SCENARIOS, check_names, segment_name_error
from lfm4ads_tf.features.owner_checks import check_owners
from lfm4ads_tf.features.source_columns import columns_read, made_columns
from lfm4ads_tf.features.spec import NO_TIME, FeatureSpec


def check_spec(spec: FeatureSpec) -> None:
    """Refuses a spec whose parts do not go together.

    Raises:
        UserError: A name is unknown, reserved or given twice, a feature reads a label or a side
            that it does not own, a label identifies or splits rows, or rows, limits or markers go
            by a column that they cannot go by.
    """
    _check_references(spec)
    reads = {name: columns_read(spec, name) for name in spec.features}
    check_names(spec, reads)
    check_owners(spec)
    check_labels(spec)
    _check_row_sets(spec)
    _check_skew(spec)
    check_missing(spec, {column for columns in reads.values() for column in columns})


def _check_references(spec: FeatureSpec) -> None:
    """Every name that the spec mentions must be declared in it."""
    for name, feature in spec.features.items():
        table = getattr(feature, "table", None)
        if table is not None:
            target = spec.features.get(table)
            if not _owns_shareable_table(target):
                known = [n for n, f in spec.features.items() if _owns_shareable_table(f)]
                raise UserError(
                    f"Feature '{name}' shares the table '{table}', which is no feature with a "
                    f"table of its own.{nearest(table, known)}",
                    fix="name a hashed, vocabulary or identity feature that declares no `table`",
                )
        if isinstance(feature, StatisticFeature) and feature.task not in spec.feedback:
            raise UserError(
                f"Feature '{name}' counts the unknown task '{feature.task}'."
                + nearest(feature.task, spec.feedback),
                fix=f"use one of {list(spec.feedback)}",
            )
        if isinstance(feature, StatisticFeature):
            for key in feature.keys:
                if key in spec.features and not _has_one_id(spec.features[key]):
                    raise UserError(
                        f"Feature '{name}' counts by '{key}', which has no single id per row.",
                        fix="count by a hashed, vocabulary, identity, crossed or bucketised "
                        "feature, by user, item or scenario, or by a raw column",
                    )
        if isinstance(feature, SequenceFeature) and feature.events_of is not None:
            if feature.events_of not in spec.feedback:
                raise UserError(
                    f"Feature '{name}' lists the events of the unknown task "
                    f"'{feature.events_of}'.{nearest(feature.events_of, spec.feedback)}",
                    fix=f"use one of {list(spec.feedback)}",
                )
            shared = spec.features.get(feature.table or "")
            if shared is None or columns_read(spec, feature.table or "") != (spec.keys.item,):
                raise UserError(
                    f"Feature '{name}' lists item keys, so it must share the table of a feature "
                    f"that encodes the item key '{spec.keys.item}'.",
                    received=f"table: {feature.table}",
                )
    auxiliary_tasks = spec.auxiliary.labels if spec.auxiliary else {}
    for task in [*auxiliary_tasks, *spec.best_possible]:
        if task not in spec.feedback:
            raise UserError(
                f"The spec names the unknown task '{task}'.{nearest(task, spec.feedback)}",
                fix=f"use one of {list(spec.feedback)}",
            )
    if spec.keys.time_column is None and spec.period.by is not None:
        raise UserError(
            "A log without a time has no periods of a column: its rows are ordered by their place "
            "alone.",
            received=f"keys.time: {NO_TIME}, period.by: {spec.period.by}",
            fix="give `period: {blocks: ...}`, or name the column that orders the log in "
            "`keys.time`",
        )
    if isinstance(spec.log.files, dict) and spec.keys.scenario is None:
        raise UserError(
            "`log.files` gives each file a scenario, but the spec has no scenario key.",
            received=f"log.files of {', '.join(spec.log.files)}",
            fix="add `scenario: <a name for the new column>` under `keys`",
        )
    if spec.auxiliary is not None and spec.keys.scenario is None:
        raise UserError(
            "The auxiliary rows form a scenario of their own, but the spec has no scenario key.",
            fix="add `scenario: <column>` under `keys`",
        )
    for name in spec.tasks:
        if "/" in name:
            raise UserError(
                f"The name of the task '{name}' contains a '/'.",
                fix="rename it: exports have an output and a signature of its name",
            )
    twice = [name for name in spec.signals if name in spec.tasks]
    if twice:
        raise UserError(
            f"'{twice[0]}' is declared as a task and as a signal.",
            fix="keep one of them: a task has a head, a signal is only counted; to make a spec's "
            f"signal a task in one run, --set tasks.{twice[0]}=<column>",
        )


def _owns_shareable_table(feature: object) -> bool:
    """Only ids that come from the value alone can be shared by another feature."""
    kinds = (HashedFeature, VocabularyFeature, IdentityFeature)
    return isinstance(feature, kinds) and feature.table is None


def _has_one_id(feature: object) -> bool:
    """Whether a feature becomes one logical id per row."""
    if isinstance(feature, NumericFeature):
        return feature.transform == "buckets"
    kinds = (HashedFeature, VocabularyFeature, IdentityFeature, CrossedFeature)
    return isinstance(feature, kinds)


def _check_row_sets(spec: FeatureSpec) -> None:
    """Refuses sets that cannot be: by a label, by a moving feature, or of a name that is taken."""
    labels = {task.label for task in spec.feedback.values()} | set(spec.best_possible.values())
    moving = {c for name, feature in spec.features.items() for c in made_columns(name, feature)}
    sets = {f"segments.{name}": rows for name, rows in spec.segments.items()}
    if spec.ads is not None:
        sets["ads"] = spec.ads
    for path, rows in sets.items():
        if rows.by in labels:
            raise UserError(
                f"`{path}` goes by the label column '{rows.by}'.",
                fix="name a column that is known before the impression",
            )
        if rows.by in moving:
            raise UserError(
                f"`{path}` goes by '{rows.by}', which a feature makes from past events.",
                fix="name a column of the log or of a side table",
            )
        empty = [value for value in rows.values if value == "" or value != value]
        if empty:
            raise UserError(
                f"`{path}.values` holds an empty value; a missing value is in no set.",
                received=repr(empty[0]),
                fix="remove it",
            )
    taken = [*RESERVED_SCENARIOS, *([spec.auxiliary.scenario] if spec.auxiliary else [])]
    for name in spec.segments:
        if name in taken:
            raise segment_name_error(name)


def _check_skew(spec: FeatureSpec) -> None:
    """Every feature with limits of its own must be one of the spec."""
    for name in spec.skew.features:
        if name not in spec.features:
            raise UserError(
                f"`skew.features` names the unknown feature '{name}'."
                + nearest(name, spec.features),
                fix="name a feature of the spec",
            )
