"""What a feature-level transfer is: representations in, parts of the stream or a gate out."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import tensorflow as tf
import tf_keras


@dataclass(frozen=True)
class Adapted:
    """What an adapter gives to the downstream model.

    Attributes:
        extra: Parts joined to the stream x_0, each (B, d).
        gate: Factor of the stream's own part (B, d), or None.
    """

    extra: list[tf.Tensor] = field(default_factory=list)
    gate: tf.Tensor | None = None


class Adapter(tf_keras.layers.Layer, metaclass=abc.ABCMeta):
    """A feature-level adapter over one or more stored representations.

    Representations are looked up, not trained: no gradient reaches the upstream.

    Args:
        sources: Names of the representations it reads, such as `UR` or `CR_user@cross_3`.
        name: Kind of the adapter; the sources become part of the layer's name.
    """

    def __init__(self, sources: Sequence[str], *, name: str) -> None:
        # A method may hold several adapters of a kind: their variables need names of their own.
        super().__init__(name="_".join([name, *sources]).replace("@", "."))
        self.sources = list(sources)

    @abc.abstractmethod
    def call(self, representations: Mapping[str, tf.Tensor], width: int) -> Adapted:
        """Adapts.

        Args:
            representations: Name -> (B, d + 1), the last column flagging presence.
            width: Width of the stream's own part.
        """
