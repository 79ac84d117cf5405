from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lfm4ads_tf.data.state import FrozenState, join_keys, request_columns, write_sequence
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitting import FittedEncoding


def test_sequence_round_trip(tmp_path: Path) -> None:
    items = pa.array([["i1", "i2"], [], ["i3"]], pa.list_(pa.string()))
    write_sequence(tmp_path, "clicked", pa.array(["a", "b", "c"]), items)
    users = pa.array(["c", "unknown", "a", "b"])
    assert FrozenState(tmp_path).sequence("clicked", users).to_pylist() == [
        ["i3"],
        [],
        ["i1", "i2"],
        [],
    ]


def test_joined_keys_stay_apart() -> None:
    joined = join_keys([pa.array(["a", "ab", None]), pa.array(["bc", "c", "x"])]).to_pylist()
    assert len(set(joined)) == 3 and joined[2] is None


@pytest.mark.parametrize("split", [1, 2])
def test_requests_complete_held_out_rows_to_exactly_the_cached_values(ads: Any, split: int) -> None:
    """No skew: what a new row is completed to is what the cache holds for the same keys."""
    rows = np.flatnonzero(ads.raw.split == split)
    index = pa.array(rows)
    columns = {name: array.take(index) for name, array in ads.raw.columns.items()}
    encoder = Encoder(ads.spec, FittedEncoding.load(ads.folder / "encoding"))
    moving = request_columns(ads.spec, FrozenState(ads.folder / "state"), columns, encoder)
    encoded = encoder.encode_numpy({**columns, **moving})
    cached = ads.cache.take(rows, "frozen")
    assert np.array_equal(encoded["ids"], cached["ids"])
    assert np.array_equal(encoded["dense"], cached["dense"])
    assert np.array_equal(encoded["scenario"], cached["scenario"])
    for name, bag in cached["bags"].items():
        values, splits, weights = encoded["bags"][name]
        assert np.array_equal(values, bag.values), name
        assert np.array_equal(splits, bag.splits), name
        assert (weights is None) == (bag.weights is None)
        if weights is not None:
            assert np.array_equal(weights, bag.weights)
