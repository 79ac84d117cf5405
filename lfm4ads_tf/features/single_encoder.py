"""Single-valued features: a batch of raw columns to the id matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import tensorflow as tf

from lfm4ads_tf.features.fingerprints import cross_fingerprints, text_fingerprints, to_buckets
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.tables import Encoding, encoding_of, table_of, table_rows
from lfm4ads_tf.features.vocabulary_lookup import VocabularyLookup


class SingleEncoder(tf.Module):
    """Encodes all single-valued features, one batch of ops per encoding.

    Args:
        spec: The feature spec.
        fitted: What the training rows settled.
        layout: The order of the ids.
        lookup: The table of all vocabularies.
        read: The part of the layout to encode; the ids of the other features are missing.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        fitted: FittedEncoding,
        layout: FeatureLayout,
        lookup: VocabularyLookup,
        read: FeatureLayout,
    ) -> None:
        super().__init__(name="single_encoder")
        self._lookup = lookup
        groups: dict[Encoding, list[str]] = {
            "hashed": [],
            "crossed": [],
            "vocabulary": [],
            "identity": [],
            "bucketized": [],
        }
        for field in read.single:
            groups[encoding_of(spec, field.name)].append(field.name)
        made = [name for names in groups.values() for name in names]
        # one past the last is a column of missing ids
        places = {name: i for i, name in enumerate(made)}
        self._order = [places.get(field.name, len(made)) for field in layout.single]
        self._partial = len(made) < len(layout.single)
        self._hashed = tuple(groups["hashed"])
        self._crossed = tuple(groups["crossed"])
        self._vocabulary = tuple(groups["vocabulary"])
        self._identity = tuple(groups["identity"])
        self._bucketized = tuple(groups["bucketized"])
        self._reads = {name: spec.features[name].raw_columns(name) for name in made}
        # Several features may read one column; it is hashed once.
        hashing = [c for name in (*self._hashed, *self._crossed) for c in self._reads[name]]
        self._hash_columns = tuple(dict.fromkeys(hashing))
        self._sizes = {
            name: table_rows(spec, fitted, table_of(spec, name))
            for name in (*self._hashed, *self._crossed, *self._identity)
        }
        self._prefixes = [lookup.prefix(table_of(spec, name)) for name in self._vocabulary]
        self._boundaries = {name: list(fitted.boundaries[name]) for name in self._bucketized}

    def __call__(self, raw: Mapping[str, tf.Tensor], batch: tf.Tensor) -> tf.Tensor:
        """Encodes a batch of B rows.

        Returns:
            Ids in the layout's order, (B, F) int64; -1 is missing.
        """
        parts = []
        if self._hash_columns:
            parts.append(self._hash_ids(raw))
        if self._vocabulary:
            parts.append(self._vocabulary_ids(raw))
        if self._identity:
            parts.append(self._identity_ids(raw))
        if self._bucketized:
            parts.append(self._bucket_ids(raw))
        if self._partial:
            parts.append(tf.fill([1, batch], tf.constant(-1, tf.int64)))
        if not parts:
            return tf.zeros([batch, 0], tf.int64)
        # Columns first until the end: a column is then copied as a whole, not number by number.
        ids = tf.gather(tf.concat(parts, axis=0), self._order)  # (F, B)
        return tf.transpose(ids)  # (B, F)

    def _hash_ids(self, raw: Mapping[str, tf.Tensor]) -> tf.Tensor:
        texts = tf.stack([raw[c] for c in self._hash_columns])  # (C, B)
        prints = text_fingerprints(texts)  # (C, B)
        present = tf.not_equal(texts, "")  # (C, B)
        at = {c: i for i, c in enumerate(self._hash_columns)}
        ids = []
        if self._hashed:
            columns = [at[self._reads[name][0]] for name in self._hashed]
            hashed = to_buckets(tf.gather(prints, columns), self._buckets(self._hashed))
            ids.append(_or_missing(tf.gather(present, columns), hashed))
        if self._crossed:
            arity = max(len(self._reads[name]) for name in self._crossed)
            parts = np.zeros((len(self._crossed), arity), np.int64)
            used = np.zeros((len(self._crossed), arity), bool)
            for i, name in enumerate(self._crossed):
                read = [at[c] for c in self._reads[name]]
                parts[i, : len(read)] = read
                used[i, : len(read)] = True
            combined = cross_fingerprints(tf.gather(prints, parts), used)  # (F, B)
            lacking = ~tf.gather(present, parts) & used[:, :, np.newaxis]  # (F, A, B)
            complete = ~tf.reduce_any(lacking, axis=1)  # (F, B)
            ids.append(_or_missing(complete, to_buckets(combined, self._buckets(self._crossed))))
        return tf.concat(ids, axis=0)

    def _buckets(self, names: tuple[str, ...]) -> tf.Tensor:
        return tf.constant([[self._sizes[name]] for name in names], tf.uint64)  # (F, 1)

    def _vocabulary_ids(self, raw: Mapping[str, tf.Tensor]) -> tf.Tensor:
        texts = tf.stack([raw[self._reads[n][0]] for n in self._vocabulary])  # (F, B)
        ids = self._lookup(tf.constant([[p] for p in self._prefixes]), texts)
        return _or_missing(tf.not_equal(texts, ""), ids)

    def _identity_ids(self, raw: Mapping[str, tf.Tensor]) -> tf.Tensor:
        values = tf.stack([raw[self._reads[n][0]] for n in self._identity])  # (F, B)
        sizes = tf.constant([[self._sizes[name]] for name in self._identity], tf.int64)  # (F, 1)
        return _or_missing((values >= 0) & (values < sizes), values)

    def _bucket_ids(self, raw: Mapping[str, tf.Tensor]) -> tf.Tensor:
        values = tf.stack([raw[self._reads[n][0]] for n in self._bucketized])  # (F, B)
        steps = [self._boundaries[name] for name in self._bucketized]
        most = max(len(s) for s in steps)
        padded = tf.constant([s + [np.inf] * (most - len(s)) for s in steps], tf.float32)
        counts = tf.constant([[len(s)] for s in steps], tf.int64)  # (F, 1)
        found = tf.searchsorted(padded, values, side="right", out_type=tf.int64)
        ids = tf.minimum(found, counts)  # what is above all boundaries also passes the padding
        return _or_missing(tf.math.is_finite(values), ids)  # (F, B)


def _or_missing(present: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
    """-1 where nothing is present."""
    return cast(tf.Tensor, tf.where(present, ids, tf.constant(-1, tf.int64)))
