from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.features.admission import NOT_TRAINING, admit, apply_admission
from lfm4ads_tf.features.layout import FeatureLayout, IdField
from lfm4ads_tf.features.vocabulary import Vocabulary


@given(
    st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 9)), max_size=20),
    st.lists(st.integers(0, 9), min_size=4, max_size=4).map(sorted),
)
def test_equals_the_definition(rows: list[tuple[int, int]], admitted_at: list[int]) -> None:
    ids = np.array([i for i, _ in rows], np.int32)
    ordinals = np.array([t for _, t in rows], np.int64)
    expected = [0 if i >= 1 and admitted_at[i - 1] > t else i for i, t in rows]
    seen = apply_admission(ids, ordinals, np.array(admitted_at))
    assert seen.tolist() == expected
    assert seen.dtype == ids.dtype
    later = np.full(len(ids), NOT_TRAINING)
    assert apply_admission(ids, later, np.array(admitted_at)).tolist() == ids.tolist()


def test_admit_touches_vocabulary_features_only() -> None:
    layout = FeatureLayout(
        fields=(
            IdField("v", "item", "v"),
            IdField("h", "item", "h"),
            IdField("s", "user", "v", "mean"),
            IdField("m", "user", "m", "sum"),
        ),
        dense=(),
        tables=(),
        scenarios=("all",),
        tasks=("click",),
    )
    bag = (np.array([1, 2, 2], np.int32), np.array([0, 2, 2, 3]), None)
    encoded = {
        "ids": np.array([[2, 2], [-1, 2], [2, 2]], np.int32),
        "bags": {"s": bag, "m": bag},
        "dense": np.zeros((3, 0), np.float32),
    }
    vocabulary = Vocabulary(["a", "b"], np.array([0, 5]))
    seen = admit(encoded, layout, {"v": vocabulary}, np.array([4, 4, 5]))
    assert seen["ids"].tolist() == [[0, 2], [-1, 2], [2, 2]]
    assert seen["bags"]["s"][0].tolist() == [1, 0, 2]
    assert seen["bags"]["m"][0].tolist() == [1, 2, 2]
    assert encoded["ids"][0, 0] == 2
