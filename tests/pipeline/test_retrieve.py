"""The retrieval stage on a small synthetic log: all methods, per scenario."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm4ads_tf.config import resolve
from lfm4ads_tf.data.input import batches
from lfm4ads_tf.data.synthetic import SyntheticAdsLog
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.pipeline.evaluate import compare
from lfm4ads_tf.pipeline.extract import extract
from lfm4ads_tf.pipeline.prepare import prepare
from lfm4ads_tf.pipeline.pretrain import pretrain
from lfm4ads_tf.pipeline.retrieval_choice import chosen_retrieval
from lfm4ads_tf.pipeline.retrieval_model import (
    RetrievalModel,
    load_retrieval_model,
    retrieval_methods,
    retrieval_scenarios,
)
from lfm4ads_tf.pipeline.retrieve import retrieve
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.stored_representations import open_store
from lfm4ads_tf.pipeline.trained_models import load_upstream
from lfm4ads_tf.transfer.retrieval.method import POPULARITY
from tests.rounding import assert_close

pytestmark = pytest.mark.slow
SPEC = Path(__file__).resolve().parents[2] / "feature_specs" / "synthetic.yaml"
METHODS = ["model/own", "model/IR*UR", "model/IR*CR_user@dnn_1"]
SETTINGS = {
    "embeddings.dim": 8,
    "upstream.network.user_tower": "[16]",
    "upstream.network.item_tower": "[16]",
    "upstream.network.block.layers": "[{type: dnn, units: [16]}]",
    "upstream.training.batch_size": 128,
    "upstream.training.replay": 2,
    "upstream.training.optimizer.dense_learning_rate": 0.005,
    "retrieval.methods": "[model/own, 'model/IR*UR', 'model/IR*CR_user']",
    "retrieval.scenarios": "[all, feed]",
    "retrieval.k": 30,
    "retrieval.training.batch_size": 64,
    "retrieval.training.epochs": 8,
    "retrieval.training.patience": 3,
    "retrieval.training.optimizer.dense_learning_rate": 0.005,
    "retrieval.projection.batch_size": 64,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("retrieve")
    SyntheticAdsLog(rows=9000, users=250, ads=150, seed=3).write(folder / "log")
    resolved = resolve(SPEC, [f"{k}={v}" for k, v in SETTINGS.items()])
    made = Run(folder / "out", resolved, quiet=True)
    prepare(made, folder / "log")
    pretrain(made, 0)
    extract(made, 0)
    return made


@pytest.fixture(scope="module")
def trained(run: Run) -> list[dict[str, Any]]:
    """Entries of all models; the stored representations stay as they are."""

    def digest() -> str:
        files = sorted(run.representations(0).rglob("*.*"))
        return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()

    before = digest()
    retrieve(run, 0)
    assert digest() == before
    found = []
    for path in sorted((run.out / "retrieval").rglob("results.json")):
        found += json.loads(path.read_text())["entries"]
    return found


def test_every_method_has_entries_where_it_was_trained(trained: list[dict[str, Any]]) -> None:
    feed = {(e["method"], e["split"]) for e in trained if e["scenario"] == "feed"}
    assert feed == {(m, s) for m in (*METHODS, POPULARITY) for s in ("valid", "test")}
    identity = [(e["scenario"], e["method"], e["split"]) for e in trained]
    assert len(set(identity)) == len(identity)  # the model of `all` is not scored in `feed` too
    assert {e["scenario"] for e in trained} == {"all", "feed", "search", "video", "story"}
    for entry in trained:
        assert set(entry["metrics"]) == {"recall@30", "auc"} and entry["rows"] > 0
    compared = compare(trained)
    assert {(c["baseline"], c["method"]) for c in compared} == {
        ("model/own", m) for m in (*METHODS[1:], POPULARITY)
    }


def test_every_method_learns(trained: list[dict[str, Any]]) -> None:
    """30 of 150 items at random find 0.2 of the positives."""
    for method in METHODS:
        values = [
            e["metrics"]["recall@30"]
            for e in trained
            if e["method"] == method and e["scenario"] == "all"
        ]
        assert min(values) > 0.4, (method, values)


def test_ir_is_the_stored_one_and_cold_items_get_the_item_tower(
    run: Run, trained: list[dict[str, Any]]
) -> None:
    method = retrieval_methods(run)[1]
    part = load_retrieval_model(run, "all", method, 0)
    keys, vectors = open_store(run, 0).frozen("IR")
    stored = dict(zip(keys.to_pylist(), vectors, strict=True))
    names = run.cache.keys("item").to_pylist()
    upstream = load_upstream(run, 0)
    items = part.items()
    cold = 0
    for code, row, found in zip(part.candidates.codes, part.candidates.rows, items, strict=True):
        if names[code] in stored:
            assert np.array_equal(found, stored[names[code]])
        else:
            cold += 1
            batch = next(iter(batches(run.cache, np.array([row]), 1)))
            assert_close(found, upstream.represent(batch)["IR"][0], terms=24)
    assert 0 < cold < len(items)
    kernel, bias = (v.numpy() for v in part.model.projection.weights)
    rows = run.cache.rows_of("test")[:20]
    assert part.representations is not None
    source = part.representations(rows)["UR"][:, :-1]
    assert_close(part.users(rows), source @ kernel + bias, terms=24)


def test_training_rows_have_an_ir_of_an_earlier_period(run: Run) -> None:
    part = RetrievalModel(run, "feed", retrieval_methods(run)[1], 0)
    cache = run.cache
    seen: dict[int, int] = {}  # item -> first period
    for item, period in zip(cache.item, cache.period, strict=True):
        seen[int(item)] = min(seen.get(int(item), 10**9), int(period))
    mine = cache.rows_of("train", "feed")
    mine = mine[cache.labels[mine, 0] == 1]
    expected = [r for r in mine if seen[int(cache.item[r])] < cache.period[r]]
    assert part.rows.tolist() == expected
    assert 0 < len(expected) < len(mine)


def test_the_best_on_validation_is_chosen(run: Run, trained: list[dict[str, Any]]) -> None:
    values = {
        e["method"]: e["metrics"]["recall@30"]
        for e in trained
        if e["scenario"] == "all" and e["split"] == "valid"
    }
    chosen = chosen_retrieval(run)
    assert chosen is not None
    assert chosen[0] == "all" and values[chosen[1].name] == max(values.values())


def test_wrong_names_are_refused(run: Run) -> None:
    for key, value in (("scenarios", ["fed"]), ("methods", ["model/IR*UX"]), ("task", "clik")):
        part = run.config.retrieval.model_copy(update={key: value})
        config = run.config.model_copy(update={"retrieval": part})
        other = Run(run.out, run.resolved.model_copy(update={"config": config}), overwrite=True)
        with pytest.raises(UserError, match="Did you mean|unknown"):
            retrieval_scenarios(other)
            for method in retrieval_methods(other):
                RetrievalModel(other, "all", method, 0)
