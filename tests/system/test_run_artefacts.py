"""One whole run: its artefacts, and its numbers against scikit-learn and SciPy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import yaml
from scipy.stats import ttest_rel
from sklearn.metrics import log_loss, roc_auc_score

from lfm4ads_tf.baselines.registry import BASELINES
from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.splits import AUXILIARY, TRAIN
from lfm4ads_tf.pipeline.diagnosis import KINDS

pytestmark = pytest.mark.processor

TASKS = ["click", "order"]


@pytest.fixture(scope="module")
def cache(shop_run: Any) -> EncodedCache:
    return EncodedCache(shop_run[0] / "data")


def test_every_artefact_of_the_contract_is_there(shop_run: Any) -> None:
    out, outcome = shop_run
    assert "Traceback" not in outcome.text
    config = yaml.safe_load((out / "config.yaml").read_text("utf-8"))
    assert config["spec"]["name"] == "shop"
    assert config["config"]["upstream"]["network"]["user_tower"] == [8]
    assert config["config"]["upstream"]["training"]["schedule"] == "chain"  # the default stays
    assert json.loads((out / "data" / "manifest.json").read_text())["fingerprint"]
    for seed in (0, 1):
        upstream = out / "upstream" / f"seed_{seed}"
        assert (upstream / "results.json").exists() and (upstream / "predictions.npz").exists()
        assert sorted(int(p.name) for p in (upstream / "snapshots").iterdir()) == [1, 2, 3, 4, 5]
        manifest = json.loads(
            (out / "representations" / f"seed_{seed}" / "manifest.json").read_text()
        )
        stored = manifest["representations"]
        layers = ["towers", "fm", "cross_1", "dnn_1"]
        assert set(stored) == {"UR", "IR"} | {
            f"CR_{side}@{layer}" for side in ("user", "item") for layer in layers
        }
        for name, representation in stored.items():
            for part in representation["parts"]:
                table = pq.read_table(out / "representations" / f"seed_{seed}" / part["file"])
                assert table.num_rows == part["rows"] > 0
                assert table.schema.field("vector").type.list_size == representation["dim"], name
        for method in ("none", "feature~2Flinear~2FUR"):
            assert (out / "downstream" / "home" / method / f"seed_{seed}" / "results.json").exists()
        folder = out / "retrieval" / "all" / "model~2Fown" / f"seed_{seed}"
        assert (folder / "results.json").exists()
    retrieval = ("retrieval_exact", "retrieval_ann")
    for model in ("foundation", "user_tower", "item_tower", "ranker_home", *retrieval):
        folder = out / "exports" / model
        assert [p.name for p in folder.iterdir()] == ["1"]  # no staging folder is left
        assert (folder / "1" / "saved_model.pb").exists()
        blessing = json.loads((folder / "1" / "blessing.json").read_text())
        assert blessing["kind"] == model and blessing["blessed_at"]
    page = (out / "report.html").read_text("utf-8")
    assert "</html>" in page and "feature/linear/UR" in page
    assert list((out / "tensorboard").rglob("events.out.tfevents.*"))
    assert not [p for p in out.rglob(".*") if "staging" in p.name or p.name.startswith(".data")]


def test_the_upstreams_curve_is_of_rows_that_are_not_learnt_yet(
    shop_run: Any, cache: EncodedCache
) -> None:
    """After each period but the last the next one, then validation; no auxiliary rows here."""
    periods = np.unique(cache.period[cache.train_rows])
    sizes = [int((cache.period[cache.train_rows] == p).sum()) for p in periods[1:]]
    for seed in (0, 1):
        folder = shop_run[0] / "upstream" / f"seed_{seed}"
        curve = json.loads((folder / "results.json").read_text("utf-8"))["curve"]
        assert [point["rows"] for point in curve] == [*sizes, len(cache.rows_of("valid"))]
        assert all(0 < point["value"] < 1 for point in curve)
        drawn = []
        for path in (shop_run[0] / "tensorboard" / "upstream" / f"seed_{seed}").iterdir():
            for event in tf.compat.v1.train.summary_iterator(str(path)):
                drawn += [event.step for v in event.summary.value if v.tag == "valid/unlearnt"]
        assert drawn == [point["step"] for point in curve]


def test_only_keys_with_events_in_the_period_are_stored(shop_run: Any, cache: EncodedCache) -> None:
    out, _ = shop_run
    folder = out / "representations" / "seed_0"
    manifest = json.loads((folder / "manifest.json").read_text())
    keys = np.array(cache.keys("user").to_pylist(), object)
    for part in manifest["representations"]["UR"]["parts"]:
        table = pq.read_table(folder / part["file"])
        assert set(table["valid_from"].to_pylist()) == {part["period"]}
        seen = keys[np.unique(cache.user[cache.period == part["valid_from"] - 1])]
        assert sorted(table["key"].to_pylist()) == sorted(seen)
    # After training the other keys' UR are made anew by the final weights, beside the parts.
    (again,) = manifest["representations"]["UR"]["refreshed"]
    last = max(
        p["valid_from"] for p in manifest["representations"]["UR"]["parts"] if p["state"] == "train"
    )
    assert again["valid_from"] == last
    trained = np.isin(cache.split, (TRAIN, AUXILIARY))
    late = trained & (cache.period == last - 1)
    others = set(keys[np.unique(cache.user[trained])]) - set(keys[np.unique(cache.user[late])])
    assert set(pq.read_table(folder / again["file"])["key"].to_pylist()) == others


def test_metrics_json_has_the_documented_form(shop_metrics: dict[str, Any]) -> None:
    assert shop_metrics["schema"] == 1 and shop_metrics["spec"] == "shop"
    assert set(shop_metrics["rows"]) == {"train", "valid", "test"}
    assert sum(shop_metrics["rows"].values()) == 2800
    keys = "stage scenario task method slice refresh seed split rows positives metrics wall_s"
    for entry in shop_metrics["results"]:
        assert set(entry) == set(keys.split())
        assert entry["rows"] or entry["slice"] == "all"
        values, whole = entry["metrics"], (entry["slice"], entry["refresh"]) == ("all", "frozen")
        assert ("auc_low" in values) == (whole and entry["stage"] != "retrieval")
        if values.get("auc_low") is not None:
            low, high = values["auc_low"], values["auc_high"]
            # a constant, and scores that are all in order, have one AUC in every resample
            single = entry["method"] == "constant" or values["auc"] in (0, 1)
            assert 0 <= low <= high <= 1 and (low < high or single)
        assert entry["stage"] in ("upstream", "downstream", "retrieval", "baseline")
        assert entry["refresh"] in ("frozen", "daily") and entry["split"] in ("valid", "test")
        for value in entry["metrics"].values():
            assert value is None or math.isfinite(value)
    stages = {e["stage"] for e in shop_metrics["results"]}
    assert stages == {"upstream", "downstream", "retrieval", "baseline"}
    downstream = [e for e in shop_metrics["results"] if e["stage"] == "downstream"]
    methods = {"upstream", "none", "feature/linear/UR", *BASELINES}
    assert {e["method"] for e in downstream} == methods
    assert {e["method"] for e in shop_metrics["results"] if e["stage"] == "baseline"} == set(
        BASELINES
    )
    assert {e["method"] for e in shop_metrics["summary"]} == methods
    assert isinstance(shop_metrics["retrieval"]["exclude_seen"], bool)
    assert {e["scenario"] for e in downstream} == {"home"}
    slices = {e["slice"] for e in downstream} - {"cold_user", "warm_user"}  # only where they exist
    assert slices == {"all", "cold_item", "warm_item", "light_user"}
    keys = "scenario task slice method baseline split diff_mean diff_sd p seeds".split()
    assert all(set(c) == set(keys) for c in shop_metrics["comparisons"])
    assert shop_metrics["throughput"]["train_examples_per_s"] > 0
    assert shop_metrics["warnings"]
    for said in shop_metrics["warnings"]:
        assert set(said) == {"kind", "scenario", "task", "message", "numbers"}
        assert said["kind"] in KINDS and said["message"]


def _slice(cache: EncodedCache, rows: np.ndarray, name: str) -> np.ndarray:
    """Rows of a slice, from its definition."""
    train = np.flatnonzero(cache.split == TRAIN)
    if name == "all":
        return np.ones(len(rows), bool)
    codes = cache.item if name.endswith("_item") else cache.user
    counts = np.bincount(codes[train], minlength=int(codes.max()) + 1)[codes[rows]]
    if name.endswith("_user") and name != "light_user":
        return (counts == 0) == (name == "cold_user")
    return (counts <= 5) == (name != "warm_item")


def _gauc(labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> float | None:
    """From the pairs of a user's rows; scikit-learn for each user takes seconds."""
    total, weight = 0.0, 0
    for user in np.unique(users):
        mine = users == user
        above, below = scores[mine & (labels == 1)], scores[mine & (labels == 0)]
        if len(above) and len(below):
            gaps = above[:, np.newaxis] - below
            total += mine.sum() * ((gaps > 0) + 0.5 * (gaps == 0)).mean()
            weight += mine.sum()
    return total / weight if weight else None


