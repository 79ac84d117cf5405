from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from lfm4ads_tf.data.splits import AUXILIARY, SPLITS
from lfm4ads_tf.pipeline.scoring import Slices

TRAIN, TEST = SPLITS["train"], SPLITS["test"]
#          user, item, split
ROWS = [(0, 0, TRAIN), (0, 0, TRAIN), (1, 1, TRAIN), (2, 2, AUXILIARY)]
ROWS += [(0, 0, TEST), (1, 2, TEST), (2, 1, TEST), (3, 0, TEST)]


def slices_of(rows: list[tuple[int, int, int]]) -> dict[str, list[int]]:
    """Slice -> users of its test rows."""
    user, item, split = np.array(rows).T
    cache = SimpleNamespace(user=user, item=item, split=split)
    slices = Slices(cache, SimpleNamespace(thresholds={"cold_item": 0, "light_user": 1}))
    test = np.flatnonzero(split == TEST)
    return {name: user[test[mask]].tolist() for name, mask in slices.of(test)}


def test_slices_by_hand() -> None:
    """User 2 has an auxiliary row only: light, as no training row counts, but not cold."""
    assert slices_of(ROWS) == {
        "all": [0, 1, 2, 3],
        "cold_item": [1],
        "warm_item": [0, 2, 3],
        "light_user": [1, 2, 3],
        "cold_user": [3],
        "warm_user": [0, 1, 2],
    }


def test_a_log_without_cold_users_has_no_slice_of_them() -> None:
    assert list(slices_of(ROWS[:-1])) == ["all", "cold_item", "warm_item", "light_user"]
