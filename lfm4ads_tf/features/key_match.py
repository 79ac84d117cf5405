"""Keys of two sides that are meant to be the same, and why they are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

_EXAMPLES = 3


def _without_zeros(texts: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(texts, "^0+([0-9]+)$", "\\1")


# What makes two texts differ that are meant to be one key -> a form in which they agree.
_CAUSES: dict[str, Callable[[pa.Array], pa.Array]] = {
    "leading zeros": _without_zeros,
    "spaces around the text": pc.utf8_trim_whitespace,
    "capital letters": pc.utf8_lower,
}


@dataclass(frozen=True)
class KeyMatch:
    """Distinct wanted keys against those that something has.

    Attributes:
        wanted: Distinct keys that are looked for, (K,) string.
        known: Keys that are there, (T,) string.
        found: Whether each wanted key is there, (K,) bool.
    """

    wanted: pa.Array
    known: pa.Array
    found: pa.Array

    @classmethod
    def of(cls, wanted: pa.Array, known: pa.Array | pa.ChunkedArray) -> KeyMatch:
        """The match of keys.

        Args:
            wanted: Keys that are looked for, any number of times, (N,) string; null is none.
            known: Keys that are there, (T,) string.
        """
        known = known.combine_chunks() if isinstance(known, pa.ChunkedArray) else known
        distinct = pc.drop_null(pc.unique(wanted))
        return cls(distinct, known, pc.is_in(distinct, value_set=known))

    @property
    def matched(self) -> int:
        """How many of the wanted keys are there."""
        return int(pc.sum(self.found).as_py() or 0)

    def examples(self, wanted: str, known: str) -> str:
        """Three keys of each side without a partner, and what may be the cause.

        Args:
            wanted, known: What the two sides are called.
        """
        left = self.wanted.filter(pc.invert(self.found))
        lonely = self.known.filter(pc.invert(pc.is_in(self.known, value_set=self.wanted)))
        told = f"{wanted} has {_listed(left)}, {known} {_listed(lonely)}"
        for cause, form in _CAUSES.items():
            place = pc.index_in(form(left), value_set=form(lonely))
            count = len(place) - place.null_count
            if count:
                at = pc.index(pc.is_valid(place), True).as_py()
                pair = f"'{left[at]}' against '{lonely[place[at].as_py()]}'"
                return f"{told}; {count} keys are kept apart by {cause} alone ({pair})"
        return told


def _listed(keys: pa.Array) -> str:
    return ", ".join(f"'{key}'" for key in keys[:_EXAMPLES]) or "no other key"
