"""Configuration of an interaction block: the stack of layers and their sizes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lfm4ads_tf.strict import StrictModel


class FmConfig(StrictModel):
    """Factorisation machine over the field embeddings, its vector joined to the stream.

    Attributes:
        dim: Width that fields of other widths are projected to.
    """

    type: Literal["fm"]
    dim: int = Field(default=16, ge=1)


class CrossConfig(StrictModel):
    """DCNv2 cross layers.

    Attributes:
        depth: Number of layers.
        rank: Rank of the weight matrix; full when absent.
    """

    type: Literal["cross"]
    depth: int = Field(default=3, ge=1)
    rank: int | None = Field(default=None, ge=1)


class DnnConfig(StrictModel):
    """Dense layers; activations are named before the non-linearity.

    Attributes:
        units: Width of each layer.
        activate_input: Whether the first layer reads the activated stream, as the LFM4Ads public
            experiment does, or the stream as it is.
        dropout: Rate applied to the activated output of each layer in training.
    """

    type: Literal["dnn"]
    units: list[Annotated[int, Field(ge=1)]] = Field(default=[256, 128], min_length=1)
    activate_input: bool = False
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)


LayerConfig = Annotated[FmConfig | CrossConfig | DnnConfig, Field(discriminator="type")]


class BlockConfig(StrictModel):
    """Interaction layers, each type at most once.

    Attributes:
        structure: `stacked`: each layer reads the stream that the one before it left.
            `parallel`: each reads x_0 (the DNN also reads the FM's vector), and the heads read
            all their outputs side by side (DCNv2, section 3.3, has both). `gated`: each is an
            expert over x_0, and a gate per task mixes their projected outputs for its heads.
        mix_dim: Width of the projected outputs; read by `gated` alone.
        layers: The layers in order.
    """

    structure: Literal["stacked", "parallel", "gated"] = "stacked"
    mix_dim: int = Field(default=64, ge=1)
    layers: list[LayerConfig] = [
        FmConfig(type="fm"),
        CrossConfig(type="cross", depth=3),
        DnnConfig(type="dnn"),
    ]
