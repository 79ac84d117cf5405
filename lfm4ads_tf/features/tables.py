"""Which embedding table a feature uses, how its values become ids, and the batch's layout."""

from __future__ import annotations

from typing import Literal

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.kinds import (
    BaseFeature,
    CrossedFeature,
    EmbeddedFeatureConfig,
    HashedFeature,
    IdentityFeature,
    MultiFeature,
    NumericFeature,
    PretrainedFeature,
    SequenceFeature,
    StatisticFeature,
    VocabularyFeature,
)
from lfm4ads_tf.features.layout import OWNERS, DenseField, FeatureLayout, IdField, TableField
from lfm4ads_tf.features.spec import FeatureSpec

Encoding = Literal["hashed", "vocabulary", "identity", "crossed", "bucketized"]


def is_embedded(feature: BaseFeature) -> bool:
    """True when the feature becomes ids, False when it becomes numbers."""
    if isinstance(feature, NumericFeature):
        return feature.transform == "buckets"
    return isinstance(feature, EmbeddedFeatureConfig)


def embedded_features(spec: FeatureSpec) -> list[str]:
    """Names of the features that become ids, in the spec's order."""
    return [name for name, feature in spec.features.items() if is_embedded(feature)]


def is_bag(feature: BaseFeature) -> bool:
    """True when the feature becomes a bag of ids per row."""
    return isinstance(feature, MultiFeature | SequenceFeature)


def table_of(spec: FeatureSpec, name: str) -> str:
    """Table that the ids of a feature select from: its own, or the one it shares."""
    return getattr(spec.features[name], "table", None) or name


def encoding_of(spec: FeatureSpec, name: str) -> Encoding:
    """How a feature's values become ids; a shared table brings its owner's encoding along.

    Raises:
        UserError: A crossed feature shares a table.
    """
    own = spec.features[name]
    if isinstance(own, CrossedFeature) and own.table is not None:
        raise UserError(
            f"The crossed feature '{name}' cannot share a table: its ids stand for pairs.",
            received=f"table: {own.table}",
            fix=f"remove `table` from '{name}'",
        )
    feature = spec.features[table_of(spec, name)]
    if isinstance(feature, HashedFeature):
        return "hashed"
    if isinstance(feature, VocabularyFeature):
        return "vocabulary"
    if isinstance(feature, IdentityFeature):
        return "identity"
    if isinstance(feature, CrossedFeature):
        return "crossed"
    if isinstance(feature, MultiFeature | SequenceFeature):
        return feature.encoding
    return "bucketized"


def owner_major(spec: FeatureSpec) -> list[str]:
    """Feature names owner by owner (user, item, context), in declared order inside."""
    return [n for owner in OWNERS for n, f in spec.features.items() if f.owner == owner]


def table_rows(spec: FeatureSpec, fitted: FittedEncoding, table: str) -> int:
    """Number of logical ids of a table."""
    feature = spec.features[table]
    if isinstance(feature, IdentityFeature):
        return feature.size
    encoding = encoding_of(spec, table)
    if encoding == "vocabulary":
        return 1 + len(fitted.vocabularies[table].values)
    if encoding == "bucketized":
        return len(fitted.boundaries[table]) + 1
    return int(getattr(feature, "buckets"))  # noqa: B009 - every remaining kind has buckets


def build_layout(spec: FeatureSpec, fitted: FittedEncoding) -> FeatureLayout:
    """Fixes the order and meaning of an encoded batch's columns.

    Args:
        spec: The feature spec.
        fitted: What the training rows settled.

    Raises:
        UserError: A feature shares a table but asks for another width.
    """
    fields, dense, tables = [], [], []
    for name in owner_major(spec):
        feature = spec.features[name]
        if isinstance(feature, EmbeddedFeatureConfig) and is_embedded(feature):
            table = table_of(spec, name)
            combiner = feature.pooling if isinstance(feature, MultiFeature) else "mean"
            fields.append(
                IdField(name, feature.owner, table, combiner if is_bag(feature) else None)
            )
            encoding_of(spec, name)  # refuses what cannot share
            if table == name:
                tables.append(TableField(name, table_rows(spec, fitted, name), feature.dim))
            else:
                _check_dim(spec, name, feature, table)
        else:
            dense.append(DenseField(name, feature.owner, dense_width(feature)))
    return FeatureLayout(
        fields=tuple(fields),
        dense=tuple(dense),
        tables=tuple(tables),
        scenarios=tuple(fitted.scenarios),
        tasks=tuple(spec.task_names),
        segments=tuple(spec.segments),
    )


def dense_width(feature: BaseFeature) -> int:
    """Columns of the dense matrix that a dense feature fills."""
    if isinstance(feature, PretrainedFeature):
        return feature.size
    return len(feature.values) if isinstance(feature, StatisticFeature) else 1


def _check_dim(spec: FeatureSpec, name: str, feature: EmbeddedFeatureConfig, table: str) -> None:
    owner_dim = getattr(spec.features[table], "dim", None)
    if feature.dim is not None and feature.dim != owner_dim:
        raise UserError(
            f"Feature '{name}' asks for width {feature.dim}, but shares the table of '{table}', "
            f"whose width is {owner_dim or 'the default'}.",
            fix=f"remove `dim` from '{name}', or set it on '{table}'",
        )
