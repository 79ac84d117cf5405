"""What the search chooses, and where it stands in the configuration."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from lfm4ads_tf.interactions.config import LayerConfig
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.strict import StrictModel

Section = TypeVar("Section", bound=StrictModel)

PATHS = {
    "batch_size": "training.batch_size",
    "table_learning_rate": "training.optimizer.table_learning_rate",
    "dense_learning_rate": "training.optimizer.dense_learning_rate",
    "weight_decay": "training.optimizer.weight_decay",
    "table_l2": "training.optimizer.table_l2",
    "dropout": "network.block.layers.dropout",
    "passes": "training.passes",
    "replay": "training.replay",
    "final_passes": "training.final_passes",
    "final_decay": "training.final_decay",
}
"""Setting -> its key below `upstream` or `downstream`."""
SCHEDULE = ("passes", "replay", "final_passes", "final_decay")
"""The settings of the chain, which the schedule `epochs` does not read."""
OF_THE_STEP = ("weight_decay", "table_l2", "dropout")
"""The settings that a model and its traced step hold; the others leave both as they are."""


@dataclass(frozen=True)
class Settings:
    """The settings of one training.

    Attributes:
        batch_size: Rows a step.
        table_learning_rate, dense_learning_rate: Step sizes.
        weight_decay: Decoupled decay of the dense variables.
        table_l2: L2 on the rows that a batch touched.
        dropout: Rate in the hidden layers of the interaction block.
        passes, replay: Passes over each period of the chain, and earlier periods mixed into it.
        final_passes, final_decay: Passes over all training periods after the chain, and the factor
            of the rates from each of them to the next.
    """

    batch_size: int
    table_learning_rate: float
    dense_learning_rate: float
    weight_decay: float = 0.0
    table_l2: float = 0.0
    dropout: float = 0.0
    passes: int = 1
    replay: int = 0
    final_passes: int = 0
    final_decay: float = 1.0

    @classmethod
    def of(cls, part: Any) -> Settings:
        """The settings of `config.upstream` or `config.downstream`."""
        training, optimizer = part.training, part.training.optimizer
        return cls(
            batch_size=training.batch_size,
            table_learning_rate=optimizer.table_learning_rate,
            dense_learning_rate=optimizer.dense_learning_rate,
            weight_decay=optimizer.weight_decay,
            table_l2=optimizer.table_l2,
            dropout=max((_dropout(layer) for layer in _dropping(part.network)), default=0.0),
            passes=training.passes,
            replay=training.replay,
            final_passes=training.final_passes,
            final_decay=training.final_decay,
        )

    def of_the_step(self) -> tuple[float, ...]:
        """Values of `OF_THE_STEP`: settings with the same ones can train one traced model."""
        return tuple(getattr(self, name) for name in OF_THE_STEP)

    def apply(self, part: Section, keep: Collection[str] = ()) -> Section:
        """The part with these settings.

        Layers whose dropouts differ keep them unless the dropout is another one than theirs.

        Args:
            part: `config.upstream` or `config.downstream`.
            keep: Settings that stay as the part has them.
        """
        document = part.model_dump(mode="json")
        current = Settings.of(part)
        for field in fields(self):
            if field.name not in keep and getattr(self, field.name) != getattr(current, field.name):
                _assign(document, PATHS[field.name].split("."), getattr(self, field.name))
        return type(part).model_validate(document)


def has_dropout(network: NetworkConfig) -> bool:
    """Whether the network has layers that read a dropout."""
    return bool(_dropping(network))


def _dropping(network: NetworkConfig) -> list[LayerConfig]:
    """The layers of the block whose options have a dropout."""
    return [layer for layer in network.block.layers if "dropout" in type(layer).model_fields]


def _dropout(layer: LayerConfig) -> float:
    return float(getattr(layer, "dropout"))  # noqa: B009 - a key of some layers


def _assign(document: Any, steps: list[str], value: Any) -> None:
    """Sets a key; a list of layers takes it in those that have it."""
    if isinstance(document, list):
        for layer in document:
            if steps[0] in layer:
                layer[steps[0]] = value
    elif len(steps) == 1:
        document[steps[0]] = value
    else:
        _assign(document[steps[0]], steps[1:], value)
