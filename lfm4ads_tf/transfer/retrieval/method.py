"""Names of retrieval methods, read into what they mean."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from lfm4ads_tf.errors import UserError, nearest

OWN = "model/own"
POPULARITY = "model/popularity"
"""Positives of each item in training: scored beside the methods, never trained or exported."""
_PREFIX = "model/IR*"


@dataclass(frozen=True)
class RetrievalMethod:
    """A parsed retrieval method.

    Attributes:
        name: As in results.
        source: The representation on the user side, None for own towers.
    """

    name: str
    source: str | None = None

    @property
    def sources(self) -> list[str]:
        """Stored representations that training reads."""
        return [] if self.source is None else [self.source, "IR"]


def parse_retrieval_method(name: str, stored: Collection[str]) -> RetrievalMethod:
    """Reads `model/own`, `model/IR*UR` or `model/IR*CR_user@<layer>`.

    `model/IR*CR_user` means the last layer that is stored.

    Args:
        name: The method.
        stored: Names of all representations that the run stores, layers in their order.

    Raises:
        UserError: The form or the representation is unknown.
    """
    if name == OWN:
        return RetrievalMethod(name)
    users = [n for n in stored if n == "UR" or n.startswith("CR_user@")]
    source = name.removeprefix(_PREFIX)
    if source == "CR_user":
        plain = [n for n in users if n.startswith("CR_user@") and "~" not in n]
        source = plain[-1] if plain else source
    if not name.startswith(_PREFIX) or source not in users:
        known = [OWN, *[_PREFIX + n for n in users]]
        raise UserError(
            f"The retrieval method '{name}' is unknown.{nearest(name, known)}",
            fix=f"use one of {', '.join(known)}",
        )
    return RetrievalMethod(_PREFIX + source, source)
