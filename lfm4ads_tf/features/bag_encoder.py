"""Multi-valued features: ragged raw columns to bags of ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from lfm4ads_tf.features.fingerprints import text_fingerprints, to_buckets
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.kinds import MultiFeature, SequenceFeature
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.features.raw_types import raw_columns_of
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.tables import Encoding, encoding_of, table_of, table_rows
from lfm4ads_tf.features.vocabulary_lookup import VocabularyLookup

EncodedBag = tuple[tf.RaggedTensor, tf.RaggedTensor | None]

_ENCODINGS: tuple[Encoding, ...] = ("hashed", "vocabulary", "identity")
_UNLIMITED = 1 << 62


class BagEncoder(tf.Module):
    """Encodes all multi-valued and sequence features, one batch of ops for all bags together.

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
        names = [f.name for f in layout.bags]
        by_encoding = {name: encoding_of(spec, name) for name in names}
        groups = {e: [n for n in names if by_encoding[n] == e] for e in _ENCODINGS}
        self._groups = {e: len(group) for e, group in groups.items() if group}
        # Bags of one encoding stand side by side, so that each encoding is a slice.
        self._names = tuple(name for group in groups.values() for name in group)
        self._order = tuple(names)
        self._columns = tuple(raw_columns_of(spec, name)[0] for name in self._names)
        self._sizes = [table_rows(spec, fitted, table_of(spec, name)) for name in self._names]
        self._prefixes = [
            lookup.prefix(table_of(spec, n)) if by_encoding[n] == "vocabulary" else ""
            for n in self._names
        ]
        self._weights: dict[str, str] = {}
        self._last: dict[str, int] = {}
        for name in self._names:
            feature = spec.features[name]
            if isinstance(feature, MultiFeature) and feature.weights is not None:
                self._weights[name] = feature.weights
            if isinstance(feature, SequenceFeature):
                self._last[name] = feature.max_length

    def __call__(self, raw: Mapping[str, tf.RaggedTensor]) -> dict[str, EncodedBag]:
        """Encodes a batch of B rows.

        All G bags are treated as one: M values, bag by bag.

        Returns:
            Feature -> ids, ragged (B, None) int64, and weights of the same shape, ragged float32
            or None. Missing values are dropped; a sequence keeps its last `max_length` values.

        Raises:
            tf.errors.InvalidArgumentError: A list and its weights differ in length.
        """
        if not self._names:
            return {}
        texts = tf.concat([raw[c].values for c in self._columns], axis=0)  # (M,)
        splits = _stacked_splits([raw[c] for c in self._columns])  # (G, B + 1)
        lengths = splits[:, -1]  # (G,)
        weights = self._all_weights(raw, splits) if self._weights else None  # (M,)
        splits += tf.cumsum(lengths, exclusive=True)[:, tf.newaxis]  # (G, B + 1), places in (M,)
        ids = self._ids(texts, splits[:, -1])  # (M,)
        keep = (ids >= 0) & tf.not_equal(texts, "")  # (M,)
        if weights is not None:
            keep &= tf.math.is_finite(weights)  # a value without a weight is missing
        if self._last:
            keep &= self._among_last(keep, splits)
        splits = tf.gather(_counts_before(keep), splits)  # (G, B + 1)
        splits -= splits[:, :1]
        kept = tf.where(keep)[:, 0]  # (kept values,)

        def split(values: tf.Tensor) -> list[tf.Tensor]:
            return tf.split(tf.gather(values, kept), splits[:, -1], num=len(self._names))

        own_splits = tf.unstack(splits, num=len(self._names))  # G x (B + 1,)
        own_ids = split(ids)
        own_weights = [None] * len(self._names) if weights is None else split(weights)
        bags: dict[str, EncodedBag] = {}
        for name, values, factors, rows in zip(
            self._names, own_ids, own_weights, own_splits, strict=True
        ):
            ragged = tf.RaggedTensor.from_row_splits(values, rows, validate=False)
            weighted = name in self._weights
            bags[name] = (ragged, ragged.with_values(factors) if weighted else None)
        return {name: bags[name] for name in self._order}

    def _ids(self, texts: tf.Tensor, ends: tf.Tensor) -> tf.Tensor:
        """Ids of the values of all bags, (M,) int64, from the places where bags end, (G,)."""
        encode = {
            "hashed": self._hash_ids,
            "vocabulary": self._vocabulary_ids,
            "identity": self._identity_ids,
        }
        bag = _owners(ends, tf.size(texts, tf.int64))  # (M,)
        lasts = tf.constant(np.cumsum(list(self._groups.values())) - 1)
        group_ends = tf.gather(ends, lasts)
        counts = tf.concat([group_ends[:1], group_ends[1:] - group_ends[:-1]], axis=0)
        group_texts = tf.split(texts, counts, num=len(self._groups))
        group_bags = tf.split(bag, counts, num=len(self._groups))
        ids = [
            encode[encoding](group_texts[i], group_bags[i])
            for i, encoding in enumerate(self._groups)
        ]
        return tf.concat(ids, axis=0)

    def _hash_ids(self, texts: tf.Tensor, bag: tf.Tensor) -> tf.Tensor:
        buckets = tf.gather(tf.constant(self._sizes, tf.uint64), bag)
        return to_buckets(text_fingerprints(texts), buckets)

    def _vocabulary_ids(self, texts: tf.Tensor, bag: tf.Tensor) -> tf.Tensor:
        return self._lookup(tf.gather(tf.constant(self._prefixes), bag), texts)

    def _identity_ids(self, texts: tf.Tensor, bag: tf.Tensor) -> tf.Tensor:
        # Anything but plain digits is missing; more than 18 digits would not fit int64.
        digits = tf.strings.regex_full_match(texts, r"[0-9]{1,18}")
        values = tf.strings.to_number(tf.where(digits, texts, "-1"), tf.int64)
        sizes = tf.gather(tf.constant(self._sizes, tf.int64), bag)
        return tf.where(values < sizes, values, tf.constant(-1, tf.int64))

    def _all_weights(self, raw: Mapping[str, tf.RaggedTensor], splits: tf.Tensor) -> tf.Tensor:
        """Weights of the values of all bags, 1 where a bag has none, (M,) float32."""
        weighted = [i for i, name in enumerate(self._names) if name in self._weights]
        given = [raw[self._weights[self._names[i]]] for i in weighted]
        same = tf.debugging.assert_equal(
            _stacked_splits(given),
            tf.gather(splits, weighted),
            message=f"The lists of {list(self._weights)} and their weights differ in length.",
        )
        lengths = splits[:, -1]  # (G,)
        with tf.control_dependencies([same] if same is not None else []):
            parts = tf.split(
                tf.ones([tf.reduce_sum(lengths)]), lengths, num=len(self._names)
            )  # G x (values of the bag,)
        for i, own in zip(weighted, given, strict=True):
            parts[i] = own.values
        return tf.concat(parts, axis=0)

    def _among_last(self, keep: tf.Tensor, splits: tf.Tensor) -> tf.Tensor:
        """Whether a value is among the last `max_length` kept ones of its list, (M,) bool."""
        last = tf.constant([[self._last.get(n, _UNLIMITED)] for n in self._names], tf.int64)
        before = _counts_before(keep)  # (M + 1,)
        first = tf.gather(before, splits[:, 1:]) - last  # (G, B)
        row = _owners(tf.reshape(splits[:, 1:], [-1]), tf.size(keep, tf.int64))  # (M,)
        return before[:-1] >= tf.gather(tf.reshape(first, [-1]), row)


def _owners(ends: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """The list that each of M = `count` values belongs to, from the lists' ends.

    Unlike `tf.repeat` it takes memory for the values alone, however uneven the lists are.
    """
    ending = tf.math.unsorted_segment_sum(tf.ones_like(ends), ends, count + 1)  # (M + 1,)
    return tf.cumsum(ending)[:-1]  # (M,)


def _stacked_splits(ragged: Sequence[tf.RaggedTensor]) -> tf.Tensor:
    """Row splits of several ragged tensors of B rows, (G, B + 1) int64."""
    return tf.stack([tf.cast(r.row_splits, tf.int64) for r in ragged])


def _counts_before(keep: tf.Tensor) -> tf.Tensor:
    """Number of kept values before each position, (M,) bool -> (M + 1,) int64."""
    return tf.concat([[tf.constant(0, tf.int64)], tf.cumsum(tf.cast(keep, tf.int64))], axis=0)
