"""The feature spec as `tf.feature_column` columns: what a raw value becomes, defined once.

The encoder runs one op per encoding instead of one per column; tests hold it to these columns.
A missing value (empty text, NaN, an identity outside of its range) is the encoder's business.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from lfm4ads_tf.features.dense_encoder import standardize
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.kinds import (
    CrossedFeature,
    MultiFeature,
    NumericFeature,
    PretrainedFeature,
    SequenceFeature,
    StatisticFeature,
)
from lfm4ads_tf.features.raw_types import raw_columns_of
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.tables import encoding_of, table_of, table_rows


def build_columns(spec: FeatureSpec, fitted: FittedEncoding) -> dict[str, tuple[Any, ...]]:
    """Feature name -> its feature columns: one, or one numeric column per number of a statistic.

    Args:
        spec: The feature spec.
        fitted: What the training rows settled.
    """
    with _without_deprecation_notes():
        return {name: _columns(spec, fitted, name) for name in spec.features}


def _columns(spec: FeatureSpec, fitted: FittedEncoding, name: str) -> tuple[Any, ...]:
    feature = spec.features[name]
    keys = raw_columns_of(spec, name)
    if isinstance(feature, StatisticFeature):
        return tuple(tf.feature_column.numeric_column(key) for key in keys)
    if isinstance(feature, PretrainedFeature):
        return (tf.feature_column.numeric_column(keys[0], shape=(feature.size,)),)
    if isinstance(feature, NumericFeature):
        if feature.transform == "buckets":
            number = tf.feature_column.numeric_column(keys[0])
            return (tf.feature_column.bucketized_column(number, list(fitted.boundaries[name])),)
        moments = fitted.standardize.get(name, (0.0, 1.0))
        return (_numeric(keys[0], feature, moments, fitted.bounds.get(name, np.inf)),)
    if isinstance(feature, CrossedFeature):
        return (tf.feature_column.crossed_column(list(keys), feature.buckets),)
    column = _categorical(spec, fitted, name, keys[0], isinstance(feature, SequenceFeature))
    if isinstance(feature, MultiFeature) and feature.weights is not None:
        column = tf.feature_column.weighted_categorical_column(column, feature.weights)
    return (column,)


def _categorical(
    spec: FeatureSpec, fitted: FittedEncoding, name: str, key: str, sequence: bool
) -> Any:
    """The column of a feature whose table is hashed, a vocabulary or an identity."""
    make = tf.feature_column
    encoding = encoding_of(spec, name)
    rows = table_rows(spec, fitted, table_of(spec, name))
    if encoding == "hashed":
        hashed = (
            make.sequence_categorical_column_with_hash_bucket
            if sequence
            else make.categorical_column_with_hash_bucket
        )
        return hashed(key, rows)
    if encoding == "identity":
        identity = (
            make.sequence_categorical_column_with_identity
            if sequence
            else make.categorical_column_with_identity
        )
        return identity(key, rows)
    listed = (
        make.sequence_categorical_column_with_vocabulary_list
        if sequence
        else make.categorical_column_with_vocabulary_list
    )
    # The empty text holds id 0 for what is out of vocabulary: as a value it is missing, so it is
    # never looked up.
    values = ["", *fitted.vocabularies[table_of(spec, name)].values]
    return listed(key, values, dtype=tf.string, default_value=0)


def _numeric(key: str, feature: NumericFeature, moments: tuple[float, float], bound: float) -> Any:
    log = np.asarray([feature.transform == "log"])
    mean, deviation, limit = (np.asarray([m], np.float32) for m in (*moments, bound))
    return tf.feature_column.numeric_column(
        key, normalizer_fn=lambda x: standardize(x, log, mean, deviation, limit)
    )


@contextmanager
def _without_deprecation_notes() -> Iterator[None]:
    """Silences TensorFlow's warnings that feature columns are deprecated."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