def test_every_number_is_the_definition_applied_to_the_stored_scores(
    shop_run: Any, shop_metrics: dict[str, Any], cache: EncodedCache
) -> None:
    out, _ = shop_run
    folders = {"upstream": "upstream", "none": "downstream/home/none"}
    folders["feature/linear/UR"] = "downstream/home/feature~2Flinear~2FUR"
    folders |= {name: f"baseline/{name}" for name in BASELINES}
    nulls = checked = 0
    for entry in shop_metrics["results"]:
        if entry["stage"] == "retrieval":
            continue
        stored = np.load(out / folders[entry["method"]] / f"seed_{entry['seed']}/predictions.npz")
        rows = stored[f"{entry['split']}_rows"]
        scores = stored[f"{entry['split']}_{entry['refresh']}"][:, TASKS.index(entry["task"])]
        chosen = _slice(cache, rows, entry["slice"])
        if entry["scenario"] != "all":
            chosen &= cache.scenario[rows] == cache.layout.scenarios.index(entry["scenario"])
        labels = cache.labels[rows[chosen], TASKS.index(entry["task"])]
        scores, users = scores[chosen].astype(np.float64), cache.user[rows[chosen]]
        values = entry["metrics"]
        assert (entry["rows"], entry["positives"]) == (len(labels), labels.sum())
        if len(np.unique(labels)) < 2:
            assert values["auc"] is None and values["gauc"] is None
            nulls += 1
        else:
            assert abs(values["auc"] - roc_auc_score(labels, scores)) <= 1e-9
            expected = _gauc(labels, scores, users)
            assert values["gauc"] == (expected if expected is None else pytest.approx(expected))
            checked += 1
        if len(labels):
            assert values["logloss"] == pytest.approx(log_loss(labels, scores, labels=[0, 1]))
        if labels.sum():
            assert values["calibration"] == pytest.approx(scores.mean() / labels.mean())
        else:
            assert values["calibration"] is None
    assert checked > 20
    assert nulls, "the scenario 'mail' is small enough to have one class in some slice"


