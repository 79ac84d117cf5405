"""Multi-valued features: ragged raw columns to bags of ids."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from lfm4ads_tf.features.fingerprints import fingerprint, to_buckets
from lfm4ads_tf.features.fitting import FittedEncoding
from lfm4ads_tf.features.kinds import MultiFeature, SequenceFeature
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.features.raw_types import raw_columns_of
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.tables import encoding_of, table_of, table_rows
from lfm4ads_tf.features.vocabulary_lookup import VocabularyLookup

Bag = tuple[tf.RaggedTensor, tf.RaggedTensor | None]


class BagEncoder(tf.Module):
    """Encodes all multi-valued and sequence features: one hash op and one lookup.

    Args:
        spec: The feature spec.
        fitted: What the training rows settled.
        layout: Names the bags.
        lookup: The table of all vocabularies.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        fitted: FittedEncoding,
        layout: FeatureLayout,
        lookup: VocabularyLookup,
    ) -> None:
        super().__init__(name="bag_encoder")
        self._lookup = lookup
        self._names = tuple(f.name for f in layout.bags)
        by_encoding = {name: encoding_of(spec, name) for name in self._names}
        self._hashed = tuple(n for n, e in by_encoding.items() if e == "hashed")
        self._vocabulary = tuple(n for n, e in by_encoding.items() if e == "vocabulary")
        self._identity = tuple(n for n, e in by_encoding.items() if e == "identity")
        self._column = {name: raw_columns_of(spec, name)[0] for name in self._names}
        self._sizes = {name: table_rows(spec, fitted, table_of(spec, name)) for name in self._names}
        self._prefixes = [lookup.prefix(table_of(spec, name)) for name in self._vocabulary]
        self._weights: dict[str, str] = {}
        self._last: dict[str, int] = {}
        for name in self._names:
            feature = spec.features[name]
            if isinstance(feature, MultiFeature) and feature.weights is not None:
                self._weights[name] = feature.weights
            if isinstance(feature, SequenceFeature):
                self._last[name] = feature.max_length

    def __call__(self, raw: Mapping[str, tf.RaggedTensor]) -> dict[str, Bag]:
        """Encodes a batch of B rows.

        Returns:
            Feature -> ids, ragged (B, None) int64, and weights of the same shape, ragged float32
            or None. Missing values are dropped; a sequence keeps its last `max_length` values.
        """
        ids = {**self._hash_ids(raw), **self._vocabulary_ids(raw), **self._identity_ids(raw)}
        return {name: self._finish(raw, name, ids[name]) for name in self._names}

    def _hash_ids(self, raw: Mapping[str, tf.RaggedTensor]) -> dict[str, tf.Tensor]:
        if not self._hashed:
            return {}
        texts, lengths = self._flat(raw, self._hashed)
        buckets = tf.repeat(tf.constant([self._sizes[n] for n in self._hashed]), lengths)
        ids = to_buckets(fingerprint(texts), tf.cast(buckets, tf.uint64))  # (M,)
        return self._split(self._hashed, texts, ids, lengths)

    def _vocabulary_ids(self, raw: Mapping[str, tf.RaggedTensor]) -> dict[str, tf.Tensor]:
        if not self._vocabulary:
            return {}
        texts, lengths = self._flat(raw, self._vocabulary)
        ids = self._lookup(tf.repeat(tf.constant(self._prefixes), lengths), texts)  # (M,)
        return self._split(self._vocabulary, texts, ids, lengths)

    def _identity_ids(self, raw: Mapping[str, tf.RaggedTensor]) -> dict[str, tf.Tensor]:
        if not self._identity:
            return {}
        texts, lengths = self._flat(raw, self._identity)
        # Anything but plain digits is missing; more than 18 digits would not fit int64.
        digits = tf.strings.regex_full_match(texts, r"[0-9]{1,18}")
        values = tf.strings.to_number(tf.where(digits, texts, "-1"), tf.int64)  # (M,)
        sizes = tf.repeat(tf.constant([self._sizes[n] for n in self._identity], tf.int64), lengths)
        ids = tf.where(values < sizes, values, tf.constant(-1, tf.int64))
        return self._split(self._identity, texts, ids, lengths)

    def _flat(
        self, raw: Mapping[str, tf.RaggedTensor], names: tuple[str, ...]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Values of several bags in a row (M,), and how many belong to each."""
        parts = [raw[self._column[name]].values for name in names]
        return tf.concat(parts, axis=0), tf.stack([tf.size(part) for part in parts])

    def _split(
        self, names: tuple[str, ...], texts: tf.Tensor, ids: tf.Tensor, lengths: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Gives each feature its part back, with -1 for an empty text."""
        ids = tf.where(tf.equal(texts, ""), tf.constant(-1, tf.int64), ids)
        return dict(zip(names, tf.split(ids, lengths, num=len(names)), strict=True))

    def _finish(self, raw: Mapping[str, tf.RaggedTensor], name: str, ids: tf.Tensor) -> Bag:
        """Drops what is missing and what lies before the last `max_length` values."""
        splits = tf.cast(raw[self._column[name]].row_splits, tf.int64)  # (B + 1,)
        keep = ids >= 0  # (M,)
        weights = None
        if name in self._weights:
            weights = raw[self._weights[name]].values  # (M,)
            keep &= ~tf.math.is_nan(weights)
        if name in self._last:
            before = _counts_before(keep)  # (M + 1,)
            row_end = tf.repeat(tf.gather(before, splits[1:]), splits[1:] - splits[:-1])  # (M,)
            keep &= before[:-1] >= row_end - self._last[name]
        splits = tf.gather(_counts_before(keep), splits)

        def kept(values: tf.Tensor) -> tf.RaggedTensor:
            return tf.RaggedTensor.from_row_splits(
                tf.boolean_mask(values, keep), splits, validate=False
            )

        return kept(ids), None if weights is None else kept(weights)


def _counts_before(keep: tf.Tensor) -> tf.Tensor:
    """Number of kept values before each position, (M,) bool -> (M + 1,) int64."""
    return tf.concat([[tf.constant(0, tf.int64)], tf.cumsum(tf.cast(keep, tf.int64))], axis=0)
