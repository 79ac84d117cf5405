"""Weighted sums by key against a loop, with SciPy's own routine and without it."""

from __future__ import annotations

import numpy as np
import pytest

from lfm4ads_tf.representations import key_sums
from lfm4ads_tf.representations.aggregations.event_groups import EventGroups, by_key
from lfm4ads_tf.representations.key_sums import KeySums
from tests.rounding import assert_close

pytestmark = pytest.mark.processor


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_sums_are_those_of_a_loop(
    own: bool, dtype: type[np.integer], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not own:
        monkeypatch.setattr(key_sums, "csc_matvecs", None)
    rng = np.random.default_rng(0)
    key = rng.integers(0, 20, 60).astype(dtype)
    weight = rng.random(60) * rng.integers(0, 2, 60)
    values = rng.normal(size=(60, 7)).astype(np.float32)
    table = rng.normal(size=(30, 7)).astype(np.float32)
    expected, sizes = table.astype(np.float64), np.abs(table).astype(np.float64)
    for k, w, v in zip(key, weight, values, strict=True):
        expected[k] += w * v
        sizes[k] += w * np.abs(v)
    values[weight == 0] = np.nan  # they are not read
    sums = KeySums(key, weight)
    sums.add_to(table, values)
    assert_close(table, expected, terms=60, magnitude=sizes)
    assert sums.keys.tolist() == np.unique(key[weight != 0]).tolist()


def test_a_constant_of_many_events_keeps_its_mean() -> None:
    """One float32 sum of 200,000 equal vectors would be off by more than 1e-4."""
    table, value = np.zeros((1, 1), np.float32), np.float32(0.1)
    for _ in range(50):
        KeySums(np.zeros(4000, int), np.ones(4000)).add_to(table, np.full((4000, 1), value))
    assert table[0, 0] / 200_000 == pytest.approx(float(value), rel=1e-4)


@pytest.mark.parametrize("codes", [0, 1, 300, 200_000])
def test_groups_are_those_of_numpy(codes: int) -> None:
    """With few codes and with more than 16 bits hold."""
    key = np.random.default_rng(1).integers(0, max(codes, 1), 500 if codes else 0).astype(np.int32)
    groups = EventGroups(key)
    keys, index, lengths = np.unique(key, return_inverse=True, return_counts=True)
    for ours, theirs in ((groups.keys, keys), (groups.index, index), (groups.lengths, lengths)):
        assert np.array_equal(ours, theirs)
    assert np.array_equal(by_key(key), np.argsort(key, kind="stable"))
    assert np.array_equal(groups.starts, np.cumsum(lengths) - lengths)
