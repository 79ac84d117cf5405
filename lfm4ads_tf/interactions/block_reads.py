"""What a block will read, as far as a configuration tells."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class BlockReads:
    """What a block will read, before there are data.

    Attributes:
        fields: The embedded features, in the feature spec's order.
        numbers: Whether there are numbers too.
        sets: Sets K of the embeddings.
        tasks: The tasks.
        multi_valued: Those of the fields that are pooled from a bag or sequence of values.
    """

    fields: Sequence[str]
    numbers: bool = False
    sets: int = 1
    tasks: Sequence[str] = ()
    multi_valued: Collection[str] = ()
