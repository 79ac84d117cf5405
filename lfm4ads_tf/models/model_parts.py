"""What a model is made of: its layers, its embedding layers, and its variables outside of them."""

from __future__ import annotations

from collections import deque
from typing import Any
from urllib.parse import quote

import tensorflow as tf
import tf_keras

from lfm4ads_tf.embeddings.table import ShardedEmbedding
from lfm4ads_tf.interactions.layer import InteractionLayer


class ModelParts:
    """A model's variables and embedding layers by their path: the attributes that lead to them.

    A path such as `backbone/block/deep/layers/0/kernel` neither depends on the names that Keras
    numbers within a process nor on the order of the variables.

    Attributes:
        dense: Path -> variable, those of the embedding layers apart.
        embeddings: Path -> embedding layer.
        layers: Path -> layer, embedding layers among them.

    Args:
        model: The model, already called once, so that it has its variables.
    """

    def __init__(self, model: tf_keras.Model) -> None:
        self.dense: dict[str, Any] = {}
        self.embeddings: dict[str, ShardedEmbedding] = {}
        self.layers: dict[str, tf_keras.layers.Layer] = {}
        sharded = tf.__internal__.distribute.ShardedVariable
        waiting: deque[tuple[tuple[str, ...], Any]] = deque([((), model)])
        seen = {id(model)}
        while waiting:  # breadth first, so that a variable gets the shortest of its paths
            path, node = waiting.popleft()
            if isinstance(node, tf_keras.optimizers.Optimizer):
                continue  # a compiled model holds it; its slots are no part of the model
            if path and isinstance(node, tf_keras.layers.Layer):
                self.layers["/".join(path)] = node
            if isinstance(node, ShardedEmbedding):
                self.embeddings["/".join(path)] = node
            elif isinstance(node, (tf.Variable, sharded)):
                self.dense["/".join(path)] = node
            else:
                for name, child in tf.train.TrackableView.children(node).items():
                    if id(child) not in seen:
                        seen.add(id(child))
                        waiting.append(((*path, quote(name, safe="")), child))

    @property
    def field_groups(self) -> dict[str, dict[str, list[str]]]:
        """Path of a layer -> what its weights read together: `InteractionLayer.field_groups`."""
        layers = {p: x for p, x in self.layers.items() if isinstance(x, InteractionLayer)}
        groups = {path: layer.field_groups for path, layer in layers.items()}
        return {p: {name: [*fields] for name, fields in g.items()} for p, g in groups.items() if g}
