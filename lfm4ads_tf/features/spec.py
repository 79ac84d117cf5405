"""The feature spec: one YAML per data set, read into strict typed models.

The spec is the single place that names the columns of a data set: keys, tasks, split, periods
and features with their owners. Everything after it works on logical ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.file_lists import ColumnNames, ScenarioFiles
from lfm4ads_tf.features.joined_keys import KeyParts, with_parts
from lfm4ads_tf.features.kinds import (
    CrossedFeature,
    FeatureConfig,
    HashedFeature,
    IdentityFeature,
    NumericFeature,
    SequenceFeature,
    StatisticFeature,
    VocabularyFeature,
)
from lfm4ads_tf.features.label_columns import check_labels
from lfm4ads_tf.features.missing_values import check_missing
from lfm4ads_tf.features.name_checks import check_names
from lfm4ads_tf.features.row_sets import RowSet, SegmentName, check_row_sets, number_of
from lfm4ads_tf.features.skew import SkewConfig, check_skew
from lfm4ads_tf.features.split import BLOCKS, Period, Split
from lfm4ads_tf.features.text_options import TextOptions
from lfm4ads_tf.features.yaml_keys import refuse_repeated_keys
from lfm4ads_tf.strict import StrictModel, parse
from lfm4ads_tf.written import load, text_of

Owner = Literal["user", "item", "context"]

NO_TIME = "none"
"""`keys.time` of a log without a time."""


class LogTable(TextOptions):
    """The event log: one row per impression.

    `user_columns` and `item_columns` name the columns of the log that describe its user or its
    item (for a flat file); every other column of the log is context. `files` that are a mapping
    give the scenario of the rows of each file; `columns` names those of files without a header.
    """

    files: ScenarioFiles
    format: Literal["csv", "parquet", "tfrecord"] | None = None
    delimiter: str = ","
    list_separator: str = "|"
    user_columns: list[str] = []
    item_columns: list[str] = []
    columns: ColumnNames = None

    @property
    def patterns(self) -> list[str]:
        """The patterns of all files, in order."""
        return self.files if isinstance(self.files, list) else sum(self.files.values(), [])


class SideTable(TextOptions):
    """A table joined to the log by key: one row per user or per item."""

    files: list[str] = Field(min_length=1)
    owner: Literal["user", "item"]
    key: str
    key_parts: KeyParts = []
    format: Literal["csv", "parquet", "tfrecord"] | None = None
    delimiter: str = ","
    list_separator: str = "|"
    columns: ColumnNames = None

    @model_validator(mode="before")
    @classmethod
    def _joined_key(cls, data: Any) -> Any:
        """A list of columns is a key that is joined of them."""
        return with_parts(data, ("key",))


class AuxiliaryTable(TextOptions):
    """Earlier events without time or scenario, used for pre-training only.

    They precede the first period, are ordered by `order`, and form a scenario of their own. Tasks
    that `labels` does not name are unknown on these rows and masked from the loss.
    """

    files: list[str] = Field(min_length=1)
    scenario: str
    order: str
    labels: dict[str, str] = Field(min_length=1)
    optional: bool = False
    format: Literal["csv", "parquet", "tfrecord"] | None = None
    delimiter: str = ","
    columns: ColumnNames = None


class Keys(StrictModel):
    """The columns of the log that say who, what, when and where.

    `time_unit` is the unit of times that are numbers; dates and times are recognised, and `iso`
    takes nothing else. The time `none` is that of a log without one: a row's place in the files is
    its time, or its place in an order shuffled by the seed `shuffle`. A user or item key that is a
    list of columns is joined of them, see `lfm4ads_tf.features.joined_keys`.
    """

    user: str
    item: str
    user_parts: KeyParts = []
    item_parts: KeyParts = []
    time: str
    time_unit: Literal["s", "ms", "us", "ns", "iso"] = "s"
    shuffle: int | None = Field(default=None, ge=0)
    scenario: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _joined_keys(cls, data: Any) -> Any:
        """A list of columns is a key that is joined of them."""
        if isinstance(data, Mapping) and data.get("time", NO_TIME) is None:
            raise ValueError(f"a log without a time has `time: {NO_TIME}`")
        return with_parts(data, ("user", "item"))

    @model_validator(mode="after")
    def _shuffle_without_time(self) -> Keys:
        if self.shuffle is not None and self.time_column is not None:
            raise ValueError("`shuffle` orders a log without a time: give `time: none` with it")
        return self

    @property
    def time_column(self) -> str | None:
        """The column of the log that holds the time, None for a log without one."""
        return None if self.time == NO_TIME else self.time

    @property
    def joined(self) -> dict[str, list[str]]:
        """Joined key -> the columns that it is joined of."""
        both = ((self.user, self.user_parts), (self.item, self.item_parts))
        return {key: parts for key, parts in both if parts}


class Task(StrictModel):
    """A binary target: the log column that holds it, optionally thresholded.

    Attributes:
        label: The column.
        positive_at_least: The smallest value that is a 1.
        unknown: Values, texts or numbers, that mean as little as an empty cell.
    """

    label: str
    positive_at_least: float | None = None
    unknown: list[str] = []

    @property
    def unknown_numbers(self) -> list[float]:
        """Those of `unknown` that are numbers."""
        found = [number_of(text) for text in self.unknown]
        return [number for number in found if number is not None]

    @property
    def unknown_texts(self) -> list[str]:
        """Those of `unknown` that are none."""
        return [text for text in self.unknown if number_of(text) is None]


class FeatureSpec(StrictModel):
    """A data set's declaration.

    Attributes:
        name: Name of the spec; the default run folder is `runs/<name>`.
        dataset: Built-in data set that fetches or generates the files, None when the files are
            the user's own (`--data-dir`).
        log, tables, auxiliary: The raw tables.
        keys, tasks, split, period: See the classes.
        signals: Further binary feedback, which statistics and sequences may count like a task but
            no head predicts.
        ads: The samples that are ads; all others, and all samples when absent, are content.
        segments: Name -> rows that get a downstream of their own, beside the scenarios.
        features: Name -> declaration; the order of the mapping is the order of the fields.
        thresholds: Rows that make a slice: an item with at most `cold_item` training rows is
            cold, a user with at most `light_user` training rows is light.
        skew: How far logged rows may drift from training; read by `check-skew` alone.
        missing: Values that stand for a missing one: of every column, or column -> values with
            `*` for every column, see `MissingValues`.
        best_possible: Task -> log column with the true probability of the label (synthetic data
            only); read by the evaluation, never an input.
        run: Overrides of the run configuration that suit this data set.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$")
    dataset: str | None = None
    dataset_options: dict[str, Any] = {}
    log: LogTable
    tables: dict[str, SideTable] = {}
    auxiliary: AuxiliaryTable | None = None
    keys: Keys
    tasks: dict[str, Task] = Field(min_length=1)
    signals: dict[str, Task] = {}
    ads: RowSet | None = None
    segments: dict[SegmentName, RowSet] = {}
    split: Split
    period: Period = Period(blocks=BLOCKS)
    features: dict[str, Annotated[FeatureConfig, Field(discriminator="kind")]] = Field(min_length=1)
    thresholds: dict[Literal["cold_item", "light_user"], int] = {"cold_item": 5, "light_user": 5}
    skew: SkewConfig = SkewConfig()
    missing: list[str] | dict[str, list[str]] = []
    best_possible: dict[str, str] = {}
    run: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, data: Any) -> Any:
        """`click: is_click` is short for `click: {label: is_click}`."""
        if not isinstance(data, dict):
            return data
        full = dict(data)
        for key in ("tasks", "signals"):
            short = full.get(key)
            if isinstance(short, dict):
                full[key] = {
                    k: {"label": v} if isinstance(text_of(v), str) else v for k, v in short.items()
                }
        return full

    @property
    def task_names(self) -> list[str]:
        """Tasks in declared order: the order of the label columns."""
        return list(self.tasks)

    @property
    def feedback(self) -> dict[str, Task]:
        """Tasks and signals: all that a statistic or a sequence may count."""
        return {**self.tasks, **self.signals}

    def column_side(self, column: str) -> Owner | None:
        """Which side a raw column describes; None when no table of the spec settles it."""
        if column == self.keys.user or column in self.log.user_columns:
            return "user"
        if column == self.keys.item or column in self.log.item_columns:
            return "item"
        of_user, of_item = column in self.keys.user_parts, column in self.keys.item_parts
        if of_user != of_item:  # a part of both keys describes neither alone
            return "user" if of_user else "item"
        return None


