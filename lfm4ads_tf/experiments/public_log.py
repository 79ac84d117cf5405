"""KuaiRand as the public experiment reads it: every field factorised over all rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from lfm4ads_tf.data.raw import load_raw
from lfm4ads_tf.data.splits import SPLITS
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.spec import FeatureSpec


@dataclass(frozen=True)
class PublicLog:
    """All rows in the order of their time.

    Attributes:
        ids: (N, F) int32, row of each field in one table of all fields, users' fields first.
        sizes: Number of values of each field, F of them.
        user_fields: How many of the fields are the user's.
        user: (N,) int32, the user's number.
        tab: (N,) int32, the tab's number.
        tabs: Names of the tabs.
        labels: (N,) float32, is_click.
        split: (N,) int8, see `lfm4ads_tf.data.splits`.
    """

    ids: np.ndarray
    sizes: tuple[int, ...]
    user_fields: int
    user: np.ndarray
    tab: np.ndarray
    tabs: tuple[str, ...]
    labels: np.ndarray
    split: np.ndarray

    @property
    def users(self) -> int:
        """Number of users."""
        return int(self.user.max()) + 1

    def rows(self, split: str, tab: str | None = None) -> np.ndarray:
        """Rows of a split, of one tab or of all, in time order.

        Raises:
            UserError: The tab is unknown.
        """
        chosen = self.split == SPLITS[split]
        if tab is not None:
            if tab not in self.tabs:
                raise UserError(
                    f"The tab '{tab}' is unknown.{nearest(tab, self.tabs)}",
                    fix=f"use some of {', '.join(self.tabs)}",
                )
            chosen &= self.tab == self.tabs.index(tab)
        return np.flatnonzero(chosen)


def read_public_log(spec: FeatureSpec, folder: Path) -> PublicLog:
    """Reads the official files; the ids know the values of test rows, a missing value is one too.

    Args:
        spec: Declares the fields and the split; all features are `vocabulary`.
        folder: Holds the raw tables.

    Raises:
        UserError: A file or column is missing, see `load_raw`.
    """
    raw = load_raw(spec, folder)
    # Theirs go by time alone; ours by date first, which disagrees with the time in a few rows.
    order = np.argsort(raw.time, kind="stable")
    owners = [(name, spec.features[name].owner) for name in spec.features]
    names = [name for side in ("user", "item") for name, owner in owners if owner == side]
    ids = np.empty((raw.rows, len(names)), np.int32)
    sizes: list[int] = []
    for k, name in enumerate(names):
        codes, size = _factorise(raw.columns[name], order)
        ids[:, k] = codes + sum(sizes)
        sizes.append(size)
    scenario = raw.columns[str(spec.keys.scenario)].take(pa.array(order)).dictionary_encode()
    return PublicLog(
        ids=ids,
        sizes=tuple(sizes),
        user_fields=sum(owner == "user" for _, owner in owners),
        user=_factorise(raw.columns[spec.keys.user], order)[0],
        tab=scenario.indices.to_numpy(zero_copy_only=False),
        tabs=tuple(scenario.dictionary.to_pylist()),
        labels=raw.labels[order, 0],
        split=raw.split[order],
    )


def _factorise(column: pa.Array, order: np.ndarray) -> tuple[np.ndarray, int]:
    """Codes by first appearance, (N,) int32, and their number; null is a value."""
    encoded = column.take(pa.array(order)).dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy(zero_copy_only=False), len(encoded.dictionary)
