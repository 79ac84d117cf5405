"""The comparison of exports with smaller tables, on tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.export_tables import STORAGES, measure, table, trained_subject, untrained_subject
from lfm4ads_tf.export.merging import TOLERANCES
from tests.quick_proof import quick_proof


def check_sizes(found: dict[str, Any]) -> None:
    floats = sum(rows * sets * dim for rows, sets, dim in found["widths"])
    scales = sum(rows * sets for rows, sets, _ in found["widths"])
    sizes = {storage: of["table_bytes"] for storage, of in found["tables"].items()}
    assert sizes == {"float32": 4 * floats, "float16": 2 * floats, "int8": floats + 4 * scales}
    for of in found["tables"].values():
        assert of["table_bytes"] < of["export_bytes"]
        assert min(of["session_s"], of["python_s"], of["ms"]) > 0
    assert table(found).row_count == len(STORAGES)


@pytest.mark.slow
def test_an_untrained_model_with_a_large_table(tmp_path: Path) -> None:
    subject = untrained_subject(tmp_path / "log", rows=5000, dim=8, log_rows=3000)
    with quick_proof():
        found = measure(subject, rounds=1, calls=1, warmup=0)
    assert found["rows"] == 512 and "tasks" not in found["tables"]["int8"]
    assert found["widths"][0][0] > 5000
    check_sizes(found)


@pytest.mark.slow
def test_a_trained_model_is_scored_on_its_test_rows(synthetic_run: Path) -> None:
    subject = trained_subject(synthetic_run)
    with quick_proof():
        found = measure(subject, rounds=1, calls=1, warmup=0)
    check_sizes(found)
    assert found["rows"] == len(subject.labels) > 100  # type: ignore[arg-type]
    for storage in STORAGES:
        tasks = found["tables"][storage]["tasks"]
        assert tasks.keys() == set(subject.tasks)
        for values in tasks.values():
            assert values["largest_difference"] <= TOLERANCES[storage]
            assert abs(values["auc_delta"]) <= 0.01
    float32 = found["tables"]["float32"]["tasks"]["click"]
    assert float32["auc_delta"] == 0 and abs(float32["auc_delta_evaluated"]) <= 1e-6
    assert found["tables"]["int8"]["tasks"]["click"]["largest_difference"] > 1e-6
