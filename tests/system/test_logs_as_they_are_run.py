"""A run on files as people have them: no header, no time, a file per scenario, keys and a vector
in several columns. New rows in the same form get the scores that the run itself gave them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.spec_check import read_spec
from lfm4ads_tf.pipeline.run import open_run

SURFACES = ("home", "search", "mail")


def _write(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)


@pytest.fixture()
def parts(shop_module: dict[str, Any], shop_yaml: str, tmp_path: Path) -> dict[str, Any]:
    """Spec of the shop's log in this form; its files lie in `tmp_path`, a row of each in order."""
    columns = shop_module["COLUMNS"].split(",")
    rng = np.random.default_rng(1)
    by_surface: dict[str, list[list[str]]] = {surface: [] for surface in SURFACES}
    names: list[str] = []
    for values in shop_module["shop_rows"](900):
        row = dict(zip(columns, values, strict=True))
        surface = row.pop("surface")
        del row["timestamp"], row["day"]
        row["nr"] = row.pop("user_id")[1:]
        row |= {f"taste_{k}": f"{n:.2f}" for k, n in enumerate(rng.normal(size=11))}
        names = list(row)
        by_surface[surface].append(list(row.values()))
    spec: dict[str, Any] = yaml.safe_load(shop_yaml)
    files = {}
    for surface, rows in by_surface.items():
        _write(tmp_path / f"{surface}.csv", rows)
        files[surface] = f"{surface}.csv"
    spec["log"] |= {"files": files, "columns": names}
    spec["keys"] = {"user": ["city", "nr"], "item": "item_id", "time": "none", "shuffle": 4}
    spec["keys"]["scenario"] = "surface"
    spec["split"] = {"per": "all", "by": "time", "fractions": [0.7, 0.15, 0.15]}
    spec["period"] = {"blocks": 8}
    spec["features"]["user_id"]["column"] = "city+nr"
    spec["features"]["taste"] = {"owner": "context", "kind": "pretrained", "columns": "taste_*"}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    return spec


@pytest.mark.slow
def test_new_rows_get_the_scores_of_the_run(
    cli: Callable[..., Any], parts: dict[str, Any], small: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ["--spec", tmp_path / "spec.yaml", "--data-dir", tmp_path, "--out", out, *small]
    done = cli("prepare", *options)
    assert done.code == 0, done.text
    assert "the log has no time: 900 rows are in an order shuffled by the seed 4" in done.text
    made = (out / "data" / "manifest.json").stat().st_mtime_ns
    done = cli("pretrain", *options)  # the same data, although their vector was a pattern before
    assert done.code == 0, done.text
    assert (out / "data" / "manifest.json").stat().st_mtime_ns == made
    run = open_run(out)
    assert run.spec.features["taste"].columns == [f"taste_{k}" for k in range(11)]  # type: ignore[union-attr]
    assert read_spec(out / "config.yaml") == run.spec  # what a client or a check is given
    with pytest.raises(UserError, match="give the `config.yaml` of the run"):
        read_spec(tmp_path / "spec.yaml")
    files = [(tmp_path / f"{s}.csv", s) for s in SURFACES]
    rows = [[*row, s] for path, s in files for row in csv.reader(path.open(newline=""))]
    places = np.random.default_rng(4).permutation(len(rows))
    tested = np.argsort(places)[run.cache.time[run.cache.rows_of("test")].astype(int)]
    _write(tmp_path / "new.csv", [rows[k] for k in tested])
    done = cli(
        "predict", "--out", out, "--model", "foundation", "--input", tmp_path / "new.csv",
        "--output", tmp_path / "scores.parquet",
    )  # fmt: skip
    assert done.code == 0, done.text
    table = pq.read_table(tmp_path / "scores.parquet")
    assert table["scenario"].to_pylist()[::2] == [rows[k][-1] for k in tested]
    stored = np.load(out / "upstream" / "seed_0" / "predictions.npz")["test_frozen"]
    scores = table["score"].to_numpy().reshape(-1, 2)  # (B, T)
    np.testing.assert_allclose(scores, stored, rtol=0, atol=1e-6)
