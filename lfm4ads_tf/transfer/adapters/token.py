"""Adapted representations as further fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import tensorflow as tf

from lfm4ads_tf.transfer.adapters.adapter import Adapted
from lfm4ads_tf.transfer.adapters.mlp import MlpAdapter
from lfm4ads_tf.transfer.config import AdapterConfig


class TokenAdapter(MlpAdapter):
    """fields = [v_1; ...; v_F; a_1; ...; a_n] and x_0 = [E; a_1; ...; a_n], a as in `MlpAdapter`.

    So the factorisation machine pairs the representations with the field embeddings.

    Args:
        sources: Representations.
        units: Hidden widths, and the width of a token as the last.
        dropout: Rate applied to each hidden layer in training.
        zero_init: Whether tokens start at zero.
        seed: Seed of the initial weights.

    Source: this project's.
    """

    as_fields: ClassVar[bool] = True

    def __init__(
        self,
        sources: Sequence[str],
        *,
        units: Sequence[int],
        dropout: float = 0.0,
        zero_init: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(
            sources, units=units, dropout=dropout, zero_init=zero_init, seed=seed, name="token"
        )

    @classmethod
    def create(cls, sources: Sequence[str], config: AdapterConfig, options: Any, seed: int) -> Self:
        """See `Adapter.create`; reads what `MlpAdapter` does, and `token_dim`."""
        return cls(
            sources,
            units=[*config.adapter_units[:-1], config.token_width],
            dropout=config.adapter_dropout,
            zero_init=config.adapter_zero_init,
            seed=seed,
        )

    def call(
        self, representations: Mapping[str, tf.Tensor], width: int, training: bool = False
    ) -> Adapted:
        """See `Adapter.call`; each token is joined to the stream as well."""
        tokens = self.adapted(representations, training)
        return Adapted(extra=tokens, tokens=tokens)
