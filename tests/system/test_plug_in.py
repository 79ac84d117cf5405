"""A user's own classes, in a file outside of the package, through the whole command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from lfm4ads_tf.export.local_server.server import LocalServer
from lfm4ads_tf.models.example_batch import example_batch
from lfm4ads_tf.pipeline.run import open_run
from lfm4ads_tf.pipeline.scoring import mean_auc
from lfm4ads_tf.pipeline.trained_models import load_upstream
from tests.plug_ins import plug_ins_forgotten
from tests.rounding import probability_room

pytestmark = pytest.mark.slow

PLUG_IN = Path(__file__).resolve().parents[2] / "examples" / "plug_in.py"
BLOCK = "[{type: side_product}, {type: cross, depth: 1}, {type: dnn, units: [8]}]"
METHODS = [
    "none",
    "feature/scaled/UR+CR_user@side_product",
    "module/warm_start/output",
    "module/warm_start/side_product",
    "module/isomorphic & feature/scaled/IR",
]


@pytest.fixture(scope="module", autouse=True)
def own_classes() -> Iterator[None]:
    """The plug-in's classes are known to the tests of this file alone."""
    with plug_ins_forgotten():
        yield


@pytest.fixture(scope="module")
def options(shop_arguments: list[str]) -> list[str]:
    settings = {
        "plugins": f"[{PLUG_IN}]",
        "upstream.model": "matcher",
        "upstream.matcher": "{weight: 0.5, head_rate: 0.5}",
        "upstream.network.block.layers": BLOCK,
        "upstream.training.loss": "focal",
        "upstream.training.loss_options": "{gamma: 1.0}",
        "downstream.network.block.layers": BLOCK,
        "downstream.adapter_options": "{scaled: {initial: 0.5}}",
        "export.method": "module/isomorphic & feature/scaled/IR",
        "retrieval.enabled": "false",
    }
    given = [part for k, v in settings.items() for part in ("--set", f"{k}={v}")]
    return [*shop_arguments, *given, "--scenarios", "home"]


@pytest.fixture(scope="module")
def run(
    cli: Callable[..., Any], options: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("plug_in") / "run"
    methods = ["--set", f"downstream.methods={json.dumps(METHODS)}"]
    done = cli("run", *options, *methods, "--out", out)
    assert done.code == 0, done.text
    return out


def test_every_method_is_trained_and_scored(run: Path) -> None:
    document = json.loads((run / "metrics.json").read_text("utf-8"))
    scored = {e["method"] for e in document["results"] if e["split"] == "test"}
    assert {"upstream", *METHODS} <= scored
    results = json.loads((run / "upstream" / "seed_0" / "results.json").read_text("utf-8"))
    assert results["steps"] > 0


def test_a_warm_start_gives_what_the_upstream_gives(run: Path) -> None:
    """All of its inputs are the upstream's, so its weights before training are too."""
    history = run / "downstream" / "home" / "module~2Fwarm_start~2Foutput" / "seed_0"
    start = json.loads((history / "results.json").read_text("utf-8"))["history"][0]
    assert start["phase"] == "start"
    with np.load(run / "upstream" / "seed_0" / "predictions.npz") as stored:
        rows, scores = stored["valid_rows"], stored["valid_frozen"]
    opened = open_run(run)
    cache = opened.cache
    mine = np.isin(rows, cache.rows_of("valid", "home"))
    rows, scores = rows[mine], scores[mine]
    apart = abs(start["value"] - mean_auc(cache, rows, scores))
    tasks = zip(cache.labels[rows].T, scores.T, strict=True)
    assert apart <= np.mean([_auc_room(labels, of_task) for labels, of_task in tasks])


def _auc_room(labels: np.ndarray, scores: np.ndarray) -> float:
    """What roundings may change an AUC by: the share of pairs whose order they may change."""
    logits = np.log(scores) - np.log1p(-scores)
    near = 2 * probability_room(128, np.abs(logits).max())  # terms: widths of the longest chain
    pairs = np.abs(scores[labels == 1][:, None] - scores[labels == 0][None]) <= near
    return float(pairs.mean()) + 1e-12  # sums of ranks in float64


def test_both_losses_and_optimizers_are_there(run: Path) -> None:
    opened = open_run(run)
    model = load_upstream(opened, 0)
    batch = example_batch(opened.cache.layout)
    batch["labels"] = tf.zeros([1, len(opened.cache.layout.tasks)])
    terms = model.loss_terms(batch, training=False)
    assert list(terms) == ["tasks", "match"]
    prefix = tf.train.latest_checkpoint(str(run / "upstream" / "seed_0" / "checkpoint"))
    names = {name for name, _ in tf.train.list_variables(prefix)}
    of_heads = [n for n in names if "/heads/" in n and "first_moments" in n]
    others = [n for n in names if "first_moments" in n and n not in of_heads]
    assert of_heads and others
    tags = _scalar_tags(run / "tensorboard" / "upstream" / "seed_0")
    assert {"train/loss", "train/tasks", "train/match"} <= tags


def _scalar_tags(folder: Path) -> set[str]:
    tags: set[str] = set()
    for path in folder.glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            tags |= {value.tag for value in event.summary.value}
    return tags


def test_a_sweep_goes_over_the_layers_and_adapters(
    cli: Callable[..., Any], options: list[str], run: Path
) -> None:
    methods = ["--set", f"downstream.methods={json.dumps(METHODS)}"]
    grid = ["--layers", "side_product", "--adapters", "scaled", "--sides", "user"]
    done = cli("sweep", *options, *methods, "--out", run, *grid)
    assert done.code == 0, done.text
    document = json.loads((run / "sweep" / "results.json").read_text("utf-8"))
    swept = {e["method"] for e in document["results"]}
    assert {"feature/scaled/CR_user@side_product", "module/warm_start/side_product"} <= swept


def test_predict_scores_rows_with_the_plug_in(
    cli: Callable[..., Any], shop: Any, run: Path, tmp_path: Path
) -> None:
    output = tmp_path / "scores.parquet"
    options = ["--out", run, "--model", "foundation", "--input", shop.folder / "shop.csv"]
    done = cli("predict", *options, "--output", output)
    assert done.code == 0, done.text
    scores = pq.read_table(output)["score"].to_numpy()
    assert len(scores) and ((scores > 0) & (scores < 1)).all()


def test_the_exports_are_served(run: Path) -> None:
    """What a server answers to the golden requests is what the Keras models gave."""
    asked = 0
    with LocalServer(exports=run / "exports") as server:
        with grpc.insecure_channel(server.grpc_address) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            for version in sorted((run / "exports").glob("*/1")):
                with np.load(version / "assets.extra" / "golden.npz") as golden:
                    for signature in {key.split("/")[1] for key in golden}:
                        asked += _compare(stub, version.parent.name, signature, golden)
    assert asked >= 4  # foundation, towers, and the ranker, whose `rank` is one signature more


def _compare(stub: Any, model: str, signature: str, golden: Any) -> int:
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    start = f"requests/{signature}/"
    for key in (k for k in golden if k.startswith(start)):
        request.inputs[key.removeprefix(start)].ParseFromString(golden[key].tobytes())
    answer = stub.Predict(request)
    outputs = [k for k in golden if k.startswith(f"allowed/{signature}/")]
    for key in outputs:
        name = key.rsplit("/", 1)[1]
        served = tf.make_ndarray(answer.outputs[name]).astype(np.float64)
        expected = golden[f"expected/{signature}/{name}"].astype(np.float64)
        assert (np.abs(served - expected) <= golden[key]).all(), (model, signature, name)
    return bool(outputs)
