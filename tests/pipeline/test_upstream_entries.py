"""The upstream's entries of `metrics.json`: one per scenario, segment, task and slice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.files import write_arrays, write_json
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.continuation import UpstreamContinuation
from lfm4ads_tf.pipeline.intervals import add_intervals, draw_users
from lfm4ads_tf.pipeline.pretrain import Pretraining
from lfm4ads_tf.pipeline.scoring import observed_means
from lfm4ads_tf.pipeline.table_abundance import table_abundances
from lfm4ads_tf.pipeline.training_run import Scores
from lfm4ads_tf.strict import parse

NETWORK = {"block": {"layers": [{"type": "cross", "depth": 1}]}}


def scores_of(run: Any, model: Any) -> Scores:
    vars(run).setdefault("config", RunConfig())
    training = Pretraining(run, 0, "upstream")
    training.model = model
    return training.score(1.0)


def test_a_segment_has_entries_like_a_scenario(
    make_ads: Callable[..., Any], ads_features: Callable[..., Any], tmp_path: Path
) -> None:
    ads = make_ads(
        features=ads_features("user_id", "item_id", "brand", "tab"),
        ads={"by": "brand", "values": ["b1"]},
        segments={"b2": {"by": "brand", "values": ["b2"]}},
    )
    raw = {"upstream": {"network": NETWORK, "branches": True}}
    model = build.upstream(ads.cache.layout, parse(RunConfig, raw, source="run"), seed=0)
    run: Any = SimpleNamespace(cache=ads.cache, spec=ads.spec, upstream=lambda seed: tmp_path)
    scores = scores_of(run, model)
    found = [e for e in scores.entries if e["slice"] == "all"]
    assert {e["scenario"] for e in found} == {"all", "t0", "t1", "b2"}
    stored = scores.predictions
    assert stored is not None
    brand = np.array(ads.raw.columns["brand"].to_pylist(), object)
    for split in ("valid", "test"):
        (entry,) = [
            e
            for e in found
            if (e["scenario"], e["task"], e["split"], e["refresh"])
            == ("b2", "click", split, "frozen")
        ]
        rows = stored[f"{split}_rows"]
        labels = ads.cache.labels[rows, 0]
        chosen = (brand[rows] == "b2") & np.isfinite(labels)
        scores = stored[f"{split}_frozen"][chosen, 0].astype(np.float64)
        values = entry["metrics"]
        assert entry["rows"] == chosen.sum() > 5
        assert values["auc"] == pytest.approx(roc_auc_score(labels[chosen], scores), abs=1e-9)
        assert values["mean_prediction"] == pytest.approx(scores.mean())
        assert values["mean_label"] == pytest.approx(labels[chosen].mean())
        ratio = values["mean_prediction"] / values["mean_label"]
        assert values["calibration"] == pytest.approx(ratio)
        assert values["calibration_error"] >= abs(scores.mean() - labels[chosen].mean()) - 1e-9


def test_without_a_scenario_key_no_entry_stands_twice(
    make_ads: Callable[..., Any], ads_spec: dict[str, Any], tmp_path: Path
) -> None:
    ads_spec["keys"]["scenario"] = ads_spec["auxiliary"] = None
    ads_spec["features"] = {k: ads_spec["features"][k] for k in ("user_id", "item_id", "brand")}
    ads_spec["segments"] = {"b2": {"by": "brand", "values": ["b2"]}}
    ads = make_ads(per_day=20, **ads_spec)
    raw = {"upstream": {"network": NETWORK}}
    model = build.upstream(ads.cache.layout, parse(RunConfig, raw, source="run"), seed=0)
    run: Any = SimpleNamespace(cache=ads.cache, spec=ads.spec, upstream=lambda seed: tmp_path)
    found = scores_of(run, model).entries
    names = ("scenario", "task", "slice", "refresh", "split")
    keys = Counter(tuple(entry[name] for name in names) for entry in found)
    assert set(keys.values()) == {1}
    assert {key[0] for key in keys} == {"all", "b2"}


@pytest.mark.parametrize("output", ["joint", "conditional"])
def test_a_funnel_is_scored_against_what_its_probabilities_are_of(
    make_ads: Callable[..., Any],
    ads_features: Callable[..., Any],
    tmp_path: Path,
    output: str,
) -> None:
    ads = make_ads(features=ads_features("user_id", "item_id"))
    esmm = {"funnel": ["click", "love"], "output": output, "expert_units": [4]}
    config = parse(RunConfig, {"upstream": {"model": "esmm", "esmm": esmm}}, source="run")
    model = build.upstream(ads.cache.layout, config, seed=0)
    run: Any = SimpleNamespace(cache=ads.cache, spec=ads.spec, upstream=lambda seed: tmp_path)
    scores = scores_of(run, model)
    stored = scores.predictions
    assert stored is not None
    (entry,) = [
        e
        for e in scores.entries
        if (e["scenario"], e["task"], e["split"], e["refresh"], e["slice"])
        == ("all", "love", "test", "frozen", "all")
    ]
    assert "targets" not in entry
    # the log has rows with love and without a click, so neither output is of the labels
    assert stored["test_of_targets"].tolist() == [False, True]
    click, love = ads.cache.labels[stored["test_rows"]].T
    if output == "joint":
        of = np.where((click == 0) | (love == 0), 0, click * love)
    else:
        of = np.where(click == 1, love, np.nan)
    known = np.isfinite(of)
    assert entry["rows"] == known.sum() > 5 and entry["positives"] == (of == 1).sum() > 0
    predicted = stored["test_frozen"][known, 1].astype(np.float64)
    assert entry["metrics"]["auc"] == pytest.approx(roc_auc_score(of[known], predicted), abs=1e-9)
    assert entry["metrics"]["mean_label"] == pytest.approx(of[known].mean())


def test_true_probabilities_of_labels_are_held_against_labels_alone(
    make_ads: Callable[..., Any], ads_features: Callable[..., Any], tmp_path: Path
) -> None:
    """The data's p is of an order at all: among clicked rows another order may be the best."""
    ads = make_ads(features=ads_features("user_id", "item_id"))
    truth = np.random.default_rng(0).uniform(size=ads.cache.labels.shape)
    cache = ads.cache
    run: Any = SimpleNamespace(cache=cache, spec=ads.spec, upstream=lambda seed: tmp_path)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cache.__dict__, "best_possible", truth)
        for model in ("mmoe", "esmm"):
            options = (
                {"funnel": ["click", "love"], "output": "conditional"} if model == "esmm" else {}
            )
            upstream = {"model": model, model: {**options, "expert_units": [4]}}
            config = parse(RunConfig, {"upstream": upstream}, source="run")
            scores = scores_of(run, build.upstream(cache.layout, config, seed=0))
            found[model] = {
                e["task"]: e["metrics"]["auc_best_possible"]
                for e in scores.entries
                if (e["scenario"], e["split"], e["refresh"], e["slice"])
                == ("all", "test", "frozen", "all")
            }
    rows = cache.rows_of("test")
    love = cache.labels[rows, 1]
    known = np.isfinite(love)
    best = roc_auc_score(love[known], truth[rows, 1][known])
    assert found["mmoe"]["love"] == pytest.approx(best, abs=1e-9)
    assert found["esmm"] == {"click": found["mmoe"]["click"], "love": None}


