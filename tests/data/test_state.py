from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lfm4ads_tf.data.state import (
    FrozenState,
    join_keys,
    request_columns,
    statistic_key,
    write_sequence,
)
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.offline import encode_columns


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


def test_a_raw_number_is_the_same_key_in_every_storage(ads: Any) -> None:
    """A column that a feature reads as numbers keys a statistic by the text of its file."""
    texts = ["0.1", "16777217", "10000000000", "2.5", "1e-05", "0", None]
    values = [None if t is None else float(t) for t in texts]
    exact = pa.array(values)
    single = pa.array(values, pa.float32()).cast(pa.float64())  # as a file of 32 bits is read
    keys = [statistic_key(ads.spec, "hour", {"hour": c}, {}).to_pylist() for c in (exact, single)]
    assert keys[0] == texts
    assert keys[1] == [*texts[:1], "16777216", *texts[2:]]


@pytest.mark.parametrize("split", [1, 2])
def test_requests_complete_held_out_rows_to_exactly_the_cached_values(ads: Any, split: int) -> None:
    """No skew: what a new row is completed to is what the cache holds for the same keys."""
    rows = np.flatnonzero(ads.raw.split == split)
    index = pa.array(rows)
    columns = {name: array.take(index) for name, array in ads.raw.columns.items()}
    encoder = Encoder(ads.spec, FittedEncoding.load(ads.folder / "encoding"))
    moving = request_columns(ads.spec, FrozenState(ads.folder / "state"), columns, encoder)
    encoded = encode_columns(encoder, {**columns, **moving})
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
