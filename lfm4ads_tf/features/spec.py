"""The types of the feature spec: one YAML per data set, read into strict models.

The spec is the single place that names the columns of a data set: keys, tasks, split, periods
and features with their owners. Everything after it works on logical ids. What a spec may not say is
refused by `spec_checks`; `spec_file` reads one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lfm4ads_tf.features.file_lists import ColumnNames, ScenarioFiles
from lfm4ads_tf.features.joined_keys import KeyParts, with_parts
from lfm4ads_tf.features.kinds import FeatureConfig
from lfm4ads_tf.features.row_sets import RowSet, SegmentName, number_of
from lfm4ads_tf.features.skew import SkewConfig
from lfm4ads_tf.features.split import BLOCKS, Period, Split
from lfm4ads_tf.features.text_options import TextOptions
from lfm4ads_tf.strict import StrictModel
from lfm4ads_tf.written import text_of

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
        numbers = [number_of(text) for text in self.unknown]
        return [number for number in numbers if number is not None]

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

    Raises:
        pydantic.ValidationError: A key is unknown or missing, or a value has the wrong type;
            `load_spec` says the same as a `UserError` and checks what columns mean, too.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> spec = lfm.load_spec("synthetic")
        >>> isinstance(spec, lfm.FeatureSpec), spec.keys.user, spec.column_side("user_id")
        (True, 'user_id', 'user')
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
