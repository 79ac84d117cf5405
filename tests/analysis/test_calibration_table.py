"""The calibration table of the report."""

from __future__ import annotations

import re
from typing import Any

from lfm4ads_tf.analysis.calibration_table import calibration_table
from lfm4ads_tf.analysis.result_tables import result_tables
from lfm4ads_tf.analysis.results import Results


def entry(scenario: str, seed: int, prediction: float, error: float | None) -> dict[str, Any]:
    identity = {"stage": "upstream", "scenario": scenario, "task": "click", "method": "upstream"}
    identity |= {"slice": "all", "refresh": "frozen", "split": "test"}
    metrics = {
        "auc": 0.7,
        "calibration": prediction / 0.25,
        "mean_prediction": prediction,
        "mean_label": 0.25,
        "calibration_error": error,
    }
    counts = {"rows": 1200, "positives": 300}
    return {**identity, "seed": seed, **counts, "wall_s": 1.0, "metrics": metrics}


def test_one_row_per_scenario_and_task_with_the_mean_over_seeds() -> None:
    found = [entry("all", 0, 0.2, 0.01), entry("<1>", 0, 0.3, None), entry("all", 1, 0.3, 0.03)]
    results = Results({"results": found, "comparisons": []}, ["<1>"], [])
    rows = [
        re.sub(r"<[^>]+>", " ", r).split()
        for r in re.findall(r"<tr>(.*?)</tr>", calibration_table(results))[1:]
    ]
    assert rows == [
        "all scenarios click 1,200 300 0.2500 ± 0.0707 0.2500 ± 0.0000 1.0000 ± 0.2828 "
        "0.0200 ± 0.0141".split(),
        "&lt;1&gt; click 1,200 300 0.3000 0.2500 1.2000 –".split(),
    ]
    assert calibration_table(results, "valid") == ""
    # These numbers are not repeated among the results.
    assert "calibration_error" not in result_tables(results, "test", {})
