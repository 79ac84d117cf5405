"""The client: against servers that fail by plan, and against the local server end to end."""

from __future__ import annotations

import csv
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import yaml
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.client import ServingClient, main
from lfm4ads_tf.export.request_schema import RequestSchema
from lfm4ads_tf.export.wire.raw_rows import RawRows, with_excluded
from lfm4ads_tf.export.wire.serving_error import ServingError
from lfm4ads_tf.features.raw_types import RawType, raw_sides
from lfm4ads_tf.features.spec_file import parse_spec
from tests.rounding import assert_close

SPEC = parse_spec(
    {
        "name": "tiny",
        "log": {"files": ["log.csv"]},
        "keys": {"user": "u", "item": "i", "time": "t"},
        "tasks": {"click": "c"},
        "split": {"by": "t", "train_until": 1, "valid_until": 2},
        "features": {"u": {"kind": "hashed", "owner": "user"}},
    }
)
ROWS = [{"u": "a"}, {"u": "b"}]
SCORES = np.array([0.25, 0.5], np.float32)
EXAMPLES = RequestSchema({"u": RawType("text")}, {}).examples({"u": pa.array(["a", "b"])}, {})

Step = Any
"""What a scripted server does with a prediction: a status code, a pause in seconds, or None."""


class Script:
    """Steps of the predictions, in order; when they are used up, all are answered."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.requests: list[Any] = []
        self.version = 3

    def next(self, request: Any) -> Step:
        self.requests.append(request)
        return self.steps.pop(0) if self.steps else None


class GrpcScript(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        held = get_model_metadata_pb2.SignatureDefMap()
        shapes = {"serving_default": "examples", "predict": "u"}
        for name, key in shapes.items():
            one = held.signature_def[name]
            one.method_name = "tensorflow/serving/predict"
            one.inputs[key].dtype = tf.string.as_datatype_enum
            one.inputs[key].tensor_shape.dim.add(size=-1)
            one.outputs["click"].dtype = tf.float32.as_datatype_enum
            one.outputs["click"].tensor_shape.dim.add(size=-1)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.version.value = self.script.version
        response.metadata["signature_def"].Pack(held)
        self.script.requests.append(request)
        return response

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        step = self.script.next(request)
        if isinstance(step, float):
            time.sleep(step)
        elif step is not None:
            context.abort(step, "by plan")
        response = predict_pb2.PredictResponse()
        response.model_spec.version.value = self.script.version
        response.outputs["click"].CopyFrom(tf.make_tensor_proto(SCORES))
        return response


@contextmanager
def grpc_server(script: Script, port: int = 0) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(GrpcScript(script), server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{bound}"
    finally:
        server.stop(None)


@contextmanager
def rest_server(script: Script) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, status: int, value: Any) -> None:
            body = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:  # noqa: N802
            script.requests.append(self.path)
            dim = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
            tensor = {
                "examples": {"dtype": "DT_STRING", "tensor_shape": dim, "name": "e:0"},
                "click": {"dtype": "DT_FLOAT", "tensor_shape": dim, "name": "c:0"},
            }
            signatures = {
                name: {
                    "inputs": {key: tensor["examples"]},
                    "outputs": {"click": tensor["click"]},
                    "method_name": "tensorflow/serving/predict",
                }
                for name, key in {"serving_default": "examples", "predict": "u"}.items()
            }
            spec = {"name": "m", "signature_name": "", "version": "3"}
            held = {"signature_def": {"signature_def": signatures}}
            self.answer(200, {"model_spec": spec, "metadata": held})

        def do_POST(self) -> None:  # noqa: N802
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            step = script.next((self.path, body, dict(self.headers)))
            if step == "reset":
                self.close_connection = True
            elif step == "drip":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                for _ in range(40):
                    self.wfile.write(b" ")
                    time.sleep(0.05)
            elif isinstance(step, int):
                self.answer(step, {"error": "by plan"})
            elif isinstance(step, bytes):
                self.answer(502, step)
            else:
                time.sleep(step or 0)
                self.answer(200, {"outputs": SCORES.tolist()})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


CODE = grpc.StatusCode
CASES = {
    "grpc": (grpc_server, CODE.UNAVAILABLE, CODE.INVALID_ARGUMENT),
    "rest": (rest_server, 503, 400),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Any, Any, Any]:
    return CASES[request.param]


def predictions(script: Script) -> list[Any]:
    """The requests without those for metadata."""
    return [r for r in script.requests if isinstance(r, tuple | predict_pb2.PredictRequest)]


def test_unavailable_is_tried_again(case: Any) -> None:
    serve, unavailable, _ = case
    script = Script(unavailable, unavailable)
    with serve(script) as address, ServingClient(address, "m", SPEC, deadline=5) as client:
        np.testing.assert_array_equal(client.predict(ROWS)["click"], SCORES)
    assert len(predictions(script)) == 3


def test_the_number_of_attempts_is_bounded(case: Any) -> None:
    serve, unavailable, _ = case
    script = Script(*[unavailable] * 9)
    with serve(script) as address:
        with ServingClient(address, "m", SPEC, deadline=5, retries=2) as client:
            with pytest.raises(ServingError, match="by plan") as caught:
                client.predict(ROWS)
    assert caught.value.code == "UNAVAILABLE"
    assert len(predictions(script)) == 3


def test_no_other_code_is_tried_again(case: Any) -> None:
    serve, _, invalid = case
    script = Script(invalid)
    with serve(script) as address, ServingClient(address, "m", SPEC, deadline=5) as client:
        with pytest.raises(ServingError, match="by plan") as caught:
            client.predict(ROWS)
        assert caught.value.code == "INVALID_ARGUMENT"
        assert len(predictions(script)) == 1
        np.testing.assert_array_equal(client.predict(ROWS, "tensors")["click"], SCORES)


def test_the_deadline_is_of_all_attempts(case: Any) -> None:
    serve, unavailable, _ = case
    script = Script(unavailable, 3.0, 3.0)
    with serve(script) as address, ServingClient(address, "m", SPEC) as client:
        client.metadata()
        began = time.monotonic()
        with pytest.raises(ServingError) as caught:
            client.predict(ROWS, deadline=0.4)
        assert 0.35 < time.monotonic() - began < 1.5
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert len(predictions(script)) == 2


def test_no_attempt_begins_after_the_deadline(case: Any) -> None:
    serve, unavailable, _ = case
    script = Script(*[unavailable] * 1000)
    with serve(script) as address:
        with ServingClient(address, "m", SPEC, retries=1000) as client:
            client.builder()
            began = time.monotonic()
            with pytest.raises(ServingError, match=r"within the deadline of 0.5 s") as caught:
                client.predict(ROWS, deadline=0.5)
            assert time.monotonic() - began < 1.5
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert 3 <= len(predictions(script)) < 15  # the pauses grow


def test_a_server_that_is_not_there_is_named_after_all_attempts() -> None:
    for address in ("grpc://127.0.0.1:9", "http://127.0.0.1:9"):
        with ServingClient(address, "m", SPEC, deadline=5, retries=1) as client:
            with pytest.raises(ServingError, match="127.0.0.1:9") as caught:
                client.predict(ROWS)
        assert caught.value.code == "UNAVAILABLE"
        assert "whether the server runs" in str(caught.value)


def test_a_client_outlives_its_server() -> None:
    script = Script()
    with grpc_server(script) as address:
        client = ServingClient(address, "m", SPEC, deadline=5, retries=20)
        client.predict(ROWS)
    late: list[Any] = []
    asking = threading.Thread(target=lambda: late.append(client.predict(ROWS)["click"]))
    asking.start()
    time.sleep(0.3)
    with grpc_server(script, int(address.rpartition(":")[2])):
        asking.join(5)
    client.close()
    np.testing.assert_array_equal(late[0], SCORES)


def test_a_connection_that_breaks_before_the_answer_is_tried_again() -> None:
    script = Script(None, "reset", "reset", None)
    with rest_server(script) as address, ServingClient(address, "m", SPEC, deadline=5) as client:
        for _ in range(2):
            np.testing.assert_array_equal(client.predict(ROWS)["click"], SCORES)
    assert len(predictions(script)) == 4


def test_an_answer_in_many_pieces_ends_with_the_deadline() -> None:
    script = Script("drip")
    with rest_server(script) as address, ServingClient(address, "m", SPEC) as client:
        client.builder()
        began = time.monotonic()
        with pytest.raises(ServingError) as caught:
            client.predict(ROWS, deadline=0.4)
        assert caught.value.code == "DEADLINE_EXCEEDED"
        assert time.monotonic() - began < 1.2


def test_what_is_no_model_server_is_quoted() -> None:
    with rest_server(Script(b"<html>Bad gateway")) as address:
        with ServingClient(address, "m", SPEC, deadline=5) as client:
            with pytest.raises(ServingError, match="HTTP 502, not JSON: <html>Bad gateway"):
                client.predict(ROWS)


def test_requests_hold_target_signature_and_examples() -> None:
    script = Script()
    with grpc_server(script) as address:
        with ServingClient(address, "m", SPEC, label="stable") as client:
            client.predict(ROWS, deadline=5)
        with ServingClient(address.removeprefix("grpc://"), "m", SPEC, version=3) as client:
            client.predict(ROWS, "tensors", deadline=5)
    first, second = predictions(script)
    assert (first.model_spec.name, first.model_spec.version_label) == ("m", "stable")
    assert first.model_spec.signature_name == "serving_default"
    assert list(first.inputs["examples"].string_val) == EXAMPLES
    assert second.model_spec.version.value == 3
    assert list(second.inputs["u"].string_val) == [b"a", b"b"]

    script = Script()
    with rest_server(script) as address:
        headers = {"Authorization": "Bearer x"}
        with ServingClient(f"{address}/proxy/", "a model", SPEC, label="l", headers=headers) as one:
            one.predict(ROWS, "tensors", deadline=5)
    path, body, sent = predictions(script)[0]
    assert path == "/proxy/v1/models/a%20model/labels/l:predict"
    assert body == {"signature_name": "predict", "inputs": {"u": ["a", "b"]}}
    assert sent["Authorization"] == "Bearer x"


def test_outputs_come_by_name() -> None:
    """A server's outputs are a map: their order says nothing and differs between processes."""
    with grpc_server(Script()) as address, ServingClient(address, "m", SPEC) as client:
        predict = client._transport.predict

        def shuffled(*given: Any) -> Any:
            outputs, version = predict(*given)
            return {"view": outputs["click"], "click": outputs["click"], "a": SCORES}, version

        client._transport.predict = shuffled  # type: ignore[method-assign]
        assert list(client.predict(ROWS, deadline=5)) == ["a", "click", "view"]


