"""Sizes of towers, block and heads."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lfm4ads_tf.interactions.config import BlockConfig
from lfm4ads_tf.strict import StrictModel

Units = list[Annotated[int, Field(ge=1)]]


class NetworkConfig(StrictModel):
    """Towers, interaction block and heads, of the upstream and of the downstream model alike.

    Attributes:
        user_tower, item_tower: Hidden units; empty means the concatenated inputs themselves.
        block: The interaction block (mix tower).
        shared_head: Adds one logit per task shared by all scenarios to the scenario's own.

    Raises:
        pydantic.ValidationError: A key is unknown, or a value is out of its bounds.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> network = lfm.NetworkConfig(user_tower=[32], item_tower=[32])
        >>> [layer.type for layer in network.block.layers]
        ['fm', 'cross', 'dnn']
    """

    user_tower: Units = []
    item_tower: Units = []
    block: BlockConfig = Field(default_factory=BlockConfig)
    shared_head: bool = True
