"""Configuration of an interaction block: the stack of layers and their sizes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    WrapValidator,
    model_serializer,
)

from lfm4ads_tf.interactions.registry import INTERACTIONS
from lfm4ads_tf.strict import StrictModel, member_of


class LayerConfig(StrictModel):
    """What the options of every interaction layer have in common.

    Attributes:
        type: A registered interaction layer.
        name: Its name in the block, which its activations are named by; the type when absent. A
            block that holds a type several times needs it.
    """

    type: str
    name: Annotated[str, Field(pattern=r"^[A-Za-z]\w*$")] | None = None

    @model_serializer(mode="wrap")
    def _as_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a name that it does not have: the documents of older runs have no such key."""
        document: dict[str, Any] = handler(self)
        if self.name is None:
            del document["name"]
        return document

    @property
    def key(self) -> str:
        """Its name in the block."""
        return self.name or self.type


def _as_layer(value: Any, _: Any) -> LayerConfig:
    """Options of a layer by its type."""
    if isinstance(value, LayerConfig):
        return value
    layer: LayerConfig = member_of(INTERACTIONS, "type", value)
    return layer


AnyLayerConfig = Annotated[SerializeAsAny[LayerConfig], WrapValidator(_as_layer)]


class BlockConfig(StrictModel):
    """Interaction layers in order.

    Attributes:
        structure: `stacked`: each layer reads the stream that the one before it left.
            `parallel`: each reads x_0 (the DNN also reads the FM's vector), and the heads read
            all their outputs side by side (DCNv2, section 3.3, has both). `gated`: each is an
            expert over x_0, and a gate per task mixes their projected outputs for its heads.
        mix_dim: Width of the projected outputs; read by `gated` alone.
        layers: The layers in order.
        sets: How several sets of embeddings are read. `joined`: by one block, in which the sets of
            a field lie side by side. `each`: every set k by towers and a block of its own, whose
            outputs I_k meet in the mean of relu(W_k I_k + b_k); `gated` has no such form.
        set_dim: Width of that mean; read by `each` alone.
        shared_units: Width of each dense layer above the mean, relu after every one; read by `each`
            alone.

    Raises:
        pydantic.ValidationError: A key is unknown, or a value is out of its bounds.
        UserError: The type of a layer is unknown.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> block = lfm.BlockConfig(layers=[{"type": "cross", "depth": 2}, {"type": "dnn"}])
        >>> block.layers[0].depth, block.layers[1].units
        (2, [256, 128])
    """

    structure: Literal["stacked", "parallel", "gated"] = "stacked"
    mix_dim: int = Field(default=64, ge=1)
    layers: list[AnyLayerConfig] = Field(
        default_factory=lambda: [{"type": t} for t in ("fm", "cross", "dnn")], validate_default=True
    )
    sets: Literal["joined", "each"] = "joined"
    set_dim: int = Field(default=64, ge=1)
    shared_units: list[Annotated[int, Field(ge=1)]] = []

    @model_serializer(mode="wrap")
    def _as_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what joined sets do not read: the documents of older runs have no such keys."""
        document: dict[str, Any] = handler(self)
        for key in ("sets", "set_dim", "shared_units") if self.sets == "joined" else ():
            if document.get(key) == type(self).model_fields[key].default:
                del document[key]
        return document
