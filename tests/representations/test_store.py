from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.data.splits import AUXILIARY, TEST, TRAIN, VALID
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.representations.store import RepresentationStore
from lfm4ads_tf.representations.writer import RepresentationWriter

KEYS = ["a", "b", "c", "d"]


class Log:
    """What `lookup` reads of a cache."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.user = rng.integers(0, len(KEYS), 40).astype(np.int32)
        self.item = rng.integers(0, len(KEYS), 40).astype(np.int32)
        self.period = np.sort(rng.integers(-1, 6, 40)).astype(np.int32)
        held_out = rng.choice(np.array([TRAIN, VALID, TEST], np.int8), 40)
        self.split = np.where(self.period < 0, AUXILIARY, held_out).astype(np.int8)

    def keys(self, side: str) -> pa.Array:
        return pa.array(KEYS if side == "user" else KEYS[::-1])


def write(folder: Path, seed: int, mode: str) -> list[dict[str, Any]]:
    """A version with random parts; returns them as plain entries."""
    rng = np.random.default_rng(seed)
    writer = RepresentationWriter(folder)
    entries = []
    for name in ("UR", "CR_item@cross_1"):
        for state in ("train", "daily"):
            for valid_from in range(0 if state == "train" else 2, 6):
                keys = [k for k in [*KEYS, "gone"] if rng.random() < 0.4]
                vectors = rng.normal(size=(len(keys), 2)).astype(np.float32)
                where = {"valid_from": valid_from, "period": str(valid_from), "state": state}
                writer.add(name, pa.array(keys, pa.string()), vectors, **where)
                entries += [
                    {"name": name, "key": k, "vector": v, **where}
                    for k, v in zip(keys, vectors, strict=True)
                ]
    writer.close({"version": "1", "mode": mode})
    return entries


def as_of(
    entries: list[dict[str, Any]], name: str, key: str, row: SimpleNamespace, mode: str, daily: bool
) -> list[float]:
    mine = [e for e in entries if e["name"] == name and e["key"] == key]
    trained = [e for e in mine if e["state"] == "train"]
    held_out = row.split in (VALID, TEST)
    limit = math.inf if held_out or mode == "static" else row.period
    seen = [e for e in trained if e["valid_from"] <= limit]
    if daily and held_out and mode != "static":
        # Daily parts follow all training parts, whatever their period.
        seen += [e for e in mine if e["state"] == "daily" and e["valid_from"] <= row.period]
    return [*seen[-1]["vector"].tolist(), 1.0] if seen else [0.0, 0.0, 0.0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["daily", "static"]), st.booleans())
def test_lookup_is_as_of_the_rows_period(
    tmp_path_factory: pytest.TempPathFactory, seed: int, mode: str, daily: bool
) -> None:
    folder = tmp_path_factory.mktemp("version")
    entries, log = write(folder, seed, mode), Log(seed)
    store = RepresentationStore(folder)
    assert store.dims == {"UR": 2, "CR_item@cross_1": 2}
    names = ["UR", "CR_item@cross_1"]
    join = store.lookup(log, names, "daily" if daily else "frozen")  # type: ignore[arg-type]
    rows = np.random.default_rng(seed).permutation(40)
    found = join(rows)
    for k, r in enumerate(rows):
        row = SimpleNamespace(split=log.split[r], period=log.period[r])
        user, item = KEYS[log.user[r]], KEYS[::-1][log.item[r]]
        for name, key in (("UR", user), ("CR_item@cross_1", item)):
            expected = as_of(entries, name, key, row, mode, daily)
            np.testing.assert_array_equal(found[name][k], np.array(expected, np.float32))


def test_frozen_is_the_last_training_state(tmp_path: Path) -> None:
    entries = write(tmp_path, 5, "daily")
    keys, vectors = RepresentationStore(tmp_path).frozen("UR")
    expected = {
        e["key"]: e["vector"] for e in entries if e["name"] == "UR" and e["state"] == "train"
    }
    assert sorted(keys.to_pylist()) == sorted(expected)
    for key, vector in zip(keys.to_pylist(), vectors, strict=True):
        np.testing.assert_array_equal(vector, expected[key])


def test_an_unknown_representation_is_named(tmp_path: Path) -> None:
    write(tmp_path, 0, "daily")
    store = RepresentationStore(tmp_path)
    with pytest.raises(UserError, match="Did you mean 'CR_item@cross_1'"):
        store.lookup(Log(0), ["CR_item@cross_2"])  # type: ignore[arg-type]
