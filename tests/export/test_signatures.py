"""Signatures beside Predict: Classify, Regress, what the model is fed, and many candidates."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from benchmarks.ranking import SessionRunner
from lfm4ads_tf.config import ExportConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export import verify_child
from lfm4ads_tf.export.archive import described_signatures
from lfm4ads_tf.export.golden import GoldenRequest
from lfm4ads_tf.export.golden_rows import GoldenRows
from lfm4ads_tf.export.prediction_serving import PredictionServing
from lfm4ads_tf.export.representation_lookup import RepresentationLookup
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitting import fit_encoding
from lfm4ads_tf.features.spec_file import parse_spec
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.transfer.adapters.cross import CrossAdapter
from lfm4ads_tf.transfer.adapters.field_gate import FieldGateAdapter
from lfm4ads_tf.transfer.adapters.gate import GateAdapter
from lfm4ads_tf.transfer.adapters.token import TokenAdapter
from lfm4ads_tf.transfer.downstream import DownstreamModel
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

KINDS = ("foundation", "ranker_tab 1")
TASKS = ["click", "like"]
ROWS = 23


def golden_rows(world: Any, rows: int) -> GoldenRows:
    rng = np.random.default_rng(8)
    stored = {}
    for name, values in world.representations.items():
        present = (rng.random((rows, 1)) < 0.7).astype(np.float32)
        vectors = rng.normal(size=(rows, values.shape[1] - 1)).astype(np.float32) * present
        stored[name] = np.concatenate([vectors, present], axis=1)
    return GoldenRows.of(world.new_rows(rows), world.encoder, stored)


def asked(model: Any, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of a signature of the loaded SavedModel."""
    run = model.signatures[signature]
    specs = run.structured_input_signature[1]
    fed = {name: tf.constant(values, specs[name].dtype) for name, values in inputs.items()}
    return {name: values.numpy() for name, values in run(**fed).items()}


@pytest.fixture(scope="module")
def loaded(exports: Path) -> dict[str, Any]:
    return {kind: tf.saved_model.load(str(exports / kind / "1")) for kind in KINDS}


@dataclass(frozen=True)
class Served:
    """A graph, the Keras model's scores of `ROWS` rows and one without values, and its requests."""

    graph: PredictionServing
    scores: dict[str, np.ndarray]
    requests: dict[str, GoldenRequest]


@pytest.fixture(scope="module")
def served(world: Any, models: Any) -> dict[str, Served]:
    """Of each kind; tests only read it."""
    made = {}
    for kind in KINDS:
        rows = golden_rows(world, ROWS)
        graph = PredictionServing(models[kind], rows, rebuild=rebuild_of(world, kind))
        scores = graph.expected(rows)
        requests = {r.signature: r for r in graph.golden(rows, scores)}
        made[kind] = Served(graph, scores, requests)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_every_signature_gives_what_the_keras_model_gives(
    kind: str, served: Any, loaded: Any
) -> None:
    scores, requests = served[kind].scores, served[kind].requests
    wanted = {"serving_default", "predict", "classify", "regress", "encode"}
    wanted |= {f"regress_{task}" for task in TASKS}
    assert requests.keys() == wanted | ({"rank"} if kind.startswith("ranker") else set())
    for name, request in requests.items():
        outputs = asked(loaded[kind], name, dict(request.inputs))
        assert outputs.keys() == request.expected.keys()
        for key, values in outputs.items():
            expected = request.expected[key]
            if values.dtype == np.float32:
                assert_close(values, expected, terms=200, what=key)
            elif values.dtype == object:
                assert [t.decode() for t in values.ravel()] == list(expected.ravel())
            else:
                assert np.array_equal(values, expected)
    classified = asked(loaded[kind], "classify", dict(requests["classify"].inputs))
    assert classified["classes"][3].tolist() == [b"click", b"like"]
    predicted = asked(loaded[kind], "predict", dict(requests["predict"].inputs))
    together = np.stack([predicted[task] for task in TASKS], axis=1)
    np.testing.assert_allclose(classified["scores"], together, rtol=0, atol=1e-6)
    for task in TASKS:
        regressed = asked(loaded[kind], f"regress_{task}", dict(requests["regress"].inputs))
        np.testing.assert_allclose(regressed["outputs"], scores[task], rtol=0, atol=1e-6)


