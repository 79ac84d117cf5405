"""The encoder: a batch of raw columns to logical ids and numbers, in training and in serving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features import raw_types, raw_values
from lfm4ads_tf.features.bag_encoder import BagEncoder
from lfm4ads_tf.features.dense_encoder import DenseEncoder
from lfm4ads_tf.features.fitting import FittedEncoding
from lfm4ads_tf.features.offline import encode_columns
from lfm4ads_tf.features.single_encoder import SingleEncoder
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.tables import build_layout
from lfm4ads_tf.features.vocabulary_lookup import VocabularyLookup

_SCENARIOS = "scenarios of the spec"
_ADS = "ads of the spec"


class Encoder(tf_keras.layers.Layer):
    """Turns raw columns into an encoded batch, with one op per encoding instead of per column.

    The result equals the `tf.feature_column` columns of `columns.build_columns`.

    Args:
        spec: The feature spec.
        fitted: What the training rows settled.

    Attributes:
        layout: Order and meaning of the encoded columns.
        raw_types: Raw column -> type.
    """

    def __init__(self, spec: FeatureSpec, fitted: FittedEncoding, name: str = "encoder") -> None:
        # Raw numbers must reach the encoder in float32 under a bfloat16 policy too.
        super().__init__(name=name, trainable=False, dtype="float32", autocast=False)
        self.layout = build_layout(spec, fitted)
        self.raw_types = raw_types.raw_types(spec)
        self._columns_of = {n: raw_types.raw_columns_of(spec, n) for n in spec.features}
        self._signature = raw_types.raw_signature(spec)
        self._example_spec = raw_types.example_spec(spec)
        self._scenario_key = spec.keys.scenario
        vocabularies: dict[str, list[str]] = {
            table: vocabulary.values for table, vocabulary in fitted.vocabularies.items()
        }
        if self._scenario_key is not None:
            vocabularies[_SCENARIOS] = fitted.scenarios
        self._ads = spec.ads
        if self._ads is not None:
            vocabularies[_ADS] = self._ads.texts
        self._lookup = VocabularyLookup(vocabularies)
        self._single = SingleEncoder(spec, fitted, self.layout, self._lookup)
        self._bags = BagEncoder(spec, fitted, self.layout, self._lookup)
        self._dense = DenseEncoder(spec, fitted, self.layout)
        self.built = True  # there are no weights; an export refuses what is not built

    def raw_signature(self) -> dict[str, tf.TypeSpec]:
        """Raw column -> type of its batched tensor, see `raw_types.raw_signature`."""
        return dict(self._signature)

    def example_spec(self) -> dict[str, Any]:
        """Raw column -> parser for `tf.io.parse_example`, see `raw_types.example_spec`."""
        return dict(self._example_spec)

    def raw_columns_of(self, name: str) -> tuple[str, ...]:
        """Raw columns that a feature is fed with, in order."""
        return tuple(self._columns_of[name])

    def call(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Encodes a batch of B rows.

        Args:
            raw: Raw column -> tensor, as `raw_signature` says; other columns are ignored.

        Returns:
            `ids`: (B, F) int64 in the order of `layout.single`, -1 is missing.
            `bags`: feature -> (ids, ragged (B, None) int64; weights, ragged float32 or None).
            `dense`: (B, N) float32 in the order of `layout.dense`.
            `scenario`: (B,) int64, index into `layout.scenarios`, -1 is unknown.
            `branch`: (B,) int64, 1 for an ad, 0 for content.

        Raises:
            UserError: A raw column is not there.
        """
        for column in self.raw_types:
            if column not in raw:
                raise UserError(
                    f"The request has no column '{column}'.{nearest(column, raw)}",
                    received=", ".join(sorted(raw)),
                    fix="feed every column of `raw_signature`",
                )
        batch = self._batch_size(raw)
        return {
            "ids": self._single(raw, batch),
            "bags": self._bags(raw),
            "dense": self._dense(raw, batch),
            "scenario": self._scenario(raw, batch),
            "branch": self._branch(raw, batch),
        }

    def encode_numpy(
        self, columns: raw_values.Columns, rows: slice = slice(None), chunk_rows: int = 65_536
    ) -> dict[str, Any]:
        """Encodes rows of columns held in memory, chunk by chunk.

        Args:
            columns: Raw column -> values (N,), see `raw_values.Columns`.
            rows: Consecutive rows to encode, R of them.
            chunk_rows: Rows per call.

        Returns:
            `ids`: (R, F) int32. `dense`: (R, N) float32. `scenario`: (R,) int32. `branch`: (R,)
            int8.
            `bags`: feature -> (values (M,) int32, row splits (R + 1,) int64, weights (M,) float32
            or None).

        Raises:
            UserError: A column is not there, or a list and its weights differ in length.
        """
        return encode_columns(self, columns, rows, chunk_rows)

    def _batch_size(self, raw: Mapping[str, Any]) -> tf.Tensor:
        column, of = next(iter(self.raw_types.items()))
        if of.kind in ("texts", "numbers"):
            return raw[column].nrows()
        return tf.shape(raw[column])[0]

    def _scenario(self, raw: Mapping[str, Any], batch: tf.Tensor) -> tf.Tensor:
        if self._scenario_key is None:
            return tf.zeros([batch], tf.int64)
        return self._lookup(self._lookup.prefix(_SCENARIOS), raw[self._scenario_key]) - 1

    def _branch(self, raw: Mapping[str, Any], batch: tf.Tensor) -> tf.Tensor:
        if self._ads is None:
            return tf.zeros([batch], tf.int64)
        column = raw[self._ads.by]
        if column.dtype == tf.string:
            found = self._lookup(self._lookup.prefix(_ADS), column) > 0
        else:
            found = self._ads.holds_number(column)
        return tf.cast(found, tf.int64)
