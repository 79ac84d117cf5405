"""What a block will read, as far as a configuration tells."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Self


@dataclass(frozen=True)
class BlockReads:
    """What a block will read, before there are data.

    Attributes:
        fields: The embedded features, in the feature spec's order.
        numbers: The features that are numbers.
        sets: Sets K of the embeddings.
        tasks: The tasks.
        multi_valued: Those of the fields that are pooled from a bag or sequence of values.
        stored: Stored representations that stand beside the fields.
        owners: Owner of each field and number, where it is told.
    """

    fields: Sequence[str]
    numbers: Sequence[str] = ()
    sets: int = 1
    tasks: Sequence[str] = ()
    multi_valued: Collection[str] = ()
    stored: int = 0
    owners: Mapping[str, str] = field(default_factory=dict)

    def without(self, patterns: Sequence[str]) -> Self:
        """What is left without the features that a pattern such as `item_*` matches."""

        def kept(names: Collection[str]) -> list[str]:
            return [n for n in names if not any(fnmatchcase(n, p) for p in patterns)]

        return replace(
            self,
            fields=kept(self.fields),
            numbers=kept(self.numbers),
            multi_valued=kept(self.multi_valued),
        )
