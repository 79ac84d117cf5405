"""Sizes and options of transfer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from lfm4ads_tf.registry_key import checked_options
from lfm4ads_tf.strict import StrictModel
from lfm4ads_tf.transfer.adapters.registry import ADAPTERS
from lfm4ads_tf.written import UNREAD

OPTIONS_KEY = "downstream.adapter_options"


class AdapterConfig(StrictModel):
    """Options of the transfer methods; each is read by the methods that need it.

    Attributes:
        adapter_units: Hidden widths of the MLP adapters and the output width, per source.
        adapter_dropout: Rate applied to each hidden layer of the MLP adapters in training.
        adapter_l2: Adds adapter_l2 / 2 * |W|^2 of all adapters' kernels to the loss.
        adapter_zero_init: Whether the last layer of an MLP adapter starts at zero, so that what
            it gives starts at zero. Not read beside a warm start, whose new inputs have weights
            that start at zero already.
        linear_dim: Output width of the linear adapter.
        token_dim: Output width of the adapters `token` and `cross`; the embeddings' width when
            absent.
        adapter_options: Adapter -> options of its own, for adapters that have some.
        full: The combination that the method name `full` stands for; derived from the upstream
            when absent.
        warm_start_snapshot: Upstream weights that module-level methods start from: `final`, the
            end of training; `first`, the earliest snapshot; or the period of a snapshot.
        warm_start_rates: Factors of the learning rate of copied weights: `tables`, `towers`, the
            name of an interaction layer, `block` for the layers not named, `heads`.
        isomorphic_layer: Layer of the isomorphic module that joins the downstream's own; the
            output of its block when `output`.
        isomorphic_gate: Multiplies it with a learned sigmoid gate.
        isomorphic_head: Adds the module's own logit, from the upstream's head, to the
            downstream's, whose weights then start at zero.
    """

    adapter_units: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = [64, 16]
    adapter_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    adapter_l2: float = Field(default=0.0, ge=0.0)
    adapter_zero_init: bool = False
    linear_dim: int = Field(default=16, ge=1)
    token_dim: int | None = Field(default=None, ge=1)
    adapter_options: dict[str, dict[str, Annotated[Any, UNREAD]]] = {}
    full: str | None = None
    warm_start_snapshot: Literal["final", "first"] | Annotated[int, Field(ge=0)] = "final"
    warm_start_rates: dict[str, Annotated[float, Field(ge=0)]] = {}
    isomorphic_layer: str = "output"
    isomorphic_gate: bool = False
    isomorphic_head: bool = False

    @property
    def token_width(self) -> int:
        """Width of a representation that is a further field."""
        return self.token_dim or self.adapter_units[-1]

    @field_validator("adapter_options")
    @classmethod
    def _known_options(cls, given: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return checked_options(ADAPTERS, given, OPTIONS_KEY)