def rebuild_of(world: Any, kind: str) -> Any:
    make = world.ranker if kind.startswith("ranker") else world.foundation
    return lambda shards, _: make(shards, seed=99)


def test_method_names_are_those_that_a_server_asks_for(exports: Path) -> None:
    methods = {n: s["method"] for n, s in described_signatures(exports / KINDS[1] / "1").items()}
    assert methods == {
        "serving_default": "tensorflow/serving/predict",
        "predict": "tensorflow/serving/predict",
        "encode": "tensorflow/serving/predict",
        "rank": "tensorflow/serving/predict",
        "classify": "tensorflow/serving/classify",
        "regress": "tensorflow/serving/regress",
        "regress_click": "tensorflow/serving/regress",
        "regress_like": "tensorflow/serving/regress",
    }
    towers = described_signatures(exports / "user_tower" / "1")
    assert towers.keys() == {"serving_default", "predict"}


def test_classify_and_regress_read_one_input_as_multi_inference_demands(exports: Path) -> None:
    saved = saved_model_pb2.SavedModel.FromString(
        (exports / KINDS[1] / "1" / "saved_model.pb").read_bytes()
    )
    graph = saved.meta_graphs[0]
    shared = [n for n in graph.signature_def if n.startswith(("classify", "regress"))]
    assert len(shared) == 4
    names = {graph.signature_def[n].inputs["inputs"].name for n in shared}
    assert len(names) == 1
    nodes = {node.name: node for node in graph.graph_def.node}
    (name,) = names
    assert nodes[name.removesuffix(":0")].op == "Placeholder"
    # no node reads a placeholder that is gone
    for node in graph.graph_def.node:
        for source in node.input:
            assert source.lstrip("^").partition(":")[0] in nodes


def test_one_session_run_answers_classify_and_regress_together(served: Any, exports: Path) -> None:
    kind = KINDS[1]
    scores = served[kind].scores
    examples = served[kind].requests["serving_default"].inputs["examples"]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(exports / kind / "1"))
        ends = meta.signature_def
        classified, regressed = session.run(
            [ends["classify"].outputs["scores"].name, ends["regress_like"].outputs["outputs"].name],
            {ends["classify"].inputs["inputs"].name: examples},
        )
    np.testing.assert_allclose(classified[:, 1], regressed, rtol=0, atol=1e-7)
    np.testing.assert_allclose(regressed, scores["like"], rtol=0, atol=1e-6)


def test_rank_scores_candidates_as_rows_of_their_own(served: Any, loaded: Any) -> None:
    """One user's row beside every candidate, once as `rank` and once as rows of `predict`."""
    kind = KINDS[1]
    graph, requests = served[kind].graph, served[kind].requests
    ranked, predict = dict(requests["rank"].inputs), dict(requests["predict"].inputs)
    users = [graph.schema.names[n] for n, side in graph.sides.items() if side == "user"]
    assert all(len(ranked[name]) == 1 for name in users)
    for row in (0, 4, ROWS):  # the last one is a user without any value
        one = {n: predict[n][row : row + 1] for n in users}
        outputs = asked(loaded[kind], "rank", {**ranked, **one})
        same = {n: np.repeat(predict[n][row : row + 1], ROWS + 1, axis=0) for n in users}
        expected = asked(loaded[kind], "predict", {**predict, **same})
        for task in TASKS:
            assert outputs[task].shape == (ROWS + 1,)
            np.testing.assert_allclose(outputs[task], expected[task], rtol=0, atol=1e-6)
            assert len(np.unique(outputs[task])) > 12


