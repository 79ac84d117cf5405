"""The models that can be the upstream, and the layers that each offers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

from lfm4ads_tf.config import UpstreamConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.interactions import block
from lfm4ads_tf.models import foundation, mmoe
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.models.mmoe import MMoE

Upstream: TypeAlias = FoundationModel | MMoE


def layer_names(config: UpstreamConfig, tasks: Sequence[str]) -> list[str]:
    """Names of the configured upstream's activations, in order; each can be a CR's layer.

    Raises:
        UserError: A task's name cannot be part of a layer's name.
    """
    mixed = config.model == "mmoe" or config.network.block.structure == "gated"
    for task in tasks if mixed else ():
        # The name is part of a method, where + & / @ separate, and of a folder.
        if not re.fullmatch(r"[\w.-]+", task):
            raise UserError(
                "A task's name is part of the name of its mixture, which is a layer here.",
                received=repr(task),
                fix="rename the task, using letters, digits, '_', '-' and '.' alone",
            )
    if config.model == "mmoe":
        return mmoe.layer_names(tasks)
    names = block.layer_names(config.network.block, tasks)
    return foundation.branch_layers(names) if config.branches else names
