"""One side's towers, one for each group of sets of its embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from lfm4ads_tf.models.owned_fields import OwnedInputs
from lfm4ads_tf.models.tower import Tower
from lfm4ads_tf.rebuildable import Rebuildable


class GroupTower(Rebuildable, tf_keras.layers.Layer):
    """r^g = Tower^g([sets of group g side by side; numbers]); groups may differ in width.

    Args:
        units: Width of each layer, the same for all groups.
        sizes: Number of sets of each group, in the order of the sets.
        seed: Seed of the initial weights.
    """

    def __init__(
        self,
        units: Sequence[int],
        sizes: Sequence[int],
        *,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self._sizes = tuple(sizes)
        self.towers = [
            Tower(units, seed=seed, name=f"{self.name}_group_{g}") for g in range(len(sizes))
        ]

    def call(self, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """(B, d_g) of each group -> (B, d_r) of each."""
        return [tower(read) for tower, read in zip(self.towers, inputs, strict=True)]

    def represent(self, inputs: OwnedInputs) -> tf.Tensor:
        """[r^0; ...; r^(G-1)], (B, G d_r)."""
        return tf.concat(self(inputs.per_group(self._sizes)), axis=-1)
