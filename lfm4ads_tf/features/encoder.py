"""The encoder: a batch of raw columns to logical ids and numbers, in training and in serving."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import tensorflow as tf
import tf_keras

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features import raw_types
from lfm4ads_tf.features.bag_encoder import BagEncoder
from lfm4ads_tf.features.dense_encoder import DenseEncoder
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.missing_values import MissingValues, blanked
from lfm4ads_tf.features.single_encoder import SingleEncoder
from lfm4ads_tf.features.source_columns import made_columns
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.tables import build_layout
from lfm4ads_tf.features.vocabulary_lookup import VocabularyLookup, lookup_entries

# not printable, so that no feature can have these names
_SCENARIOS = "\x1fscenarios"
_ADS = "\x1fads"


class Encoder(tf_keras.layers.Layer):
    """Turns raw columns into an encoded batch, with one op per encoding instead of per column.

    The result equals the `tf.feature_column` columns of `columns.build_columns`.

    Args:
        spec: The feature spec.
        fitted: What the training rows settled.
        only: Features to encode, see `only`; all of them when absent.
        keys: Whether scenario and branch are encoded too.
        lookup: A table that holds the vocabularies; one of its own when absent.

    Attributes:
        layout: Order and meaning of the encoded columns.
        read: The part of the layout that is encoded.
        raw_types: Raw column -> type.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        fitted: FittedEncoding,
        *,
        only: Collection[str] | None = None,
        keys: bool = True,
        lookup: VocabularyLookup | None = None,
        name: str = "encoder",
    ) -> None:
        # Raw numbers must reach the encoder in float32 under a bfloat16 policy too.
        super().__init__(name=name, trainable=False, dtype="float32", autocast=False)
        self.layout = build_layout(spec, fitted)
        self.read = read = self.layout if only is None else self.layout.only(only)
        self._spec, self._fitted = spec, fitted
        self._columns_of = {n: raw_types.raw_columns_of(spec, n) for n in read.features}
        self._scenario_key = spec.keys.scenario if keys else None
        self._ads = spec.ads if keys else None
        columns = {c for of in self._columns_of.values() for c in of}
        moving = {c for n, f in spec.features.items() for c in made_columns(n, f)}
        if self._scenario_key is not None:
            columns.add(self._scenario_key)
        if self._ads is not None:
            columns.add(self._ads.by)
        self.raw_types = {c: t for c, t in raw_types.raw_types(spec).items() if c in columns}
        missing = MissingValues(spec)
        marked = {c: (t, missing.of(c)) for c, t in self.raw_types.items() if c not in moving}
        self._markers = {c: (t, m) for c, (t, m) in marked.items() if m is not None}
        self._signature = raw_types.raw_signature(spec)
        self._example_spec = raw_types.example_spec(spec)
        self._lookup = VocabularyLookup(self._vocabularies()) if lookup is None else lookup
        self._single = SingleEncoder(spec, fitted, self.layout, self._lookup, read)
        self._bags = BagEncoder(spec, fitted, read, self._lookup)
        self._dense = DenseEncoder(spec, fitted, self.layout, read)
        # Made once each, for the models that read the same. Not set as an attribute: what a layer
        # holds is saved with it.
        self.__dict__["_parts"] = {}
        self.built = True  # there are no weights; an export refuses what is not built

    def only(
        self, features: Collection[str], *, keys: bool = False, share: bool = False
    ) -> Encoder:
        """An encoder of some features, which reads their raw columns alone, made once.

        What it returns has the same layout; the ids of other features are -1, their numbers 0,
        and their bags are not there.

        Args:
            features: Names of the features.
            keys: Whether it reads the columns of scenario and branch; they are -1 and 0 if not.
            share: Whether it looks up in this encoder's table, instead of one of its own that
                holds no more than it needs.
        """
        wanted = (frozenset(features), keys, share)
        if wanted not in self._parts:
            lookup = self._lookup if share else None
            self._parts[wanted] = Encoder(
                self._spec, self._fitted, only=features, keys=keys, lookup=lookup
            )
        return self._parts[wanted]

    @property
    def spec(self) -> FeatureSpec:
        """The feature spec."""
        return self._spec

    @property
    def vocabulary(self) -> tuple[list[str], list[int]]:
        """Keys and ids of the table that this encoder makes, see `VocabularyLookup`."""
        return lookup_entries(self._vocabularies())

    @property
    def shifts(self) -> dict[str, float]:
        """Standardised feature -> |mean| / deviation: what its numbers lost to the mean."""
        return {name: abs(m) / d for name, (m, d) in self._fitted.standardize.items()}

    @property
    def digest(self) -> str:
        """See `FittedEncoding.digest`."""
        return self._fitted.digest

    def raw_signature(self) -> dict[str, tf.TypeSpec]:
        """Raw column -> type of its batched tensor, see `raw_types.raw_signature`."""
        return {column: self._signature[column] for column in self.raw_types}

    def example_spec(self) -> dict[str, Any]:
        """Raw column -> parser for `tf.io.parse_example`, see `raw_types.example_spec`."""
        return {column: self._example_spec[column] for column in self.raw_types}

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
            `scenario`: (B,) int64, index into `layout.scenarios`, -1 is unknown or not read.
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
        if self._markers:
            raw = blanked(raw, self._markers)
        batch = self._batch_size(raw)
        return {
            "ids": self._single(raw, batch),
            "bags": self._bags(raw),
            "dense": self._dense(raw, batch),
            "scenario": self._scenario(raw, batch),
            "branch": self._branch(raw, batch),
        }

    def _vocabularies(self) -> dict[str, list[str]]:
        """The vocabularies of the features that are read."""
        fitted = self._fitted.vocabularies
        texts = {t.name: list(fitted[t.name].values) for t in self.read.tables if t.name in fitted}
        if self._scenario_key is not None:
            texts[_SCENARIOS] = self._fitted.scenarios
        if self._ads is not None:
            texts[_ADS] = self._ads.texts
        return texts

    def _batch_size(self, raw: Mapping[str, Any]) -> tf.Tensor:
        column, raw_type = next(iter(self.raw_types.items()))
        if raw_type.kind in ("texts", "numbers"):
            return raw[column].nrows()
        return tf.shape(raw[column])[0]

    def _scenario(self, raw: Mapping[str, Any], batch: tf.Tensor) -> tf.Tensor:
        if self._scenario_key is None:
            unread = self._spec.keys.scenario is not None
            return tf.fill([batch], tf.constant(-1 if unread else 0, tf.int64))
        return self._lookup(self._lookup.prefix(_SCENARIOS), raw[self._scenario_key]) - 1

    def _branch(self, raw: Mapping[str, Any], batch: tf.Tensor) -> tf.Tensor:
        if self._ads is None:
            return tf.zeros([batch], tf.int64)
        column = raw[self._ads.by]
        if column.dtype == tf.string:
            is_ad = self._lookup(self._lookup.prefix(_ADS), column) > 0
        else:
            is_ad = self._ads.holds_number(column)
        return tf.cast(is_ad, tf.int64)
