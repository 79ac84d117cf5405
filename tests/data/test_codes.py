from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.data.codes import combine, factorize


@given(st.lists(st.one_of(st.none(), st.sampled_from(["a", "b", "ü", ""])), max_size=30))
def test_factorize_numbers_texts_by_first_appearance(texts: list[str | None]) -> None:
    codes, dictionary = factorize(pa.array(texts, pa.string()))
    known = list(dict.fromkeys(t for t in texts if t is not None))
    assert dictionary.to_pylist() == known
    assert codes.tolist() == [-1 if t is None else known.index(t) for t in texts]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 30), st.integers(1, 3), st.integers(0, 10_000))
def test_combine_gives_equal_codes_to_equal_tuples_only(rows: int, parts: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns = [rng.integers(-1, 4, rows) * (10**9 if k else 1) for k in range(parts)]
    columns = [np.where(c < 0, -1, c) for c in columns]
    codes, tuples = combine(columns)
    assert tuples.shape[1] == parts
    assert len({tuple(t) for t in tuples.tolist()}) == len(tuples)
    for row in range(rows):
        own = tuple(int(c[row]) for c in columns)
        if -1 in own:
            assert codes[row] == -1
        else:
            assert tuple(tuples[codes[row]].tolist()) == own
