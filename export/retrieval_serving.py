"""Encoder, user side and index of items as the signatures of one SavedModel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import ServedStorage
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.golden_rows import GoldenRows
from lfm4ads_tf.export.request_schema import RequestSchema
from lfm4ads_tf.export.rounding import Change, Rounding, changed_batch, rounding_bound
from lfm4ads_tf.export.serving_model import ServingModel
from lfm4ads_tf.export.tower_model import TowerModel
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.raw_types import RawType
from lfm4ads_tf.features.request_name import EXCLUDE
from lfm4ads_tf.retrieval.index import Index
from lfm4ads_tf.transfer.retrieval.two_vector_model import TwoVectorModel

_GOLDEN_EXCLUDED = 2  # best items that every second golden request excludes


class RetrievalServing(ServingModel):
    """Raw requests -> `ids` text (B, k) and `scores` float32 (B, k), best first.

    The query is the user tower's output for own towers, W r(u) + b for a projection, which asks
    for the stored representation alone. Both ask for `exclude` too.

    Args:
        model: A trained retrieval model.
        index: The items.
        rows: Real rows.
        storage: Type of the tables.

    Raises:
        ExportRefused: A value of a table cannot be kept in this type.
        ValueError: The model has neither towers nor a stored representation on the user side.
        UserError: A raw column has the name of `exclude`.
    """

    def __init__(
        self,
        model: TwoVectorModel,
        index: Index,
        rows: GoldenRows,
        storage: ServedStorage = "float32",
    ) -> None:
        self._original = model
        self._index = index
        self._last: tuple[GoldenRows, np.ndarray, dict[str, np.ndarray]] | None = None
        self._tower: TowerModel | None = None
        encoder: Encoder | None = None
        columns: dict[str, RawType] = {}
        widths: dict[str, int] = {}
        self._source = ""
        if model.two_towers is None:
            if model.source is None:
                raise ValueError("The user side has neither towers nor a stored representation.")
            self._source = model.source
            stored = rows.batch["representations"][self._source]
            widths[self._source] = int(stored.shape[1]) - 1
        else:
            self._tower = TowerModel(model.two_towers, "user", storage)
            encoder = rows.encoder.only(self._tower.features)
            columns = dict(encoder.raw_types)
        if EXCLUDE in columns:
            raise UserError(
                f"A retrieval export asks for a column '{EXCLUDE}' of its own.",
                received=f"a user feature that reads '{EXCLUDE}'",
                fix="rename that raw column",
            )
        columns[EXCLUDE] = RawType("texts")
        super().__init__(encoder, RequestSchema(columns, widths))

    def golden_columns(self, rows: GoldenRows) -> Mapping[str, Any]:
        """Adds `exclude`: for every second row the best items, where enough others are left."""
        lists = [[key.decode() for key in row if key] for row in self._excluded(rows).tolist()]
        return {**rows.columns, EXCLUDE: pa.array(lists, pa.list_(pa.string()))}

    def trained(self, rows: GoldenRows) -> dict[str, np.ndarray]:
        """See `ServingModel`; with the excluded items of `golden_columns`."""
        return self._found(self._queries(rows.batch), rows)

    def expected(self, rows: GoldenRows) -> dict[str, np.ndarray]:
        """See `ServingModel`; with the excluded items of `golden_columns`."""
        return self._found(self._served_queries(rows.batch), rows)

    def roundings(self, rows: GoldenRows) -> dict[str, Rounding]:
        """See `ServingModel`: of the scores of each query's best items."""
        best = self._best(self._served_queries(rows.batch))

        def scores(change: Change) -> np.ndarray:
            queries = self._served_queries(changed_batch(rows.batch, change)).numpy()
            vectors = change(best)  # (B, k, d)
            return np.asarray(np.einsum("bd,bkd->bk", queries, vectors, dtype=np.float64))

        return {"scores": Rounding("value", self._bound(scores))}

    def magnitudes(self, rows: GoldenRows) -> dict[str, np.ndarray]:
        """See `ServingModel`: sum_j |q_j v_j| of the best items, the largest of each query."""
        queries = self._served_queries(rows.batch)
        terms = np.einsum("bd,bkd->bk", np.abs(queries.numpy()), np.abs(self._best(queries)))
        return {"scores": terms.max(axis=1, keepdims=True)}  # (B, 1)

    def decided(self, rows: GoldenRows) -> GoldenRows:
        """See `ServingModel`: a row that may read other lists gives its place to the one before."""
        queries = self._served_queries(rows.batch)
        if self._index.coarse_scores(queries) is None:
            return rows

        def near(change: Change) -> np.ndarray:
            changed = self._served_queries(changed_batch(rows.batch, change))
            return np.asarray(self._index.coarse_scores(changed))

        sound = self._index.decided(queries, self._bound(near))
        if sound.all() or not sound.any():
            return rows
        places = np.where(sound, np.arange(len(sound)), -1)
        places = np.maximum.accumulate(places)
        return rows.take(np.where(places < 0, np.argmax(sound), places))

    def _bound(self, outputs: Callable[[Change], np.ndarray]) -> float:
        if self._tower is None:
            return rounding_bound(outputs, self._original.projection.variables)
        layers = [] if self._tower.embeddings is None else [self._tower.embeddings]
        return rounding_bound(outputs, self._tower.dense_variables, layers)

    def _best(self, queries: tf.Tensor) -> np.ndarray:
        """Vectors of the exact best items of each query, (B, k, d)."""
        vectors = self._index.item_vectors()  # (N, d)
        scores = queries.numpy() @ vectors.T  # (B, N)
        count = min(self._index.k, len(vectors))
        return np.asarray(vectors[np.argpartition(-scores, count - 1, axis=1)[:, :count]])

    def _found(self, queries: tf.Tensor, rows: GoldenRows) -> dict[str, np.ndarray]:
        """Items for some queries."""
        asked = queries.numpy()
        if self._last is not None and self._last[0] is rows:
            if np.array_equal(self._last[1], asked):  # the tables of the export are the model's
                return self._last[2]
        excluded = self._excluded(rows)
        ids, scores = self._index.expected(asked, excluded)
        self._last = (rows, asked, {"ids": ids, "scores": scores})
        return self._last[2]

    def run(self, raw: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """See `ServingModel`."""
        excluded = raw[EXCLUDE].to_tensor("")  # (B, E)
        if self._tower is None:
            queries = self._original.projection(raw[self._source])  # (B, d)
        else:
            queries = self._tower(self.encoded(raw))  # (B, d)
        ids, scores = self._index(tf.cast(queries, tf.float32), excluded)
        return {"ids": ids, "scores": scores}

    def _served_queries(self, batch: EncodedBatch) -> tf.Tensor:
        """The user side with the tables of the export."""
        return self._queries(batch) if self._tower is None else self._tower(batch)

    def _queries(self, batch: EncodedBatch) -> tf.Tensor:
        """The Keras model's user side."""
        return self._original.users(batch)

    def _excluded(self, rows: GoldenRows) -> np.ndarray:
        """Keys that the golden requests exclude, (B, E) bytes."""
        ids = self._index(self._queries(rows.batch))[0].numpy()[:, :_GOLDEN_EXCLUDED]  # (B, E)
        every_second = (np.arange(len(ids)) % 2 == 1)[:, None]
        if len(self._index.keys) < self._index.k + _GOLDEN_EXCLUDED:
            every_second[:] = False
        return np.where(every_second, ids, b"")