def load_spec(path: Path, overrides: Mapping[str, Any] | None = None) -> FeatureSpec:
    """Reads and checks a feature spec.

    Args:
        path: The YAML file.
        overrides: Nested mapping merged over the file before it is checked.

    Raises:
        UserError: The file is missing or not YAML, a key is unknown (the nearest known one is
            named), a value has the wrong type, or a feature reads a side it does not own.
    """
    raw = read_yaml(path)
    return parse_spec(merge(raw, overrides or {}), source=str(path))


def parse_spec(raw: Mapping[str, Any], *, source: str = "the feature spec") -> FeatureSpec:
    """Checks an already loaded spec, see `load_spec`."""
    spec = parse(FeatureSpec, raw, source=source)
    _check_references(spec)
    check_names(spec, {name: columns_read(spec, name) for name in spec.features})
    _check_owners(spec)
    check_labels(spec)
    check_row_sets(spec)
    check_skew(spec)
    check_missing(spec, {c for name in spec.features for c in columns_read(spec, name)})
    return spec


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads one YAML mapping; its scalars remember how they were written, see `written`.

    Raises:
        UserError: The file is missing, is not YAML, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        refuse_repeated_keys(text, str(path))
        raw = load(text)
    except OSError as error:
        raise UserError(
            f"The file {path} cannot be read.",
            received=error.strerror,
            fix="give --spec the path of a YAML feature spec, such as feature_specs/movielens.yaml",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML.", received=error) from error
    if not isinstance(raw, dict):
        raise UserError(f"{path} must hold a YAML mapping.", received=type(raw).__name__)
    return raw


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `base` with `over` merged in, mapping by mapping."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


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
            fix="keep one of them: a task has a head, a signal is only counted",
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


def columns_read(spec: FeatureSpec, name: str) -> tuple[str, ...]:
    """Raw columns that a feature reads, in order; a statistic reads its keys."""
    feature = spec.features[name]
    if isinstance(feature, StatisticFeature):
        return tuple(c for key in feature.keys for c in key_columns(spec, key))
    if isinstance(feature, SequenceFeature) and feature.events_of is not None:
        return (spec.keys.user,)
    return feature.raw_columns(name)


def key_columns(spec: FeatureSpec, key: str) -> tuple[str, ...]:
    """Raw columns behind a statistic's key.

    A key is `user`, `item`, `scenario`, a feature with one id per row (its id is the key, so a
    bucketised number can be one), or a raw column.
    """
    if key == "scenario" and spec.keys.scenario is None:
        raise UserError(
            "A statistic counts by scenario, but the spec declares no scenario key.",
            fix="add `scenario: <column>` under `keys`",
        )
    aliases = key_aliases(spec)
    if key in aliases:
        return (aliases[key],)
    return spec.features[key].raw_columns(key) if key in spec.features else (key,)


def key_aliases(spec: FeatureSpec) -> dict[str, str]:
    """What the keys of a statistic mean that are neither a feature nor a raw column."""
    columns = {"user": spec.keys.user, "item": spec.keys.item, "scenario": spec.keys.scenario}
    return {alias: column for alias, column in columns.items() if column is not None}


def _check_owners(spec: FeatureSpec) -> None:
    """A user or item feature reads only its own side, so UR and IR can be stored by key."""
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
