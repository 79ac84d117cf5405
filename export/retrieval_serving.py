"""Encoder, user side and index of items as the signatures of one SavedModel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from export.request_schema import RequestSchema
from export.serving_model import ServingModel
from export.tower_model import TowerModel
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.raw_types import RawType
from lfm4ads_tf.models.batch import EncodedBatch
from lfm4ads_tf.models.projected_retriever import ProjectedRetriever
from lfm4ads_tf.models.retriever import Retriever
from lfm4ads_tf.retrieval.exact import ExactIndex
from lfm4ads_tf.retrieval.index import Index

EXCLUDE = "exclude"
"""Request column of the item keys that a user must not get."""

_GOLDEN_EXCLUDED = 2  # best items that every second golden request excludes


class RetrievalServing(ServingModel):
    """Raw requests -> `ids` text (B, k) and `scores` float32 (B, k), best first.

    The query is the user tower's output for own towers, W r(u) + b for a projection, which asks
    for the stored representation alone. Both ask for `exclude` too.

    Args:
        model: A trained Retriever or ProjectedRetriever.
        index: The items.
        encoder: The encoder of the feature spec.
        batch: Any encoded batch of the model.

    Raises:
        UserError: A raw column has the name of `exclude`.
    """

    def __init__(
        self,
        model: Retriever | ProjectedRetriever,
        index: Index,
        encoder: Encoder,
        batch: EncodedBatch,
    ) -> None:
        self._encoder = encoder
        self._original = model
        self._index = index
        self._tower = None
        self._example_spec = {}
        columns: dict[str, RawType] = {}
        widths: dict[str, int] = {}
        if isinstance(model, ProjectedRetriever):
            widths[model.source] = int(batch["representations"][model.source].shape[1]) - 1
            self._projection = model.projection
            for name, width in widths.items():
                self._example_spec[name] = tf.io.FixedLenFeature([width], tf.float32, [0.0] * width)
        else:
            self._tower = TowerModel(model.two_towers, "user")
            read = {c for name in self._tower.features for c in encoder.raw_columns_of(name)}
            columns = {c: of for c, of in encoder.raw_types.items() if c in read}
            self._example_spec = {c: p for c, p in encoder.example_spec().items() if c in read}
        if EXCLUDE in columns:
            raise UserError(
                f"A retrieval export asks for a column '{EXCLUDE}' of its own.",
                received=f"a user feature that reads '{EXCLUDE}'",
                fix="rename that raw column",
            )
        columns[EXCLUDE] = RawType("texts")
        self._example_spec[EXCLUDE] = tf.io.RaggedFeature(tf.string, row_splits_dtype=tf.int64)
        self.schema = RequestSchema(columns, widths)
        self._golden: np.ndarray | None = None  # (B, E) bytes

    def golden_columns(self, columns: dict[str, pa.Array], batch: EncodedBatch) -> dict[str, Any]:
        """Adds `exclude`: for every second row the best items, where enough others are left."""
        queries = self._queries(batch)
        ids = self._index(queries)[0].numpy()[:, :_GOLDEN_EXCLUDED]  # (B, E)
        rows = len(ids)
        every_second = (np.arange(rows) % 2 == 1)[:, None]
        if len(self._index.keys) < self._index.k + _GOLDEN_EXCLUDED:
            every_second[:] = False
        self._golden = np.where(every_second, ids, b"")
        lists = [[key.decode() for key in row if key] for row in self._golden.tolist()]
        return {**columns, EXCLUDE: pa.array(lists, pa.list_(pa.string()))}

    def expected(self, batch: EncodedBatch) -> dict[str, tf.Tensor]:
        """Outputs for an encoded batch and the excluded items of `golden_columns`.

        Those of an exact index are computed by NumPy.
        """
        queries = self._queries(batch)
        excluded = self._golden
        if excluded is None:
            excluded = np.zeros((len(queries), 0), "S1")
        if isinstance(self._index, ExactIndex):
            ids, scores = _exact(self._index, queries.numpy(), excluded)
        else:
            ids, scores = self._index(queries, tf.constant(excluded.astype(object), tf.string))
        return {"ids": tf.convert_to_tensor(ids), "scores": tf.convert_to_tensor(scores)}

    def _queries(self, batch: EncodedBatch) -> tf.Tensor:
        """The Keras model's user side."""
        if isinstance(self._original, ProjectedRetriever):
            stored = batch["representations"][self._original.source]
            return self._original.projection(stored[:, :-1])
        return self._original.two_towers.towers(batch).user

    def _resources(self) -> list[Any]:
        return [] if self._tower is None else [self._encoder]

    def _run(self, raw: Mapping[str, Any], size: tf.Tensor) -> dict[str, tf.Tensor]:
        """The k best items of `size` rows."""
        excluded = raw[EXCLUDE].to_tensor("")  # (B, E)
        if self._tower is None:
            queries = self._projection(raw[self._original.source])  # (B, d)
        else:
            queries = self._tower(self._encoded(raw, size))  # (B, d)
        ids, scores = self._index(tf.cast(queries, tf.float32), excluded)
        return {"ids": ids, "scores": scores}


def _exact(
    index: ExactIndex, queries: np.ndarray, excluded: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Exact search in double precision."""
    scores = queries.astype(np.float64) @ index.vectors.numpy().T.astype(np.float64)  # (B, N)
    scores += index.penalty.numpy()
    for row, keys in enumerate(excluded):
        scores[row, np.isin(index.keys, keys)] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, : index.k]  # (B, k)
    best = np.take_along_axis(scores, order, axis=1).astype(np.float32)
    ids = np.where(np.isinf(best), b"", index.keys[order]).astype(object)
    missing = index.k - best.shape[1]
    return (
        np.pad(ids, [(0, 0), (0, missing)], constant_values=b""),
        np.pad(best, [(0, 0), (0, missing)], constant_values=-np.inf),
    )
