"""What the files of tables need to know of the optimizer that keeps slots beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from lfm4ads_tf.embeddings.table import ShardedEmbedding


class TableSlots(Protocol):
    """An optimizer as the files see it: slots that are cut like the tables, and their rule."""

    @property
    def rule(self) -> SlotRule:
        """The rule that reads and writes the slots."""

    def slot(self, layer: ShardedEmbedding, physical: str, name: str) -> Any:
        """A slot of a physical table, for `ShardedEmbedding.read_rows`.

        Args:
            layer: The layer of the table.
            physical: Name of one of its physical tables.
            name: Name of the slot.
        """


class SlotRule(Protocol):
    """The name of an update rule and the slots that it keeps per row."""

    @property
    def name(self) -> str:
        """Name of the rule."""

    @property
    def slots(self) -> Sequence[RowSlot]:
        """The slots, in order."""


class RowSlot(Protocol):
    """One slot of a rule."""

    @property
    def name(self) -> str:
        """Name within the rule."""

    @property
    def per_element(self) -> bool:
        """Whether there is one float per element, else one per row and set."""
