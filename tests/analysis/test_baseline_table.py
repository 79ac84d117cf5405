"""The report's table of baselines shows the numbers of `metrics.json`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lfm4ads_tf.analysis.baseline_table import baseline_table
from lfm4ads_tf.analysis.results import Results
from lfm4ads_tf.baselines.registry import BASELINES


def _baselines(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the upstream's results under the names of two baselines, one seed."""
    upstream = [e for e in document["results"] if e["stage"] == "upstream" and e["seed"] == 0]
    more = [
        {**e, "stage": "baseline", "method": name, "positives": 345, "metrics": {
            **e["metrics"], "auc": e["metrics"]["auc"] - k / 10, "auc_low": 0.25, "auc_high": 0.75}}
        for k, name in enumerate(("lightgbm", "constant"))
        for e in upstream
    ]  # fmt: skip
    return {**document, "results": [*document["results"], *more]}


@pytest.mark.parametrize("split", ["valid", "test"])
def test_every_baseline_has_a_row_per_task(
    document_of: Callable[..., dict[str, Any]], split: str
) -> None:
    document = _baselines(document_of())
    text = baseline_table(Results(document, ["tab 0", "tab 1"], []), split)
    rows = text.split("<tr")[2:]
    assert len(rows) == 4
    for entry in document["results"]:
        place = (entry["stage"], entry["scenario"], entry["slice"], entry["split"])
        if place != ("baseline", "all", "all", split) or entry["refresh"] != "frozen":
            continue
        mine = [r for r in rows if f">{entry['method']}<" in r and f">{entry['task']}<" in r]
        assert len(mine) == 1
        for name in ("auc", "gauc", "logloss", "calibration"):
            assert f">{entry['metrics'][name]:.4f}<" in mine[0]
        assert ">1,000<" in mine[0] and ">345<" in mine[0] and "0.2500 to 0.7500" in mine[0]


def test_without_baselines_there_is_no_table(document_of: Callable[..., dict[str, Any]]) -> None:
    assert baseline_table(Results(document_of(), [], []), "test") == ""


def test_no_baseline_is_picked_as_a_transfer(document_of: Callable[..., dict[str, Any]]) -> None:
    document = document_of()
    best = [
        {**e, "method": name, "metrics": {**e["metrics"], "auc": 0.99}}
        for name in BASELINES
        for e in document["results"]
        if e["stage"] == "downstream" and e["method"] == "none"
    ]
    document["results"] = [*document["results"], *best]
    assert Results(document, ["tab 0"], []).chosen_method("tab 0") not in (None, *BASELINES)
