"""What a feature-level transfer is: representations in, parts of the stream or a gate out."""

from __future__ import annotations

import abc
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import tensorflow as tf
import tf_keras

from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.strict import StrictModel
from lfm4ads_tf.transfer.config import AdapterConfig


@dataclass(frozen=True)
class Adapted:
    """What an adapter gives to the downstream model.

    Attributes:
        extra: Parts joined to the stream x_0, each (B, d).
        gate: Factor of the stream's own part, or of the field embeddings, (B, d), or None.
        tokens: Further fields beside the field embeddings, each (B, w).
    """

    extra: list[tf.Tensor] = field(default_factory=list)
    gate: tf.Tensor | None = None
    tokens: list[tf.Tensor] = field(default_factory=list)


class Adapter(Rebuildable, tf_keras.layers.Layer, metaclass=abc.ABCMeta):
    """A feature-level adapter over one or more stored representations.

    Representations are looked up, not trained: no gradient reaches the upstream.

    Args:
        sources: Names of the representations it reads, such as `UR` or `CR_user@cross_3`.
        name: Kind of the adapter; the sources become part of the layer's name.

    Attributes:
        Config: Options of its own, given as `downstream.adapter_options.<name>`.
        widens: Whether it joins something to the stream, so that what reads the stream has more
            inputs than the upstream's.
        of_fields: Whether its gate is for the field embeddings instead of the stream.
        gates_stream: Whether it gives a gate for the stream.
        as_fields: Whether what it joins stands beside the field embeddings too.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> import tensorflow as tf
        >>> from lfm4ads_tf.transfer.adapters.linear import LinearAdapter
        >>> adapter = LinearAdapter(["UR"], dim=3)
        >>> isinstance(adapter, lfm.Adapter)
        True
        >>> adapted = adapter({"UR": tf.ones([2, 5])}, width=8)  # d = 4, and the presence flag
        >>> adapted.extra[0].shape
        TensorShape([2, 3])
    """

    Config: ClassVar[type[StrictModel]] = StrictModel
    widens: ClassVar[bool] = False
    of_fields: ClassVar[bool] = False
    gates_stream: ClassVar[bool] = False
    as_fields: ClassVar[bool] = False

    def __init__(self, sources: Sequence[str], *, name: str) -> None:
        # A method may hold several adapters of a kind: their variables need names of their own,
        # of the characters that TensorFlow allows.
        super().__init__(name=re.sub(r"[^\w.-]", ".", "_".join([name, *sources])))
        self.sources = list(sources)

    @classmethod
    @abc.abstractmethod
    def create(cls, sources: Sequence[str], config: AdapterConfig, options: Any, seed: int) -> Self:
        """A new adapter of a configuration.

        Args:
            sources: Representations that it reads.
            config: What all adapters share.
            options: A `Config` of this class.
            seed: Seed of its initial weights.
        """

    @classmethod
    def check(cls, sources: Mapping[str, str], options: Any, upstream: UpstreamConfig) -> None:
        """Refuses what it cannot read, before anything is trained; here nothing.

        Args:
            sources: Representation -> `user` or `item`, by whose key it is stored.
            options: As for `create`.
            upstream: The model that they are of.

        Raises:
            UserError: It cannot read them.
        """

    @classmethod
    def joined(cls, sources: Sequence[str]) -> int:
        """How many vectors it joins, read where it `widens`; here one for each source."""
        return len(sources)

    def check_widths(self, widths: Mapping[str, int]) -> None:
        """Refuses widths that it cannot read; here none.

        Args:
            widths: Representation -> d, at least of its sources.

        Raises:
            UserError: It cannot read them.
        """

    @abc.abstractmethod
    def call(
        self, representations: Mapping[str, tf.Tensor], width: int, training: bool = False
    ) -> Adapted:
        """Adapts.

        Args:
            representations: Name -> (B, d + 1), the last column flagging presence.
            width: Width of what a gate is for: the stream's own part, or all field embeddings.
            training: Whether dropout applies.

        Returns:
            Parts of the stream (B, d'), a gate (B, width), tokens (B, w): what it has of them.
        """
