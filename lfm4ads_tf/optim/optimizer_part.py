"""One optimizer of an objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.training.config import OptimizerConfig


@dataclass(frozen=True)
class OptimizerPart:
    """Which variables an optimizer moves, and which losses they are moved by.

    Attributes:
        config: Rates, rule and bounds; `clip_norm` bounds the norm over the part's own gradients.
        name: Name of its slots in a checkpoint of several optimizers.
        takes: Path of a variable -> whether it is moved by this optimizer, such as
            `optim.variable_paths.within("heads")`. The path of tables is their layer's name. None
            takes all that no other one does.
        losses: Names of the losses whose sum it minimises; None is all.
        optimizer: The optimizer itself, whose own numbers then hold; made from `config` when
            absent.
    """

    config: OptimizerConfig = OptimizerConfig()
    name: str = "hybrid_optimizer"
    takes: Callable[[str], bool] | None = None
    losses: tuple[str, ...] | None = None
    optimizer: HybridOptimizer | None = None
