"""Ids of equal unique counts at every size, and the result of a tiny plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import scale
from benchmarks.scale_report import BOUNDS, ratios
from benchmarks.scale_worker import Case, Ids, draw_ids, stride_of, unique_ids

KINDS: tuple[Ids, ...] = ("zipf", "uniform")


@given(rows=st.integers(1, 3000), shift=st.integers(0, 3000))
def test_the_ids_of_ranks_are_distinct_and_lie_all_over_the_table(rows: int, shift: int) -> None:
    ids = (np.arange(rows) * stride_of(rows) + shift) % rows
    assert len(np.unique(ids)) == rows
    if rows >= 1000:  # the first 50 ranks reach every tenth of the table
        assert len(np.unique(ids[:50] * 10 // rows)) == 10


@given(
    features=st.integers(1, 4),
    ranks=st.integers(1, 40),
    larger=st.lists(st.integers(1, 500), min_size=1, max_size=3),
    seed=st.integers(0, 5),
)
def test_unique_counts_are_equal_at_every_size(
    features: int, ranks: int, larger: list[int], seed: int
) -> None:
    case = Case(features, ranks, 16, batches=3, ranks=ranks)
    small = draw_ids(case, "zipf", seed)
    for extra in larger:
        grown = replace(case, rows=ranks + extra)
        ids = draw_ids(grown, "zipf", seed)
        assert ids.min() >= 0 and ids.max() < grown.rows
        for one, other in zip(small, ids, strict=True):
            for column in range(features):
                _, same = np.unique(one[:, column], return_counts=True)
                _, counts = np.unique(other[:, column], return_counts=True)
                assert sorted(same) == sorted(counts)
        assert unique_ids(grown, ids) == unique_ids(case, small)


def test_zipf_ids_have_the_frequencies_of_their_ranks() -> None:
    case = Case(1, 1000, 5000, batches=20, ranks=4)
    _, counts = np.unique(draw_ids(case, "zipf"), return_counts=True)
    weights = np.arange(1, 5) ** -1.2
    expected = weights / weights.sum()
    assert np.sort(counts)[::-1] / counts.sum() == pytest.approx(expected, abs=0.01)


def test_features_read_the_same_rows_however_these_are_dealt() -> None:
    found = []
    for features in (2, 3, 12):
        case = Case(
            features, 120 // features, 48 // features, batches=2, ranks=10, parts=12 // features
        )
        bags = replace(case, batch=4, bags=True)
        first = np.arange(features) * case.rows
        for kind in KINDS:
            ids, bag_ids = draw_ids(case, kind), draw_ids(bags, kind)
            assert ids.shape == (2, 48 // features, features)
            assert bag_ids.shape == (2, 4, features, 12 // features)
            for rows in (ids + first, bag_ids + first[:, np.newaxis]):
                found.append((kind, [np.sort(batch, axis=None).tolist() for batch in rows]))
    for kind in KINDS:
        one, *others = [rows for of, rows in found if of == kind]
        assert all(rows == one for rows in others)


TINY = scale.Plan(
    rows=(400, 4000),
    features=(2, 4),
    encode=(20,),
    sets=(2,),
    width=4,
    dim=4,
    batch=16,
    units=(8,),
    rank=2,
    set_rows=50,
    feature_rows=400,
    stretches=8,
    total_ids=64,
    batches=10,
    input_rows=5000,
    rounds=2,
    warmup=0,
    turn_seconds=0.001,
    encode_repeats=2,
)


@pytest.mark.slow
def test_result_of_a_tiny_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scale, "plan_of", lambda _: replace(TINY, folder=tmp_path))
    path = tmp_path / "folder" / "result.json"
    assert scale.main(["--json", str(path)]) == 0
    result = json.loads(path.read_text("utf-8"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"], "saved tables are removed"

    def positive(entry: Mapping[str, Any], *names: str) -> None:
        assert all(entry[name] > 0 for name in names), entry

    steps = ("step_ms", "uniform_step_ms", "sparse_ms", "uniform_sparse_ms", "unique_ids")
    assert list(result["rows"]) == ["400", "4000"]
    for size, entry in result["rows"].items():
        positive(entry, *steps, "start_s", "save_s", "restore_s", "peak_gb", "peak_over_gb")
        rows = int(size) + 4  # and the missing ids'
        assert entry["table_gb"] == pytest.approx(rows * 4 * 4 / 1e9)
        assert entry["slots_gb"] == pytest.approx(rows * 4 / 1e9)
        assert entry["peak_gb"] >= entry["steps_peak_gb"] >= entry["start_peak_gb"]
        assert set(entry["spread"]) == set(steps) - {"unique_ids"}
    assert result["rows"]["400"]["unique_ids"] == result["rows"]["4000"]["unique_ids"]
    assert list(result["features"]) == ["2", "4"]
    for entry in result["features"].values():
        positive(entry, *steps)
        positive(entry["same_batch"], "batch", "ids_per_bag", "sparse_ms")
    assert result["features"]["2"]["batch"] == 32 and result["features"]["4"]["batch"] == 16
    positive(result["encode"]["20"], "rows_per_s", "batch1_ms", "trace_s", "speedup")
    sets = result["sets"]["2"]
    assert sets["speedup"] == pytest.approx(sets["separate_ms"] / sets["one_ms"])
    positive(result, "input_examples_per_s", "training_examples_per_s")
    assert set(result["ratios"]) == set(BOUNDS)
    assert result["ratios"]["rows_100m_over_10m"] is None
    assert "not measured" in capsys.readouterr().out


def test_ratios_are_those_of_the_bounds() -> None:
    def step(ms: float) -> dict[str, float]:
        return {"step_ms": ms, "peak_over_gb": ms / 10}

    result = {
        "rows": {"10000000": step(10.0), "100000000": step(12.0)},
        "features": {"100": step(20.0), "1000": step(25.0)},
        "encode": {"2000": {"encoding_speedup": 5.0}},
        "sets": {"4": {"speedup": 3.0}},
        "input_examples_per_s": 60.0,
        "training_examples_per_s": 10.0,
    }
    assert ratios(result) == {
        "rows_100m_over_10m": pytest.approx(1.2),
        "features_1000_over_100": pytest.approx(1.25),
        "encode_2000_speedup": 5.0,
        "input_over_training": 6.0,
        "sets_4_speedup": 3.0,
        "peak_over_gb": pytest.approx(1.2),
    }


@pytest.mark.parametrize("what", ["memory", "disk"])
def test_lack_of_space_is_told(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = 5.0 if what == "memory" else 50.0
    monkeypatch.setattr(scale, "_free_memory_gb", lambda: memory)
    usage = type("Usage", (), {"free": 3e9})
    monkeypatch.setattr(scale.shutil, "disk_usage", lambda _: usage)
    result = tmp_path / "result.json"
    assert scale.main(["--json", str(result), "--folder", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "100,000,000 rows" in said and "--quick" in said
    assert ("5.0 GB of free memory" if what == "memory" else "3.0 GB free") in said
    assert not result.exists()
