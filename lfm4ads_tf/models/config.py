"""Sizes of towers and heads."""

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
    """

    user_tower: Units = []
    item_tower: Units = []
    block: BlockConfig = BlockConfig()
    shared_head: bool = True


class MMoEConfig(StrictModel):
    """Multi-gate mixture of experts.

    Attributes:
        experts: Experts shared by all tasks.
        expert_units: Width of each layer of an expert.
        task_units: Hidden units of each task's tower; empty means logits of the mixture itself.
    """

    experts: int = Field(default=4, ge=1)
    expert_units: Annotated[Units, Field(min_length=1)] = [256, 128]
    task_units: Units = [64]
