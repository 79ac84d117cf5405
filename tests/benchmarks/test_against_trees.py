"""The table of upstream and LightGBM against scikit-learn on the stored scores."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.against_trees import lines, markdown
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.files import write_arrays, write_json


def test_lines_are_of_the_stored_scores(ads: Any, tmp_path: Path) -> None:
    out = tmp_path / "small"
    shutil.copytree(ads.folder, out / "data")
    with pytest.raises(UserError, match="no seed with both"):
        list(lines(out))
    cache, rng = ads.cache, np.random.default_rng(0)
    rows = cache.rows_of("test")
    stored: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for place in ("upstream", "baseline/lightgbm"):
        for seed in (0, 2, 10) if place == "upstream" else (0, 10):
            arrays = {"test_rows": rows}
            arrays |= {f"test_{r}": rng.random((len(rows), 2)) for r in ("frozen", "daily")}
            stored[place, seed] = arrays
            write_arrays(out / place / f"seed_{seed}" / "predictions.npz", arrays)
            write_json(out / place / f"seed_{seed}" / "results.json", {})
    found = list(lines(out))
    assert [(line.task, line.refresh) for line in found] == [
        (task, refresh) for task in ("click", "love") for refresh in ("frozen", "daily")
    ]
    for line in found:
        k = cache.layout.tasks.index(line.task)
        known = np.isfinite(cache.labels[rows, k])
        values = {
            place: [
                roc_auc_score(
                    cache.labels[rows[known], k], stored[place, s][f"test_{line.refresh}"][known, k]
                )
                for s in (0, 10)
            ]
            for place in ("upstream", "baseline/lightgbm")
        }
        assert line.upstream == pytest.approx(values["upstream"], abs=1e-12)
        assert line.trees == pytest.approx(values["baseline/lightgbm"], abs=1e-12)
        expected = np.mean(line.upstream) - np.mean(line.trees)
        assert line.difference.value == pytest.approx(expected, abs=1e-12)
        assert line.difference.low < expected < line.difference.high
    table = markdown(found).splitlines()
    assert len(table) == 6 and all(text.count("|") == 9 for text in table)
    assert f"{100 * found[0].difference.value:+.2f} [" in table[2]