def test_a_refreshed_upstream_is_observed_at_the_weights_that_it_ends_with(
    make_ads: Callable[..., Any],
    ads_features: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its held-out rows are scored by earlier weights, which the model then holds."""
    ads = make_ads(features=ads_features("user_id", "item_id"))
    upstream = {"model": "ame", "ame": {"expert_units": [4]}, "embeddings": {"sets": 7}}
    config = parse(RunConfig, {"upstream": upstream}, source="run")
    run: Any = SimpleNamespace(
        cache=ads.cache,
        spec=ads.spec,
        config=config,
        version=2,
        upstream=lambda seed: tmp_path,
    )
    training = UpstreamContinuation(run, run, 0)
    model: Any = build.upstream(ads.cache.layout, config, seed=0)
    training.model = model
    expected = observed_means(model, ads.cache, ads.cache.rows_of("valid"))
    tables = model.all_embeddings
    abundance = table_abundances(tables, ads.cache, training.rows_seen())
    kernel = model.experts.gates.kernel

    def of_earlier_weights(rows: np.ndarray, refresh: str) -> np.ndarray:
        kernel.assign(tf.zeros_like(kernel))
        tables[0].write_table("item_id", np.ones_like(tables[0].read_table("item_id")))
        return np.full((len(rows), len(ads.cache.layout.tasks)), 0.5, np.float32)

    monkeypatch.setattr(training, "probabilities", of_earlier_weights)
    training.score(1.0)
    result: Any = SimpleNamespace(history=[], steps=1, examples_per_s=None)
    report = training.report(result)
    assert report["observed"] == expected and report["abundance"] == abundance
    assert len(set(expected.values())) == len(expected)


def test_scores_that_are_not_of_the_labels_have_no_interval(
    make_ads: Callable[..., Any], ads_features: Callable[..., Any], tmp_path: Path
) -> None:
    ads = make_ads(features=ads_features("user_id", "item_id"))
    esmm = {"funnel": ["click", "love"], "output": "conditional", "expert_units": [4]}
    raw = {"upstream": {"model": "esmm", "esmm": esmm}}
    config = parse(RunConfig, raw, source="run")
    folder = tmp_path / "upstream" / "seed_0"
    run: Any = SimpleNamespace(
        cache=ads.cache, spec=ads.spec, config=config, out=tmp_path, upstream=lambda seed: folder
    )
    scores = scores_of(run, build.upstream(ads.cache.layout, config, seed=0))
    assert scores.predictions is not None
    folder.mkdir(parents=True)
    write_arrays(folder / "predictions.npz", scores.predictions)
    write_json(folder / "results.json", {"entries": scores.entries})
    draws = draw_users(run)
    tasks = {task for _, task, _ in draws if draws["all", task, "test"].names}
    assert tasks == {"click"}
    add_intervals(scores.entries, draws)
    whole = [
        e
        for e in scores.entries
        if (e["scenario"], e["slice"], e["refresh"], e["split"]) == ("all", "all", "frozen", "test")
    ]
    lows = {e["task"]: e["metrics"]["auc_low"] for e in whole}
    assert lows["love"] is None and lows["click"] is not None
