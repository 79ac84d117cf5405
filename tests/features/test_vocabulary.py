from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.features.vocabulary import Vocabulary

VALUES = st.lists(st.sampled_from(["", "a", "b", "ü", "c\nd", "\x1f"]) | st.none(), max_size=40)


@given(VALUES, st.integers(1, 4))
def test_fit_equals_counting_in_order(values: list[str | None], min_count: int) -> None:
    counts: Counter[str] = Counter()
    expected = []
    for row, value in enumerate(values):
        if not value:
            continue
        counts[value] += 1
        if counts[value] == min_count:
            expected.append((value, 10 * row))
    ordinals = 10 * np.arange(len(values))
    fitted = Vocabulary.fit(pa.array(values, pa.string()), ordinals, min_count)
    assert list(zip(fitted.values, fitted.admitted_at.tolist(), strict=True)) == expected


def test_round_trip(tmp_path: Path) -> None:
    vocabulary = Vocabulary(["a\nb", "ü", "\t"], np.array([0, 4, 9], np.int64))
    vocabulary.save(tmp_path / "v.parquet")
    loaded = Vocabulary.load(tmp_path / "v.parquet")
    assert loaded == vocabulary
    assert loaded.admitted_at.dtype == np.int64
    assert loaded != Vocabulary(["a\nb", "ü", "\t"], np.array([0, 4, 8], np.int64))
