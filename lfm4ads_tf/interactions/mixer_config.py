"""Options of a mixer of tokens."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from lfm4ads_tf.interactions.config import LayerConfig
from lfm4ads_tf.interactions.global_token import Pool
from lfm4ads_tf.interactions.mixer_block import Mixing, Norm
from lfm4ads_tf.interactions.token_network import Network
from lfm4ads_tf.interactions.tokens import Sets

Order = Literal["spec", "semantic", "permuted", "scalars"]
_ROUTES = 1e-3
"""Weight of the routes where the configuration does not say."""


class MixerConfig(LayerConfig):
    """A mixer of tokens.

    Attributes:
        tokens: Tokens that are made of fields; of `semantic` as many as there are groups, and of
            `sets: each` as many for every set. When absent 16, or as many as there are fields.
        dim: Width D of a token; `head_dim` for each of the heads when absent.
        head_dim: D / H, where `dim` is absent.
        depth: Number of blocks L.
        order: Which fields make a token. `spec`: runs of their order. `semantic`: `groups`.
            `permuted`: runs of an order that a seed draws. `scalars`: equal slices of all fields
            side by side.
        permutation: Seed of the order of `permuted`, apart from the seed of the weights.
        groups: Name -> fields of its token. Of `semantic` it is yours; of `spec` and `permuted` a
            run keeps here what was drawn, and a field that is in none joins the smallest.
        sets: How several sets of embeddings are read: side by side (`joined`), or with tokens for
            each of them.
        number_tokens: Tokens that are made of the numbers, each of all of them; 0 leaves the
            numbers to other layers.
        sequence_tokens: Whether each multi-valued feature has a token of its own, behind those of
            the groups, which are then made of the other fields.
        global_token: What the token of all fields is made by; none when absent.
        heads: H; as many as there are tokens when absent.
        norm, mixing, network, expansion: See `MixerBlock` and `TokenNetwork`.
        experts: Networks e of each token, which routes choose among, see `TokenNetwork`.
        experts_l1: Weight of the sum of a row's routes in the loss; read where there are several
            experts, and 1e-3 when absent there.
        decorrelation: Weight of `token_correlation` of the last block's tokens in the loss.
        readout: `mean` over the tokens; `flatten`: a linear layer of width D over all of them; or
            `task`: a learned token of each task joins X_0, and the task reads what has become of it
            and the mean.
        read_units: Hidden units over what each task reads; read by `task` alone.
    """

    type: Literal["mixer"] = "mixer"
    tokens: int | None = Field(default=None, ge=1)
    dim: int | None = Field(default=None, ge=1)
    head_dim: int = Field(default=8, ge=1)
    depth: int = Field(default=2, ge=1)
    order: Order = "spec"
    permutation: int = Field(default=0, ge=0)
    groups: dict[str, list[str]] = {}
    sets: Sets = "joined"
    number_tokens: int = Field(default=1, ge=0)
    sequence_tokens: bool = False
    global_token: Pool | None = None
    heads: int | None = Field(default=None, ge=1)
    norm: Norm = "post"
    mixing: Mixing = "transpose"
    network: Network = "gelu"
    expansion: float = Field(default=4, gt=0)
    experts: int = Field(default=1, ge=1)
    experts_l1: float | None = Field(default=None, ge=0)
    decorrelation: float = Field(default=0, ge=0)
    readout: Literal["mean", "flatten", "task"] = "mean"
    read_units: list[Annotated[int, Field(ge=1)]] = []

    @property
    def routes_weight(self) -> float:
        """Weight of the sum of a row's routes in the loss; 0 without routes."""
        if self.experts == 1:
            return 0.0
        return _ROUTES if self.experts_l1 is None else self.experts_l1

    @model_serializer(mode="wrap")
    def _as_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a name and penalties that it does not have: documents of older runs have none."""
        document: dict[str, Any] = super()._as_given(handler)
        for key in ("experts", "experts_l1", "decorrelation"):
            if document[key] == type(self).model_fields[key].default:
                del document[key]
        return document