def test_comparisons_equal_scipys_paired_test(shop_metrics: dict[str, Any]) -> None:
    def aucs(comparison: dict[str, Any], method: str) -> list[float | None]:
        stage = "downstream"
        if comparison["scenario"] == "all":
            stage = "baseline" if method in BASELINES else "upstream"
        found = {
            e["seed"]: e["metrics"]["auc"]
            for e in shop_metrics["results"]
            if e["stage"] == stage
            and e["method"] == method
            and e["refresh"] == "frozen"
            and all(e[k] == comparison[k] for k in ("scenario", "task", "slice", "split"))
        }
        return [found[seed] for seed in sorted(found)]

    defined = 0
    for comparison in shop_metrics["comparisons"]:
        if comparison["baseline"] == "model/own":  # recall, of retrieval
            assert comparison["method"] == "model/popularity"
            continue
        assert comparison["baseline"] in ("none", "lightgbm")
        assert comparison["method"] != comparison["baseline"]
        if comparison["baseline"] == "lightgbm":
            assert comparison["method"] not in BASELINES
        ours = aucs(comparison, comparison["method"])
        base = aucs(comparison, comparison["baseline"])
        assert len(ours) == len(base) == 2
        if None in ours or None in base:
            assert comparison["diff_mean"] is None and comparison["p"] is None
            continue
        differences = np.subtract(ours, base)
        assert comparison["seeds"] == 2
        assert comparison["diff_mean"] == pytest.approx(differences.mean(), abs=1e-12)
        assert comparison["diff_sd"] == pytest.approx(differences.std(ddof=1), abs=1e-12)
        if differences.std() < 1e-15:  # SciPy leaves the p-value of equal differences undefined
            assert comparison["p"] == (1.0 if abs(differences.mean()) < 1e-15 else 0.0)
            continue
        assert comparison["p"] == pytest.approx(ttest_rel(ours, base).pvalue, rel=1e-6)
        defined += 1
    assert defined >= 4


def test_representations_are_stored_by_the_weights_before_the_period(
    shop_run: Any, tensors: Callable[[Path], dict[str, Any]]
) -> None:
    """Snapshots differ from period to period, and the last one is the final upstream."""
    upstream = shop_run[0] / "upstream" / "seed_0"
    final = tensors(upstream / "weights" / "weights")
    last = tensors(upstream / "snapshots" / "5" / "weights")
    first = tensors(upstream / "snapshots" / "1" / "weights")
    assert all(np.array_equal(final[name], last[name]) for name in final)
    assert any(not np.array_equal(final[name], first[name]) for name in final)
