"""Sizes of transfer."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lfm4ads_tf.strict import StrictModel


class AdapterConfig(StrictModel):
    """Sizes of the feature-level adapters.

    Attributes:
        adapter_units: Hidden and output width of the MLP adapter, per source.
        linear_dim: Output width of the linear adapter.
    """

    adapter_units: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = [64, 16]
    linear_dim: int = Field(default=16, ge=1)
