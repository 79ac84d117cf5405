"""Names of the data that would meet names of ours: refused when the spec or the log is read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.kinds import SequenceFeature, StatisticFeature
from lfm4ads_tf.features.source_columns import made_columns
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.split import SplitByColumn

RESERVED_SCENARIOS: Mapping[str, str] = {
    "all": "the results over all rows are called so",
    "each": "retrieval.scenarios means every scenario by it",
}
"""What no scenario or segment of a log may be called, and why."""

_RESERVED_TASKS = {
    "all": "a sweep ranks by the mean over all tasks under this name",
    "row": "files of scores number their rows in a column of this name",
}
_LOG = "log"
_MOVED = ("@daily", "@ahead")  # arrays of a moving list, beside its own


def check_names(spec: FeatureSpec, reads: Mapping[str, Collection[str]]) -> None:
    """Refuses names of tasks, signals, tables, features and the auxiliary scenario.

    Args:
        spec: The feature spec.
        reads: Feature -> raw columns that it is made of.

    Raises:
        UserError: A name is empty, is reserved, or would stand for two things.
    """
    mappings: dict[str, Collection[str]] = {
        "tasks": spec.tasks,
        "signals": spec.signals,
        "tables": spec.tables,
        "features": spec.features,
    }
    for section, names in mappings.items():
        for name in names:
            if not name or not name.isprintable():
                raise UserError(
                    f"A name under `{section}` is empty or holds a character that cannot be "
                    "printed.",
                    received=repr(name),
                    fix="rename it; give `column` or `label` where it was the raw column's name",
                )
    for task, why in _RESERVED_TASKS.items():
        if task in spec.tasks:
            raise UserError(
                f"No task can be called '{task}': {why}.",
                received=f"tasks.{task}",
                fix="give the task another name; its `label` stays as it is",
            )
    if _LOG in spec.tables:
        raise UserError(
            f"No side table can be called '{_LOG}': the log itself is called so.",
            received=f"tables.{_LOG}",
            fix="give the table another name",
        )
    if spec.auxiliary is not None:
        if not spec.auxiliary.scenario:
            raise UserError("`auxiliary.scenario` is empty.", fix="give the scenario a name")
        refuse_scenario(spec.auxiliary.scenario, "auxiliary.scenario", "give it another name")
    _check_moved_lists(spec)
    _check_made_columns(spec, reads)
    _check_statistic_keys(spec, reads)


def refuse_scenario(name: str, received: str, fix: str) -> None:
    """Refuses a reserved name of a scenario.

    Raises:
        UserError: It is one of `RESERVED_SCENARIOS`.
    """
    if name in RESERVED_SCENARIOS:
        raise UserError(
            f"No scenario can be called '{name}': {RESERVED_SCENARIOS[name]}.",
            received=received,
            fix=fix,
        )


def segment_name_error(name: str) -> UserError:
    """The error of a segment that is called like a scenario."""
    return UserError(
        f"The segment '{name}' has the name of a scenario.",
        received=f"segments.{name}",
        fix="rename the segment: results, folders and exports go by these names",
    )


def _check_moved_lists(spec: FeatureSpec) -> None:
    """A sequence of events is stored beside two more lists that are named after it."""
    for name, feature in spec.features.items():
        for ending in _MOVED:
            if isinstance(feature, SequenceFeature) and feature.events_of is not None:
                other = name + ending
                if other in spec.features:
                    raise UserError(
                        f"No feature can be called '{other}' beside '{name}': what '{name}' "
                        "becomes from period to period is stored under this name.",
                        received=f"features.{other}",
                        fix=f"rename the feature '{other}'; give `column` where its name was the "
                        "raw column's",
                    )


def _check_made_columns(spec: FeatureSpec, reads: Mapping[str, Collection[str]]) -> None:
    """A column that is made for a feature is called as nothing else is."""
    used: dict[str, str] = {}
    for column, user in _named_columns(spec, reads):
        used.setdefault(column, user)
    owners: dict[str, str] = {}
    for name, feature in spec.features.items():
        for column in made_columns(name, feature):
            other = f"feature '{owners[column]}'" if column in owners else used.get(column)
            if other is not None:
                raise UserError(
                    f"The column '{column}' would stand for two things: feature '{name}' is "
                    f"requested under this name, and {other} has a column of this name.",
                    received=f"features.{name}",
                    fix=f"rename the feature '{name}'",
                )
            owners[column] = name


def _named_columns(
    spec: FeatureSpec, reads: Mapping[str, Collection[str]]
) -> Iterator[tuple[str, str]]:
    """Raw columns that the spec names, each with who names it."""
    keys = spec.keys
    for path, key in (
        ("keys.user", keys.user),
        ("keys.item", keys.item),
        ("keys.time", keys.time_column),
        ("keys.scenario", keys.scenario),
        ("split.by", spec.split.by if isinstance(spec.split, SplitByColumn) else None),
        ("period.by", spec.period.by),
    ):
        if key is not None:
            yield key, f"`{path}`"
    for side, parts in (("user", keys.user_parts), ("item", keys.item_parts)):
        for part in parts:
            yield part, f"`keys.{side}`"
    for name, task in spec.feedback.items():
        yield task.label, f"the label of '{name}'"
    for name, column in spec.best_possible.items():
        yield column, f"`best_possible.{name}`"
    for side, described in (("user", spec.log.user_columns), ("item", spec.log.item_columns)):
        for listed in described:
            yield listed, f"`log.{side}_columns`"
    for name, columns_of in reads.items():
        for read in columns_of:
            yield read, f"feature '{name}'"


def _check_statistic_keys(spec: FeatureSpec, reads: Mapping[str, Collection[str]]) -> None:
    """`user`, `item` and `scenario` are the keys of the spec, and a feature of this name too."""
    columns = {"user": spec.keys.user, "item": spec.keys.item, "scenario": spec.keys.scenario}
    for name, feature in spec.features.items():
        if not isinstance(feature, StatisticFeature):
            continue
        for key in feature.keys:
            if key in columns and key in reads and tuple(reads[key]) != (columns[key],):
                raise UserError(
                    f"Feature '{name}' counts by '{key}', which is the {key} key and also a "
                    "feature of another column.",
                    received=f"the {key} key '{columns[key]}', and features.{key} of "
                    f"{', '.join(reads[key])}",
                    fix=f"rename the feature '{key}'; give `column` where its name was the raw "
                    "column's",
                )
