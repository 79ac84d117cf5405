"""One side's tower as a SavedModel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from lfm4ads_tf.embeddings.config import ServedStorage
from lfm4ads_tf.export.golden_rows import GoldenRows
from lfm4ads_tf.export.request_schema import RequestSchema
from lfm4ads_tf.export.rounding import Rounding, changed_batch, rounding_bound
from lfm4ads_tf.export.serving_model import ServingModel
from lfm4ads_tf.export.tower_model import TowerModel
from lfm4ads_tf.models.upstream import UpstreamModel


class TowerServing(ServingModel):
    """Raw requests -> `representation` float32 (B, D): UR or IR.

    Args:
        model: The upstream, called once.
        side: `user` or `item`.
        rows: Real rows.
        storage: Type of the tables.

    Raises:
        ExportRefused: A value of a table cannot be kept in this type.
    """

    def __init__(
        self,
        model: UpstreamModel,
        side: Literal["user", "item"],
        rows: GoldenRows,
        storage: ServedStorage = "float32",
    ) -> None:
        self._original = model
        self._name = "UR" if side == "user" else "IR"
        self._tower = TowerModel(model.backbone, side, storage)
        encoder = rows.encoder.only(self._tower.features)
        super().__init__(encoder, RequestSchema(encoder.raw_types, {}))

    def trained(self, rows: GoldenRows) -> dict[str, np.ndarray]:
        """See `ServingModel`."""
        return {"representation": self._original.represent(rows.batch)[self._name].numpy()}

    def expected(self, rows: GoldenRows) -> dict[str, np.ndarray]:
        """See `ServingModel`."""
        return {"representation": self._tower(rows.batch).numpy()}

    def roundings(self, rows: GoldenRows) -> dict[str, Rounding]:
        """See `ServingModel`."""
        bound = rounding_bound(
            lambda change: self._tower(changed_batch(rows.batch, change)).numpy(),
            self._tower.dense_variables,
            [] if self._tower.embeddings is None else [self._tower.embeddings],
        )
        return {"representation": Rounding("value", bound)}

    def run(self, raw: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """See `ServingModel`."""
        return {"representation": tf.cast(self._tower(self.encoded(raw)), tf.float32)}
