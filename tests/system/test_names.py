"""Scenarios whose names meet as folders, and a column that is called as one of ours."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
import pytest
import yaml

from lfm4ads_tf.export import exporter, stage
from lfm4ads_tf.export.blessing import file_digests
from lfm4ads_tf.export.clean_process import CleanProcess
from lfm4ads_tf.file_names import file_name

SCENARIOS = ("home/feed", "home_feed", "..")
FEATURES = {
    "user_id": {"owner": "user", "kind": "vocabulary"},
    "item_id": {"owner": "item", "kind": "vocabulary"},
    "row": {"owner": "context", "kind": "vocabulary"},
    "surface": {"owner": "context", "kind": "vocabulary"},
}


@pytest.fixture(scope="module")
def named_run(
    cli: Callable[..., Any],
    small: list[str],
    shop_module: dict[str, Any],
    shop_yaml: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The shop with these scenarios and the raw column `row`, as far as exports."""
    folder = tmp_path_factory.mktemp("names")
    place = shop_module["COLUMNS"].split(",").index("surface")
    rows = shop_module["shop_rows"](1200)
    for k, row in enumerate(rows):
        row[place] = SCENARIOS[k % 3]
    (folder / "data").mkdir()
    path = shop_module["write_shop"](folder / "data", rows)
    path.write_text(path.read_text("utf-8").replace(",position,", ",row,", 1), "utf-8")
    spec = yaml.safe_load(shop_yaml) | {"features": FEATURES}
    (folder / "shop.yaml").write_text(yaml.safe_dump(spec), "utf-8")
    out = folder / "runs" / "out"
    options = ["--spec", folder / "shop.yaml", *small, "--out", out]
    options += ["--set", "downstream.min_rows=50", "--set", "downstream.methods=[none]"]
    options += ["--set", "retrieval.enabled=false", "--set", "upstream.training.passes=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            exporter, "verify_export", lambda staged, **_: {"files": file_digests(staged)}
        )  # by processes of its own; other tests have it
        patch.setattr(CleanProcess, "start", lambda self: None)
        # the models that are named by their scenario
        patch.setattr(stage._Exports, "is_due", lambda self, name, _: name.startswith("ranker_"))
        for command in ("prepare", "pretrain", "transfer", "evaluate", "export"):
            more = ["--data-dir", folder / "data"] if command == "prepare" else []
            done = cli(command, *options, *more)
            assert done.code == 0, done.text
    # nothing lies beside the run, nor beside what belongs to scenarios
    assert {p.name for p in folder.iterdir()} == {"data", "shop.yaml", "runs"}
    assert [p.name for p in (folder / "runs").iterdir()] == ["out"]
    return out


@pytest.mark.slow
def test_every_scenario_has_models_and_results_of_its_own(
    named_run: Path, entry_key: Callable[[dict[str, Any]], tuple[Any, ...]]
) -> None:
    folders = {p.name for p in (named_run / "downstream").iterdir()}
    assert folders == {"home~2Ffeed", "home_feed", "~2E."}
    found = json.loads((named_run / "metrics.json").read_text("utf-8"))
    keys = Counter(entry_key(e) for e in found["results"])
    assert set(keys.values()) == {1}
    trained = {e["scenario"] for e in found["results"] if e["stage"] == "downstream"}
    assert trained == set(SCENARIOS)
    for folder in (named_run / "downstream").iterdir():
        stored = json.loads((folder / "none" / "seed_0" / "results.json").read_text("utf-8"))
        (scenario,) = {e["scenario"] for e in stored["entries"]}
        assert file_name(scenario) == folder.name


@pytest.mark.slow
def test_every_ranker_is_exported_and_predicts_under_its_own_name(
    cli: Callable[..., Any], named_run: Path, tmp_path: Path
) -> None:
    exports = {p.name for p in (named_run / "exports").iterdir() if p.name.startswith("ranker_")}
    assert exports == {"ranker_home~2Ffeed", "ranker_home_feed", "ranker_~2E."}
    table = arrow_csv.read_csv(named_run.parents[1] / "data" / "shop.csv")
    source = tmp_path / "rows.parquet"
    pq.write_table(table.filter(np.array(table["day"]) == 20260107), source)
    surface = pq.read_table(source)["surface"].to_pylist()
    different = {}
    for scenario in SCENARIOS:
        scores = []
        for model in (f"ranker_{scenario}", f"ranker_{file_name(scenario)}"):
            target = tmp_path / "scores.parquet"
            done = cli(
                "predict", "--out", named_run, "--model", model, "--input", source,
                "--output", target,
            )  # fmt: skip
            assert done.code == 0, done.text
            scores.append(pq.read_table(target)["score"].to_numpy().reshape(-1, 2))
        np.testing.assert_array_equal(*scores)
        folder = named_run / "downstream" / file_name(scenario) / "none" / "seed_0"
        stored = np.load(folder / "predictions.npz")["test_frozen"]
        mine = np.array([s == scenario for s in surface])
        np.testing.assert_allclose(scores[0][mine], stored, rtol=0, atol=1e-6)
        different[scenario] = scores[0]
    assert np.abs(different["home/feed"] - different["home_feed"]).max() > 1e-3
    refused = cli(
        "predict", "--out", named_run, "--model", "ranker_home feed", "--input", source,
        "--output", tmp_path / "scores.parquet",
    )  # fmt: skip
    assert refused.code == 2
    assert all(f"ranker_{scenario}" in " ".join(refused.err.split()) for scenario in SCENARIOS)


@pytest.mark.slow
def test_a_server_answers_for_that_scenario_under_the_escaped_name(
    cli: Callable[..., Any], named_run: Path, tmp_path: Path
) -> None:
    from lfm4ads_tf.export.local_server.server import LocalServer

    name = "ranker_home~2Ffeed"
    with LocalServer(model_name=name, model_base_path=named_run / "exports" / name) as server:
        for address in (f"grpc://{server.grpc_address}", server.rest_address):
            cli(
                "check-skew", "--out", named_run, "--model", "ranker_home/feed",
                "--input", named_run.parents[1] / "data" / "shop.csv", "--server", address,
                "--json", tmp_path / "skew.json", "--quiet",
            )  # fmt: skip
            report = json.loads((tmp_path / "skew.json").read_text("utf-8"))
            (tmp_path / "skew.json").unlink()
            assert report["rows"] == 400 and not report["skew"]
            assert [s["name"] for s in report["scores"]] == ["click", "order"]
            assert all(s["largest"] <= 1e-6 for s in report["scores"])
