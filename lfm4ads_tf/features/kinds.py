"""The kinds of features that a spec may declare; each states what a raw value becomes.

Categorical kinds (`hashed`, `vocabulary`, `identity`, `crossed`, bucketised `numeric`) become one
logical id per row, -1 when the value is missing. Multi-valued kinds (`multi`, `sequence`) become
a bag of ids. Dense kinds (raw or log `numeric`, `pretrained`, `statistic`) become numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from lfm4ads_tf.strict import StrictModel

BOUND = 10.0
"""Bound of a standardised number when none is given, in deviations."""


class BaseFeature(StrictModel):
    """What all kinds share.

    Attributes:
        owner: Side the feature describes: its user, its item, or the impression's context.
        column: Raw column; the feature's own name when absent.
    """

    owner: Literal["user", "item", "context"]
    column: str | None = None

    def raw_columns(self, name: str) -> tuple[str, ...]:
        """Raw columns read by the feature called `name`."""
        return (self.column or name,)


class EmbeddedFeatureConfig(BaseFeature):
    """A feature whose ids select rows of an embedding table.

    Attributes:
        table: Another feature whose encoding and table are shared; own table when absent.
        dim: Embedding width, the run's `embeddings.dim` when absent.
    """

    table: str | None = None
    dim: int | None = Field(default=None, ge=1)


class HashedFeature(EmbeddedFeatureConfig):
    """id = Fingerprint64(text) mod buckets (`tf.feature_column`'s hash bucket column)."""

    kind: Literal["hashed"]
    buckets: int = Field(default=10_000, ge=2)


class VocabularyFeature(EmbeddedFeatureConfig):
    """id = 1 + position in the vocabulary of the training split, 0 when out of vocabulary.

    A value enters the vocabulary with its `min_count`-th occurrence in time order, and earlier
    training rows see it as out of vocabulary: a later event never changes an earlier row's id,
    and with `min_count` above 1 the out-of-vocabulary row is trained.
    """

    kind: Literal["vocabulary"]
    min_count: int = Field(default=1, ge=1)


class IdentityFeature(EmbeddedFeatureConfig):
    """id = the value itself, an integer in [0, size); anything else is missing."""

    kind: Literal["identity"]
    size: int = Field(ge=1)


class CrossedFeature(EmbeddedFeatureConfig):
    """id = combined fingerprints of the texts of two or more columns, mod buckets."""

    kind: Literal["crossed"]
    columns: list[str] = Field(min_length=2)
    buckets: int = Field(default=100_000, ge=2)

    def raw_columns(self, name: str) -> tuple[str, ...]:
        """See `BaseFeature.raw_columns`."""
        return tuple(self.columns)


class NumericFeature(EmbeddedFeatureConfig):
    """A number: `raw`, `log` (sign(x) log(1 + |x|)), or `buckets`.

    Raw and log values are standardised by the mean and deviation of the first training period
    unless `standardize` is false, and kept within [-bound, bound]; a missing value becomes the
    mean (0 when not standardised). `buckets` gives the index of the interval, with `boundaries`,
    or with `buckets` equal-count intervals of the first training period (the first, so that no
    later event can move them).

    Attributes:
        transform, standardize, buckets, boundaries: See above.
        bound: Largest absolute value of the input, None for no bound. When absent it is 10
            deviations for standardised numbers, and none for the others.
    """

    kind: Literal["numeric"]
    transform: Literal["raw", "log", "buckets"] = "raw"
    standardize: bool = True
    buckets: int = Field(default=10, ge=2)
    boundaries: list[float] | None = None
    bound: float | None = Field(default=BOUND, gt=0, allow_inf_nan=False)

    @property
    def default_bound(self) -> float | None:
        """The bound when none is given: the default is in deviations."""
        return BOUND if self.standardize and self.is_dense else None

    @property
    def is_dense(self) -> bool:
        """Whether it is a number itself, not the id of an interval."""
        return self.transform != "buckets"

    @property
    def is_fitted(self) -> bool:
        """Whether training rows settle its moments or boundaries."""
        return self.standardize if self.is_dense else self.boundaries is None

    @model_validator(mode="after")
    def _consistent(self) -> NumericFeature:
        if "bound" not in self.model_fields_set:
            # Settled here and not where it is read, so that a resolved spec says what holds and is
            # read as it was.
            object.__setattr__(self, "bound", self.default_bound)
        if self.bound is not None and not self.is_dense:
            raise ValueError("`bound` is for raw and log numbers; buckets are bounded anyway")
        if self.boundaries is not None:
            if self.transform != "buckets":
                raise ValueError("`boundaries` needs `transform: buckets`")
            if not self.boundaries or sorted(set(self.boundaries)) != self.boundaries:
                raise ValueError("`boundaries` must be strictly increasing")
        if self.table is not None:
            raise ValueError("a numeric feature cannot share a table")
        return self


class MultiFeature(EmbeddedFeatureConfig):
    """Several values per row, optionally weighted, pooled into one embedding.

    Without `table` the values are hashed into `buckets`, or looked up in a vocabulary of the
    training split when `encoding` is `vocabulary`.
    """

    kind: Literal["multi"]
    encoding: Literal["hashed", "vocabulary"] = "hashed"
    buckets: int = Field(default=10_000, ge=2)
    min_count: int = Field(default=1, ge=1)
    weights: str | None = None
    pooling: Literal["mean", "sum"] = "mean"

    def raw_columns(self, name: str) -> tuple[str, ...]:
        """See `BaseFeature.raw_columns`."""
        own = (self.column or name,)
        return own if self.weights is None else (*own, self.weights)


class SequenceFeature(EmbeddedFeatureConfig):
    """The last `max_length` values of an ordered list, pooled by their mean.

    The list is either a raw list column, or, with `events_of`, the user's earlier items whose
    label of that task is 1, built from the log and point in time (periods before the row's).
    """

    kind: Literal["sequence"]
    max_length: int = Field(default=20, ge=1)
    events_of: str | None = None
    encoding: Literal["hashed", "vocabulary"] = "hashed"
    buckets: int = Field(default=10_000, ge=2)
    min_count: int = Field(default=1, ge=1)
    pooling: Literal["mean"] = "mean"


class PretrainedFeature(BaseFeature):
    """A dense vector made elsewhere, used as it is; missing becomes zeros.

    Attributes:
        size: Numbers of the vector; with `columns` it may be left out: 0 stands for as many as the
            data have columns.
        columns: A pattern of columns (`affinity_*`), or their names in order, with one number of
            the vector each; one column of vectors when absent. The vector is then called as the
            feature is.
    """

    kind: Literal["pretrained"]
    size: int = Field(default=0, ge=1)
    columns: str | list[str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _size_of_columns(cls, data: Any) -> Any:
        """A list of columns settles the size; that of a pattern is settled by the data."""
        if not isinstance(data, Mapping):
            return data
        full, columns = dict(data), data.get("columns")
        if columns is not None and full.get("size") == 0:
            del full["size"]  # a pattern that the data have not settled, written to a file
        if isinstance(columns, list):
            if not columns or len(set(map(str, columns))) < len(columns):
                raise ValueError(f"`columns` must name different columns, got {columns}")
            full.setdefault("size", len(columns))
            if full["size"] != len(columns):
                raise ValueError(f"`size` is {full['size']}, but `columns` are {len(columns)}")
        return full

    @model_validator(mode="after")
    def _one_source(self) -> PretrainedFeature:
        if self.columns is not None and self.column is not None:
            raise ValueError("give `column` (vectors) or `columns` (one number each), not both")
        if not self.size and self.columns is None:
            raise ValueError("give the vector's `size`")
        return self


class StatisticFeature(BaseFeature):
    """Smoothed count and rate of a task per key or pair of keys, point in time.

    With n events and s positives of the key in earlier periods, and the rate p of the task over
    all earlier events:
        count = log(1 + n)
        rate  = logit((s + smoothing p) / (n + smoothing)) - logit(p)
    A key without events gives (0, 0). The numbers are dense inputs.

    Attributes:
        task: The task or signal that is counted; rows where it is unknown are not events.
        keys: One to three of `user`, `item`, `scenario`, a feature with one id per row (its id
            is the key), or a raw column.
        smoothing: Weight of the prior in events.
        events: Which rows are events: the log's, the auxiliary table's, or all.
        values: Which of the two numbers are inputs.
    """

    kind: Literal["statistic"]
    task: str
    keys: list[str] = Field(min_length=1, max_length=3)
    smoothing: float = Field(default=20.0, gt=0)
    events: Literal["all", "log", "auxiliary"] = "all"
    values: list[Literal["count", "rate"]] = Field(default=["count", "rate"], min_length=1)

    def raw_columns(self, name: str) -> tuple[str, ...]:
        """The numbers that stand for the statistic in a request."""
        return tuple(f"{name}.{value}" for value in self.values)


FeatureConfig = (
    HashedFeature
    | VocabularyFeature
    | IdentityFeature
    | CrossedFeature
    | NumericFeature
    | MultiFeature
    | SequenceFeature
    | PretrainedFeature
    | StatisticFeature
)
