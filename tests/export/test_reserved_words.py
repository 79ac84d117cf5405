"""Tasks, columns and features with names of ours, through every signature of an export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.export.archive import described_signatures
from lfm4ads_tf.export.client import ServingClient
from lfm4ads_tf.export.golden import GoldenRequest
from lfm4ads_tf.export.golden_rows import GoldenRows
from lfm4ads_tf.export.local_server.server import LocalServer
from lfm4ads_tf.export.prediction_serving import PredictionServing
from lfm4ads_tf.export.serving.model_config import ServedModel, render
from lfm4ads_tf.export.wire.model_target import ModelTarget
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitting import fit_encoding
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.spec_file import parse_spec
from lfm4ads_tf.file_names import file_name
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.foundation import FoundationModel
from tests.rounding import assert_close

TASKS = [
    "ids", "scores", "classes", "outputs", "representation", "scenario_index", "branch_index",
    "predict", "click rate, 50% off", "größe", "self", "examples", "ids_bytes", "regress",
]  # fmt: skip
COLUMNS = [
    "examples", "inputs", "outputs", "self", "class", "None", "row", "exclude", "instances", "b64",
    "signature_name", "name", "ids", "scores", "encode", "a/b", "größe", "_x", "1st", "x_bytes",
    "classes", "representation", "training", "mask", "args", "kwargs", "func",
]  # fmt: skip


MODEL = f"ranker_{file_name('home/feed')}"  # a foundation; the name is what matters


@dataclass(frozen=True)
class Exported:
    """An export, and what it must answer."""

    folder: Path
    spec: FeatureSpec
    rows: pa.Table
    requests: list[GoldenRequest]
    scores: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """An untrained foundation over these names as a SavedModel, and its golden requests."""
    features = {
        column: {
            "owner": ("user", "item", "context")[k % 3], "kind": "hashed", "buckets": 5,
            
        }
        for k, column in enumerate(COLUMNS)
    }  # fmt: skip
    spec = parse_spec(
        {
            "name": "words",
            "log": {"files": ["log.csv"]},
            "keys": {"user": "self", "item": "inputs", "time": "time", "scenario": "outputs"},
            "tasks": {task: f"label of {task}" for task in TASKS},
            "split": {"by": "time", "train_until": 6, "valid_until": 8},
            "features": features,
        }
    )
    rng = np.random.default_rng(0)
    table = pa.table({c: [f"v{v}" for v in rng.integers(0, 9, 30)] for c in COLUMNS})
    held = {name: table[name] for name in table.column_names}
    encoder = Encoder(spec, fit_encoding(spec, held, np.arange(30), np.ones(30, bool)))
    network = NetworkConfig.model_validate(
        {"user_tower": [3], "block": {"layers": [{"type": "dnn", "units": [3]}]}}
    )
    model = FoundationModel(encoder.layout, network, EmbeddingsConfig(dim=2), seed=1)
    rows = GoldenRows.of(table, encoder, {})
    model(rows.batch, training=False)
    graph = PredictionServing(model, rows)
    scores = graph.expected(rows)
    folder = tmp_path_factory.mktemp("words") / MODEL / "1"
    folder.mkdir(parents=True)
    graph.write(folder)
    return Exported(folder, spec, table, graph.golden(rows, scores), scores)


def test_every_signature_answers_with_its_own(exported: Exported) -> None:
    folder, requests, scores = exported.folder, exported.requests, exported.scores
    loaded = tf.saved_model.load(str(folder))
    described = described_signatures(folder)
    wanted = {"serving_default", "predict", "classify", "regress", "encode"}
    assert described.keys() == wanted | {f"regress_{task}" for task in TASKS}
    assert {r.signature for r in requests} == described.keys()
    assert described["predict"]["outputs"].keys() == set(TASKS)
    assert len(described["predict"]["inputs"]) == len(COLUMNS)
    for request in requests:
        run = loaded.signatures[request.signature]
        specs = run.structured_input_signature[1]
        found = run(**{n: tf.constant(v, specs[n].dtype) for n, v in request.inputs.items()})
        assert found.keys() == request.expected.keys()
        for name, expected in request.expected.items():
            values = found[name].numpy()
            if values.dtype == object:
                assert [t.decode() for t in values.ravel()] == list(expected.ravel())
            else:
                assert_close(values, expected, terms=200, what=name)
    spread = np.stack([scores[task] for task in TASKS])
    assert len(np.unique(spread[:, 0])) == len(TASKS)  # no two tasks alike


def test_a_server_answers_for_every_task_over_both_apis(exported: Exported) -> None:
    rows = len(exported.rows)  # without the row of missing values
    with LocalServer(model_name=MODEL, model_base_path=exported.folder.parent) as server:
        for address in (f"grpc://{server.grpc_address}", server.rest_address):
            with ServingClient(address, MODEL, exported.spec, deadline=30.0) as client:
                answers = [
                    client.predict(exported.rows),
                    client.predict(exported.rows, "tensors"),
                    client.classify(exported.rows),
                    {task: client.regress(exported.rows, task) for task in TASKS},
                ]
                assert client.status()[0]["state"] == "AVAILABLE"
            for found in answers:
                assert found.keys() == set(TASKS)
                for task, scores in found.items():
                    wanted = exported.scores[task][:rows]
                    np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-6)


@given(st.text(max_size=20))
def test_an_exported_name_is_the_same_in_a_configuration_and_in_a_url(text: str) -> None:
    """No character of it is escaped anywhere, so that every server reads the same name."""
    name = f"ranker_{file_name(text)}"
    assert ModelTarget(name).path() == f"/v1/models/{name}"
    config = render({name: ServedModel([1], {"stable": 1})}, "/models")
    assert f'name: "{name}"' in config and f'base_path: "/models/{name}"' in config