def test_metadata_are_asked_once_per_version() -> None:
    script = Script()
    with grpc_server(script) as address, ServingClient(address, "m", SPEC, deadline=5) as client:
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda _: client.predict(ROWS)["click"], range(24)))
        assert all((f == SCORES).all() for f in found)
        assert len(script.requests) == 24 + 1
        script.version = 4
        client.predict(ROWS)
        client.predict(ROWS)
        client.predict(ROWS)
    assert len(script.requests) == 24 + 1 + 3 + 1


def test_what_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    for address in ("nowhere", "ftp://h:1", "grpc://h", "http://", "grpc://h:99999"):
        with pytest.raises(UserError, match="no address of a model server"):
            ServingClient(address, "m", SPEC)
    with pytest.raises(UserError, match="to a version or to a label"):
        ServingClient("h:1", "m", SPEC, version=1, label="l")
    with pytest.raises(UserError, match="cannot be read"):
        ServingClient("h:1", "m", tmp_path / "none.yaml")
    with grpc_server(Script()) as address, ServingClient(address, "m", SPEC, deadline=5) as client:
        with pytest.raises(ServingError, match="no signature 'rank'"):
            client.rank(ROWS[0], [{"i": "x"}])
        with pytest.raises(
            UserError, match="no form 'tensor' of a request. Did you mean 'tensors'"
        ):
            client.predict(ROWS, "tensor")  # type: ignore[arg-type]
        with pytest.raises(ServingError, match="gives no representation"):
            client.embed(ROWS)
    with pytest.raises(UserError, match="closed"):
        client.predict(ROWS)


