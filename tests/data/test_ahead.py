from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.data.ahead import ahead_rows
from lfm4ads_tf.data.splits import AUXILIARY, TEST, TRAIN, VALID


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_equals_the_definition(seed: int, auxiliary: bool) -> None:
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(3, 40))
    period = np.sort(rng.integers(0, 6, rows))
    cut, late = sorted(rng.choice(np.arange(1, rows), 2, replace=False).tolist())
    split = np.where(np.arange(rows) < cut, TRAIN, np.where(np.arange(rows) < late, VALID, TEST))
    if auxiliary and cut > 1:
        period[0], split[0] = -1, AUXILIARY
    user, item = rng.integers(0, 5, rows), rng.integers(0, 4, rows)
    trained = np.isin(split, (TRAIN, AUXILIARY))
    first, end = period[split == TRAIN].min(), period[split == TRAIN].max() + 1
    expected = set()
    for codes in (user, item):
        for daily in (False, True):
            for p in np.unique(period):
                after = max(p + 1, first) if not daily else p + 1
                for key in np.unique(codes):
                    chosen = (period == p) & (codes == key) & (trained != daily)
                    if chosen.any():
                        expected.add((int(np.flatnonzero(chosen)[-1]), int(after), daily))
        for key in np.unique(codes[trained]):
            last = np.flatnonzero((codes == key) & trained)[-1]
            expected.add((int(last), int(end), False))
    found = ahead_rows(user, item, period, split)
    got = set(zip(found.row.tolist(), found.period.tolist(), found.daily.tolist(), strict=True))
    assert len(got) == len(found.row)
    assert got == expected