def test_context_of_a_rank_request_may_have_one_row(served: Any, loaded: Any) -> None:
    kind = KINDS[1]
    request = dict(served[kind].requests["rank"].inputs)
    assert served[kind].graph.sides["weekday"] == "context"
    one = {**request, "weekday": request["weekday"][2:3]}
    each = {**request, "weekday": np.repeat(request["weekday"][2:3], ROWS + 1)}
    first, second = (asked(loaded[kind], "rank", r) for r in (one, each))
    np.testing.assert_array_equal(first["click"], second["click"])
    wrong = {**request, "weekday": request["weekday"][:3]}
    with pytest.raises(tf.errors.InvalidArgumentError):
        asked(loaded[kind], "rank", wrong)
    two_users = {**request, "user_id": np.array([b"a", b"b"], object)}
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected shape.*1"):
        asked(loaded[kind], "rank", two_users)


@pytest.mark.parametrize("signature", ["predict", "rank"])
@pytest.mark.parametrize("name", ["tags", "IR", "history", "price", "UR"])
@pytest.mark.parametrize("rows", [1, 4, 15])
def test_unequal_numbers_of_rows_are_refused(
    signature: str, name: str, rows: int, world: Any, both_sides: Any
) -> None:
    """Some would be broadcast, some read past a row's end."""
    model, requests = both_sides
    request = dict(requests[signature])
    of_user = name in ("history", "UR")
    if signature == "rank" and of_user and rows == 1:
        return  # that is what it must have
    request[name] = np.resize(request[name], (rows, *request[name].shape[1:]))
    if name == "tags":
        weights = request["tag_weights"]
        request["tag_weights"] = np.resize(weights, (rows, *weights.shape[1:]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="rows|expected shape"):
        asked(model, signature, request)


@pytest.fixture(scope="module")
def both_sides(world: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A ranker that reads representations of user and item; its graph, not blessed."""
    adapters = [
        GateAdapter(["UR", "IR"], seed=1),
        TokenAdapter(["UR", "IR"], units=[4], seed=1),
        CrossAdapter(["UR", "IR"], dim=4, width=5, seed=1),
    ]
    model = DownstreamModel(
        world.encoder.layout, world.network, world.embeddings(1), adapters=adapters, seed=5
    )
    rng = np.random.default_rng(6)
    stored = {n: rng.normal(size=(9, 4)).astype(np.float32) for n in ("UR", "IR")}
    for values in stored.values():
        values[:, -1] = 1.0  # all are present
    rows = GoldenRows.of(world.new_rows(9), world.encoder, stored)
    model(rows.batch, training=False)
    graph = PredictionServing(model, rows)
    folder = tmp_path_factory.mktemp("both")
    graph.write(folder)
    requests = {r.signature: r for r in graph.golden(rows, graph.expected(rows))}
    loaded = tf.saved_model.load(str(folder))
    for signature in ("predict", "rank"):
        found = asked(loaded, signature, dict(requests[signature].inputs))
        for task in TASKS:
            expected = requests[signature].expected[task]
            np.testing.assert_allclose(found[task], expected, rtol=0, atol=1e-6)
    return loaded, {name: dict(request.inputs) for name, request in requests.items()}


def test_names_that_collide_in_encode_are_refused(world: Any) -> None:
    raw = {**world.raw_spec, "features": dict(world.raw_spec["features"])}
    raw["features"]["tags_weights"] = {"kind": "hashed", "owner": "item", "column": "brand"}
    spec = parse_spec(raw)
    columns = {name: world.samples[name] for name in world.samples.column_names}
    rows = np.arange(world.samples.num_rows)
    encoder = Encoder(spec, fit_encoding(spec, columns, rows, np.ones(len(rows), bool)))
    model = FoundationModel(encoder.layout, world.network, world.embeddings(1))
    golden = GoldenRows.of(world.samples, encoder, {})
    graph = PredictionServing(model, golden)
    with pytest.raises(UserError, match="'tags'.*'tags_weights'|'tags_weights'.*'tags'"):
        graph.golden(golden, graph.expected(golden))


def test_rank_runs_the_user_tower_on_one_row(served: Any, exports: Path) -> None:
    """By a trace of what a session runs: the user's product has one row, those of rows have N."""
    kind = KINDS[1]
    requests = {name: request.inputs for name, request in served[kind].requests.items()}
    runner = SessionRunner(exports / kind / "1")
    products = {
        name: sorted(
            shape[0] for op, shape in runner.executed(name, requests[name]) if op.endswith("MatMul")
        )
        for name in ("rank", "predict")
    }
    runner.close()
    # the user tower, the MLP adapter's four layers over the user's two representations, the gate,
    # and the projection of the user's one field of width 8 for the factorisation machine
    assert products["rank"].count(1) == 7
    assert 1 not in products["predict"]
    # the machine projects the fields of user and candidates apart, for each of the two widths
    assert len(products["rank"]) == len(products["predict"]) + 2


def test_a_gate_over_user_and_item_multiplies_each_once() -> None:
    rng = np.random.default_rng(2)
    sizes = {"UR": (1, 4), "IR": (7, 3), "CR_user@x": (1, 2)}
    stored = {n: tf.constant(rng.normal(size=s).astype(np.float32)) for n, s in sizes.items()}
    wide = {n: tf.repeat(v, 7 // v.shape[0], axis=0) for n, v in stored.items()}
    gate = GateAdapter(list(sizes), seed=3)
    expected = gate(wide, width=5).gate
    assert_close(gate(stored, width=5).gate, expected, terms=9)
    fields = FieldGateAdapter(list(sizes), units=[4], seed=3)
    expected = fields(wide, width=5).gate
    found = fields(stored, width=5).gate
    assert found.shape == (7, 5)
    assert_close(found, expected, terms=13)


def test_encode_tells_what_each_feature_becomes(world: Any, loaded: Any) -> None:
    example = tf.train.Example()
    example.features.feature["brand"].bytes_list.value.append(b"b1")
    example.features.feature["tags"].bytes_list.value.extend([b"tag 1", b"tag 2"])
    example.features.feature["tag_weights"].float_list.value.extend([0.5, 2.0])
    example.features.feature["weekday"].int64_list.value.append(6)
    example.features.feature["tab"].bytes_list.value.append(b"tab 1")
    found = asked(
        loaded["foundation"], "encode", {"examples": np.array([example.SerializeToString()])}
    )
    assert found["weekday"].tolist() == [6] and found["item_id"].tolist() == [-1]
    assert found["tags_weights"].tolist() == [[0.5, 2.0]] and found["tags"].shape == (1, 2)
    assert found["scenario_index"].tolist() == [world.encoder.layout.scenarios.index("tab 1")]
    assert found["vector"].shape == (1, 2) and found["s"].shape == (1, 2)
    assert set(found) == {
        *world.encoder.layout.features,
        "tags_weights",
        "scenario_index",
        "branch_index",
    }


# -- representations by key ------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
def test_a_lookup_gives_stored_vectors_and_zeros_for_cold_keys(storage: Any) -> None:
    rng = np.random.default_rng(0)
    keys = [f"ü{k}" for k in range(300)]
    vectors = rng.normal(size=(300, 6)).astype(np.float32)
    lookup = RepresentationLookup("UR", pa.array([*keys, None]), np.pad(vectors, ((0, 1), (0, 0))),
                                  storage)  # fmt: skip
    wanted = np.array(["ü7", "", "unseen", "ü299", "ü0"])
    found = lookup(tf.constant(wanted)).numpy()
    assert found[:, -1].tolist() == [1, 0, 0, 1, 1]
    assert not found[[1, 2]].any()
    bound = {"float32": 0.0, "float16": 2e-3, "int8": 0.5 * 4 / 127}[storage]
    assert np.abs(found[[0, 3, 4], :-1] - vectors[[7, 299, 0]]).max() <= bound


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_a_lookup_without_any_key_is_cold(storage: Any) -> None:
    nothing = np.zeros((0, 3), np.float32)
    lookup = RepresentationLookup("IR", pa.array([], pa.string()), nothing, storage)
    assert not lookup(tf.constant(["a", ""])).numpy().any()


def test_two_keys_of_one_fingerprint_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from lfm4ads_tf.export import representation_lookup

    monkeypatch.setattr(
        representation_lookup, "_fingerprints", lambda keys: tf.zeros_like(keys, tf.int64)
    )
    with pytest.raises(UserError, match="cannot be told apart"):
        RepresentationLookup("UR", pa.array(["a", "b"]), np.zeros((2, 3), np.float32))


@pytest.mark.slow
def test_a_ranker_with_lookups_scores_as_one_that_is_sent_the_vectors(
    world: Any, models: Any, exports: Path, tmp_path: Path, unproven: None
) -> None:
    """Both by the scores of one snapshot; users that are not in it are cold."""
    keys = pa.array([f"ü{k}" for k in range(0, 30, 2)])  # every second user is cold
    rng = np.random.default_rng(1)
    vectors = {
        name: rng.normal(size=(len(keys), values.shape[1] - 1)).astype(np.float32)
        for name, values in world.representations.items()
    }
    position = {key: k for k, key in enumerate(keys.to_pylist())}
    users = world.samples["user_id"].to_pylist()
    stored = {}
    for name, values in vectors.items():
        held = np.zeros((len(users), values.shape[1] + 1), np.float32)
        for row, user in enumerate(users):
            if user in position:
                held[row] = [*values[position[user]], 1.0]
        stored[name] = held
    assert 0 < sum(user in position for user in users) < len(users)
    lookups = {name: RepresentationLookup(name, keys, values) for name, values in vectors.items()}
    kind, model = KINDS[1], models[KINDS[1]]
    own = world.export(kind, model, tmp_path, representations=stored, lookups=lookups)
    folders = {"request": exports / kind / "1", "lookup": own}
    loaded = {how: tf.saved_model.load(str(folder)) for how, folder in folders.items()}
    inputs = {how: set(m.signatures["predict"].structured_input_signature[1])
              for how, m in loaded.items()}  # fmt: skip
    assert inputs["request"] - inputs["lookup"] == {"UR", "CR_user_at_cross_2"}
    rows = GoldenRows.of(world.samples, world.encoder, stored)
    sent = PredictionServing(model, rows)
    asks = PredictionServing(model, rows, lookups=lookups)
    first, second = (
        asked(loaded[how], "predict", dict(graph.golden(rows, graph.expected(rows))[1].inputs))
        for how, graph in (("request", sent), ("lookup", asks))
    )
    offline = sent.expected(rows)
    for task in TASKS:
        np.testing.assert_allclose(first[task], second[task], rtol=0, atol=1e-7)
        np.testing.assert_allclose(second[task], offline[task], rtol=0, atol=1e-6)


@pytest.mark.parametrize("storage", [pytest.param("float16", marks=pytest.mark.slow), "int8"])
def test_a_lookup_of_a_smaller_type_is_golden_with_what_it_holds(
    world: Any,
    models: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unproven: None,
    storage: Any,
) -> None:
    """Its scores are near those of the float32 vectors, and equal to its own golden ones."""
    users = list(dict.fromkeys(k for k in world.samples["user_id"].to_pylist() if k))
    rng = np.random.default_rng(4)
    stored, lookups = {}, {}
    for name, values in world.representations.items():
        vectors = 0.2 * rng.normal(size=(len(users), values.shape[1] - 1))
        vectors = vectors.astype(np.float32)
        lookups[name] = RepresentationLookup(name, pa.array(users), vectors, storage)
        place = {key: k for k, key in enumerate(users)}
        held = [
            np.append(vectors[place[key]], 1.0) if key else np.zeros(vectors.shape[1] + 1)
            for key in world.samples["user_id"].to_pylist()
        ]
        stored[name] = np.array(held, np.float32)
    kind = KINDS[1]
    folder = world.export(
        kind,
        models[kind],
        tmp_path,
        representations=stored,
        lookups=lookups,
        config=ExportConfig(warmup_rows=1, tables=storage),
    )
    monkeypatch.setattr(verify_child, "LATENCY_CALLS", 1)
    report = verify_child.verify(folder, [])
    assert report["largest_share"] <= 1
    blessing = json.loads((folder / "blessing.json").read_text("utf-8"))
    assert 0 < blessing["evaluation"]["largest_share"] <= 1
