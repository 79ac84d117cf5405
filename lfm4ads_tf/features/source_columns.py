"""Raw columns behind features: what they read, and what is made of past events for them."""

from __future__ import annotations

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.kinds import SequenceFeature, StatisticFeature
from lfm4ads_tf.features.spec import FeatureSpec


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


def made_columns(name: str, feature: object) -> tuple[str, ...]:
    """Columns of a request that are made of past events for a feature, not read from a table."""
    if isinstance(feature, StatisticFeature):
        return feature.raw_columns(name)
    if isinstance(feature, SequenceFeature) and feature.events_of is not None:
        return (name,)
    return ()
