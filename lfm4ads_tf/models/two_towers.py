"""Embeddings and towers: one vector per user and one per item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf
import tf_keras

from lfm4ads_tf.config import EmbeddingsConfig
from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.models.batch import EncodedBatch
from lfm4ads_tf.models.tower import Tower


@dataclass(frozen=True)
class TowerOutputs:
    """What the towers hand to the interaction block.

    Attributes:
        user: UR, (B, d_u); a function of user features alone.
        item: IR, (B, d_i); a function of item features alone.
        context: (B, d_c), or None without context features.
        fields: Field embeddings per width w, each (B, F_w, K w).
    """

    user: tf.Tensor
    item: tf.Tensor
    context: tf.Tensor | None
    fields: list[tf.Tensor]


class TwoTowers(tf_keras.layers.Layer):
    """ShardedEmbedding -> user tower and item tower, each seeing its own side only.

    Args:
        layout: Columns of the encoded batch.
        user_units, item_units: Hidden units of the towers, see `Tower`.
        embeddings: Tables.
        seed: Seed of all initial weights.

    Raises:
        UserError: The layout has no user or no item feature.
    """

    def __init__(
        self,
        layout: FeatureLayout,
        user_units: Sequence[int],
        item_units: Sequence[int],
        embeddings: EmbeddingsConfig,
        *,
        seed: int = 0,
        name: str = "two_towers",
    ) -> None:
        super().__init__(name=name)
        self.layout = layout
        self._dense_columns = {o: layout.dense_columns(o) for o in ("user", "item", "context")}
        owned = {f.owner for f in layout.fields} | {d.owner for d in layout.dense}
        for side in ("user", "item"):
            if side not in owned:
                raise UserError(
                    f"The feature spec declares no {side} feature, so there is no {side} tower.",
                    fix=f"declare at least one feature with `owner: {side}`, such as its key",
                )
        self.embeddings = build_embeddings(layout, embeddings, seed=seed)
        self.user_tower = Tower(user_units, seed=seed, name="user_tower")
        self.item_tower = Tower(item_units, seed=seed, name="item_tower")

    def towers(self, batch: EncodedBatch) -> TowerOutputs:
        """Looks up the embeddings and runs both towers."""
        embedded = self.embeddings(batch["ids"], batch.get("bags"))
        owners = {f.name: f.owner for f in self.layout.fields}
        inputs: dict[str, list[tf.Tensor]] = {"user": [], "item": [], "context": []}
        fields: list[tf.Tensor] = []
        for dim, values in embedded.items():
            names = self.embeddings.fields(dim)
            width = self.embeddings.sets * dim
            fields.append(tf.reshape(values, [-1, len(names), width]))  # (B, F_w, K w)
            start = 0
            for owner, parts in inputs.items():
                count = sum(owners[name] == owner for name in names)
                if count:
                    own = fields[-1][:, start : start + count]
                    parts.append(tf.reshape(own, [-1, count * width]))  # (B, F_o K w)
                start += count
        for owner, columns in self._dense_columns.items():
            if columns:
                inputs[owner].append(batch["dense"][:, columns[0] : columns[-1] + 1])  # (B, N_o)
        context = inputs["context"]
        return TowerOutputs(
            user=self.user_tower(tf.concat(inputs["user"], axis=-1)),
            item=self.item_tower(tf.concat(inputs["item"], axis=-1)),
            context=tf.concat(context, axis=-1) if context else None,
            fields=fields,
        )


def build_embeddings(
    layout: FeatureLayout, config: EmbeddingsConfig, *, seed: int
) -> ShardedEmbedding:
    """The tables of a layout at the widths of a configuration."""
    return ShardedEmbedding(
        [
            TableConfig(t.name, rows=t.rows, dim=t.dim or config.dim, init_scale=config.init_scale)
            for t in layout.tables
        ],
        [EmbeddedFeature(f.name, table=f.table, combiner=f.combiner) for f in layout.fields],
        shards=config.shards,
        sets=config.sets,
        seed=seed,
        init=config.init,
    )
