"""The ablation table against a plain computation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.ablations import GROUPS, AblationTable, main, methods_of
from lfm4ads_tf.errors import UserError


def document(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    results = [
        {
            "stage": "downstream",
            "scenario": scenario,
            "task": "click",
            "method": method,
            "slice": "all",
            "refresh": "frozen",
            "seed": s,
            "split": "test",
            "rows": rows,
            "metrics": {"auc": float(rng.random())},
        }
        for scenario, rows in (("big", 300), ("small", 100), ("segment", 10))
        for method in ("none", "full")
        for s in range(3)
    ]
    return {"results": results, "overall": [{"scenarios": ["big", "small"]}]}


def test_means_are_weighted_by_rows_and_paired_by_seed() -> None:
    one, two = document(0), document(1)
    table = AblationTable({"a": one, "b": two}, task="click", refresh="frozen")
    assert table.scenarios == ["big", "small"]
    auc = {(e["scenario"], e["method"], e["seed"]): e["metrics"]["auc"] for e in two["results"]}
    for seed in range(3):
        expected = (300 * auc["big", "full", seed] + 100 * auc["small", "full", seed]) / 400
        assert table.mean("full [b]")[seed] == pytest.approx(expected)
    lines = table.markdown().splitlines()
    assert lines[0].startswith("| method | seeds | mean AUC | to `none`")
    assert len(lines) == 2 + 4
    own = np.array([table.mean("full [b]")[s] for s in range(3)], float)
    none = np.array([table.mean("none")[s] for s in range(3)], float)
    row = next(line for line in lines if line.startswith("| `full [b]`"))
    assert f"{own.mean():.4f} ± {own.std(ddof=1):.4f}" in row
    assert f"{100 * (own - none).mean():+.2f} ± {100 * (own - none).std(ddof=1):.2f}" in row


def test_groups_list_each_method_once() -> None:
    names = methods_of(list(GROUPS))
    assert len(names) == len(set(names))
    assert set(names) == {m for group in GROUPS.values() for m in group}
    with pytest.raises(UserError, match="group 'x' is unknown"):
        methods_of(["x"])


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(document(0)), "utf-8")
    assert main(["table", str(tmp_path)]) == 0
    assert "`full`" in capsys.readouterr().out
    assert main(["table", str(tmp_path / "nothing")]) == 2
    assert main(["methods", "baselines"]) == 0
    assert capsys.readouterr().out.strip() == "none,feature/linear/UR,full"