@pytest.mark.parametrize("container", ["rows", "mapping", "table"])
def test_excluded_items_join_the_rows(container: str) -> None:
    rows: Any = {
        "rows": ROWS,
        "mapping": {"u": ["a", "b"]},
        "table": pa.table({"u": ["a", "b"]}),
    }[container]
    joined = with_excluded(rows, [["x"], []])
    if container == "rows":
        assert joined == [{"u": "a", "exclude": ["x"]}, {"u": "b", "exclude": []}]
    else:
        assert RawRows(joined).columns["exclude"] == [["x"], []]
    with pytest.raises(ServingError, match="2 in 'u', 1 in 'exclude'|1 lists for 2 rows"):
        RawRows(with_excluded(rows, [["x"]]))


@pytest.fixture(scope="module", params=["grpc", "rest"])
def connect(
    request: pytest.FixtureRequest, server_of_exports: Any, world: Any
) -> Iterator[Callable[..., ServingClient]]:
    server = server_of_exports
    address = server.grpc_address if request.param == "grpc" else server.rest_address
    clients: list[ServingClient] = []

    def make(model: str, **options: Any) -> ServingClient:
        clients.append(ServingClient(address, model, world.spec, deadline=30, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def vectors(world: Any) -> dict[str, np.ndarray]:
    return {name: values[:, :-1] for name, values in world.representations.items()}


@pytest.fixture(scope="module")
def own_scores(exports: Path, world: Any, vectors: Any) -> Callable[[str], dict[str, np.ndarray]]:
    """The SavedModel's scores of the samples, without any server."""

    @cache
    def scores(kind: str) -> dict[str, np.ndarray]:
        loaded = tf.saved_model.load(str(exports / kind / "1"))
        inputs = loaded.signatures["predict"].structured_input_signature[1]
        names = {c for c in world.encoder.raw_types if _request_name(c) in inputs}
        widths = {n: v.shape[1] for n, v in vectors.items() if _request_name(n) in inputs}
        columns = {c: of for c, of in world.encoder.raw_types.items() if c in names}
        examples = RequestSchema(columns, widths).examples(world.columns, vectors)
        found = loaded.signatures["serving_default"](examples=tf.constant(examples))
        return {name: values.numpy() for name, values in found.items()}

    return scores


def _request_name(column: str) -> str:
    from lfm4ads_tf.features.request_name import request_name

    return request_name(column)


def rows_of(world: Any, vectors: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    rows = world.samples.to_pylist()
    for number, row in enumerate(rows):
        row |= {name: values[number] for name, values in vectors.items()}
    return rows


@pytest.mark.parametrize("form", ["examples", "tensors"])
@pytest.mark.parametrize("kind", ["foundation", "ranker_tab 1", "user_tower", "item_tower"])
def test_scores_over_the_wire_are_the_saved_models(
    connect: Any, world: Any, vectors: Any, own_scores: Any, kind: str, form: Any
) -> None:
    expected = own_scores(kind)
    found = connect(kind).predict(rows_of(world, vectors), form)
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        assert_close(found[name], values, terms=200, what=name)


def test_ranking_gives_the_scores_of_single_rows(connect: Any, world: Any, vectors: Any) -> None:
    client = connect("ranker_tab 1")
    sides: dict[str, str] = dict(raw_sides(world.spec))
    sides |= dict.fromkeys(vectors, "user")
    rows = rows_of(world, vectors)
    user = {k: v for k, v in rows[1].items() if sides.get(k, "context") == "user" or k == "tab"}
    items = [
        {k: v for k, v in row.items() if sides.get(k) == "item" or k == "weekday"} for row in rows
    ]
    known = client.builder().schema.columns
    user, items = (
        {k: v for k, v in user.items() if k in known or k in vectors},
        [{k: v for k, v in row.items() if k in known} for row in items],
    )
    expected = client.predict([{**item, **user} for item in items])
    found = client.rank(user, items)
    assert set(found) == {"click", "like"}
    for task, values in found.items():
        assert values.shape == (len(items),)
        np.testing.assert_allclose(values, expected[task], rtol=0, atol=1e-6)


def test_classify_and_regress_give_the_predictions(connect: Any, world: Any, vectors: Any) -> None:
    client = connect("foundation")
    rows = rows_of(world, vectors)
    expected = client.predict(rows)
    classified = client.classify(rows)
    for task in ("click", "like"):
        np.testing.assert_allclose(classified[task], expected[task], rtol=0, atol=1e-6)
        np.testing.assert_allclose(client.regress(rows, task), expected[task], rtol=0, atol=1e-6)
    np.testing.assert_allclose(client.regress(rows), expected["click"], rtol=0, atol=1e-6)
    if "http" in client._transport.address:
        with pytest.raises(ServingError, match="over gRPC only"):
            client.multi_inference(rows)
        return
    both = client.multi_inference(rows, ["classify", "regress_like"])
    np.testing.assert_allclose(both["classify"]["click"], expected["click"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(both["regress_like"], expected["like"], rtol=0, atol=1e-6)


def test_status_and_metadata(connect: Any, exports: Path) -> None:
    client = connect("foundation")
    assert client.status() == [{"version": 1, "state": "AVAILABLE", "error": ""}]
    expected = json.loads(
        (exports / "foundation" / "1" / "assets.extra" / "contract.json").read_text()
    )["signatures"]
    found = client.metadata()
    assert set(found) == set(expected)
    for name, of in expected.items():
        assert found[name]["inputs"] == of["inputs"]
        assert found[name]["outputs"] == of["outputs"]
        assert found[name]["method"].rpartition("/")[2] == of["method"].rpartition("/")[2]


def test_a_model_that_is_not_served_is_not_found(connect: Any, world: Any, vectors: Any) -> None:
    for client in (connect("fundation"), connect("foundation", version=9)):
        with pytest.raises(ServingError) as caught:
            client.predict(rows_of(world, vectors))
        assert caught.value.code == "NOT_FOUND"
        assert "whether it is loaded" in str(caught.value)


def test_the_command_scores_a_file(
    server_of_exports: Any,
    world: Any,
    own_scores: Any,
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(world.spec.model_dump(mode="json")))
    pq.write_table(world.samples, tmp_path / "rows.parquet")
    table = world.samples
    for number, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
        if pa.types.is_list(column.type):
            text = ["|".join(map(str, v or [])) for v in column.to_pylist()]
            table = table.set_column(number, name, pa.array(text))
    pa.csv.write_csv(table, tmp_path / "rows.csv")
    common = ["--server", server_of_exports.grpc_address, "--spec", str(tmp_path / "spec.yaml")]
    options = [*common, "--model", "foundation", "--batch", "7"]
    expected = own_scores("foundation")
    for source, target in (("rows.parquet", "out.parquet"), ("rows.csv", "out.csv")):
        ends = ["--input", str(tmp_path / source), "--output", str(tmp_path / target)]
        assert main([*options, *ends]) == 0
        if target == "out.csv":
            found = list(csv.DictReader((tmp_path / target).open()))
        else:
            found = pq.read_table(tmp_path / target).to_pylist()
        assert [int(row["row"]) for row in found] == list(range(len(table)))
        for task, values in expected.items():
            scores = [float(row[task]) for row in found]
            np.testing.assert_allclose(scores, values, rtol=0, atol=1e-6)
    tower = [*common, "--model", "item_tower", "--input", str(tmp_path / "rows.parquet")]
    assert main([*tower, "--form", "tensors"]) == 0
    lines = capfdbinary.readouterr().out.decode().splitlines()
    assert lines[0] == '"row","representation"'
    assert len(lines) == len(table) + 1 and lines[1].count("|") > 1

    for wrong, reason in (
        (["--model", "nothing"], "NOT_FOUND"),
        (["--input", str(tmp_path / "none.csv")], "no such file"),
        (["--output", str(tmp_path / "out.txt")], ".csv or .parquet"),
        (["--batch", "0"], "positive"),
        (["--label", "stable"], "INVALID_ARGUMENT"),
    ):
        assert main([*options, "--input", str(tmp_path / "rows.csv"), *wrong]) == 2
        assert reason in capfdbinary.readouterr().err.decode()
