"""Many candidate items of one user in one request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.export.golden_rows import GoldenRows
from lfm4ads_tf.export.request_schema import RequestSchema
from lfm4ads_tf.export.serving_model import with_equal_rows
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.interactions.repeated import repeated
from lfm4ads_tf.models.candidate_towers import CandidateTowers
from lfm4ads_tf.representations.names import side_of
from lfm4ads_tf.transfer.downstream import DownstreamModel


class Ranking:
    """One user and N candidates -> logits (N, T).

    The user's columns are encoded, looked up and passed through the user tower as one row, which
    is repeated where it meets the candidates. Columns of the context have one row for the request,
    or one for each candidate.

    Args:
        model: The ranker, with tables for inference.
        encoder: The encoder of the model's features.
        schema: What a request to `predict` holds.
        sides: Column or representation -> user, item or context.
        stored: Raw rows, name -> the representation (B, d + 1).

    Attributes:
        towers: The towers of user and candidates.
    """

    def __init__(
        self,
        model: DownstreamModel,
        encoder: Encoder,
        schema: RequestSchema,
        sides: Mapping[str, str],
        stored: Callable[[Mapping[str, Any], str], tf.Tensor],
    ) -> None:
        self._model = model
        self._schema = schema
        self._sides = sides
        self._stored = stored
        self.towers = CandidateTowers(model.backbone)
        features = self.towers.features
        others = [*features["item"], *features["context"]]
        if model.module is not None:
            others += [f for f in model.module.context.features if f not in others]
        self._user = encoder.only(features["user"], share=True)
        self._others = encoder.only(others, share=True)

    def checked(self, request: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """A request whose numbers of rows fit, which ops of the graph check.

        The signature does not say that a user has one row: a server trusts what a placeholder's
        shape says, and would score a second user's row by wrong assumptions.
        """
        parts: dict[str, dict[str, tf.Tensor]] = {"user": {}, "item": {}, "context": {}}
        for name, side in self._sides.items():
            key = self._schema.names[name]
            parts[side][key] = request[key]
        user = {
            key: tf.ensure_shape(values, [1, *values.shape[1:]])
            for key, values in parts["user"].items()
        }
        # there is a column or representation of the item: an item tower needs a feature
        items = with_equal_rows(parts["item"])
        rows = tf.shape(next(iter(items.values())))[0]
        return {**user, **items, **with_equal_rows(parts["context"], rows, one=True)}

    def request(self, rows: GoldenRows) -> dict[str, np.ndarray]:
        """Rows of one user as a request, context row by row."""
        stored = {n: rows.representations[n][:, :-1] for n in self._schema.representations}
        user = [name for name, side in self._sides.items() if side == "user"]
        rest = [name for name, side in self._sides.items() if side != "user"]
        first = {name: values.slice(0, 1) for name, values in rows.columns.items()}
        one = {name: values[:1] for name, values in stored.items()}
        return {
            **self._schema.part(user).tensors(first, one),
            **self._schema.part(rest).tensors(rows.columns, stored),
        }

    def __call__(self, raw: Mapping[str, Any]) -> tf.Tensor:
        """Logits (N, T).

        Args:
            raw: Raw rows: of user columns 1 (static), of item columns N, of context columns 1 or N.
        """
        user, candidates = self.user_batch(raw), self.candidate_batch(raw)
        batch: EncodedBatch = {**candidates, "representations": self.representations(raw)}
        logits: tf.Tensor = self._model.logits(
            batch, towers=lambda gate: self.towers(user, candidates, gate=gate)
        )
        return logits

    def user_batch(self, raw: Mapping[str, Any]) -> EncodedBatch:
        """The user's features, one row."""
        batch: EncodedBatch = self._user({column: raw[column] for column in self._user.raw_types})
        return batch

    def candidate_batch(self, raw: Mapping[str, Any]) -> EncodedBatch:
        """The features of items and context, N rows."""
        rows = _rows(next(raw[name] for name, side in self._sides.items() if side == "item"))
        shape = tf.expand_dims(rows, 0)  # made once for all columns
        batch: EncodedBatch = self._others(
            {c: self._for_each(raw[c], c, rows, shape) for c in self._others.raw_types}
        )
        return batch

    def representations(self, raw: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """What the model reads of stored ones, (1, d + 1) of the user or (N, d + 1) of items."""
        return {name: self._of_side(raw, name) for name in self._model.sources}

    def _of_side(self, raw: Mapping[str, Any], name: str) -> tf.Tensor:
        values = self._stored(raw, name)
        return tf.ensure_shape(values, [1, None]) if side_of(name) == "user" else values

    def _for_each(self, values: Any, column: str, rows: tf.Tensor, shape: tf.Tensor) -> Any:
        """A column's values for each candidate; `shape` is [rows]."""
        side = self._sides[column]
        if side == "item":
            return values
        if isinstance(values, tf.RaggedTensor):
            return tf.cond(
                tf.equal(values.nrows(), 1),
                lambda: tf.gather(values, tf.zeros([rows], tf.int64)),
                lambda: values,
            )
        if side == "user":
            return repeated(values, rows)
        if values.shape.rank == 1:
            return tf.broadcast_to(values, shape)
        return tf.broadcast_to(values, tf.concat([shape, tf.shape(values)[1:]], axis=0))


def _rows(values: Any) -> tf.Tensor:
    """Number of rows, int32."""
    if isinstance(values, tf.RaggedTensor):
        return tf.cast(values.nrows(), tf.int32)
    return tf.shape(values)[0]
