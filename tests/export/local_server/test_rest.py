"""REST requests that the local and a real server have to answer alike."""

from __future__ import annotations

import base64
import http.client
import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import pytest


def call(target: Any, path: str, document: Any = None, method: str | None = None) -> Any:
    """The HTTP code and the JSON of the answer."""
    data = document if isinstance(document, bytes) else None
    if document is not None and data is None:
        data = json.dumps(document).encode()
    url = f"{target.rest_address}/v1/models{path}"
    request = urllib.request.Request(url, data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.headers["Content-Type"] == "application/json"
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def test_rows_and_columns_of_a_single_input(target: Any, messages: Any) -> None:
    row, other = b64(messages.example(1, 2, 3)), b64(messages.example(0, 0, 1.5))
    expected = [{"like": 12.0, "share": 24.0}, {"like": 3.0, "share": 6.0}]
    columns = {"like": [12.0, 3.0], "share": [24.0, 6.0]}
    path = "/toy:predict"
    assert call(target, path, {"instances": [row, other]}) == (200, {"predictions": expected})
    named = {"instances": [{"examples": row}, {"examples": other}]}
    assert call(target, path, named) == (200, {"predictions": expected})
    assert call(target, path, {"inputs": [row, other]}) == (200, {"outputs": columns})
    assert call(target, path, {"inputs": {"examples": [row, other]}}) == (200, {"outputs": columns})


def test_a_single_output_has_no_name(target: Any) -> None:
    echo = {"signature_name": "echo"}
    assert call(target, "/toy:predict", {**echo, "instances": [1.5, 2]}) == (
        200,
        {"predictions": [1.5, 2.0]},
    )
    assert call(target, "/toy:predict", {**echo, "inputs": [1.5, 2]}) == (
        200,
        {"outputs": [1.5, 2.0]},
    )


def test_several_inputs_and_bytes(target: Any) -> None:
    request = {
        "signature_name": "predict",
        "instances": [
            {"x": [1, 2, 3], "name": "ä"},
            {"x": [0.5, 0, 0], "name": b64(b"b")},
        ],
    }
    expected = [
        {"like": 12.0, "name": "ä!", "name_bytes": b64("ä!".encode()), "rows": 2},
        {"like": 1.0, "name": "b!", "name_bytes": b64(b"b!"), "rows": 2},
    ]
    assert call(target, "/toy:predict", request) == (200, {"predictions": expected})


def test_numbers_read_back_as_they_are(target: Any) -> None:
    values = [0.1, 1 / 3, 1e-30, 9000000.0, 16777216.0, -0.0, 3.4e38]
    code, answer = call(target, "/toy:predict", {"signature_name": "echo", "instances": values})
    assert code == 200
    assert answer["predictions"] == pytest.approx(values, rel=1e-7)


def test_nan_and_infinity(target: Any) -> None:
    body = b'{"signature_name": "echo", "instances": [NaN, Infinity, -Infinity]}'
    url = f"{target.rest_address}/v1/models/toy:predict"
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=30) as answer:
        text = answer.read().decode()
    assert "".join(text.split()) == '{"predictions":[NaN,Infinity,-Infinity]}'


def test_version_and_label(target: Any, messages: Any) -> None:
    request = {"examples": [{"x": [1.0, 2.0, 3.0]}], "signature_name": "regress"}
    for part, expected in (
        ("", 12.0),
        ("/versions/1", 6.0),
        ("/versions/2", 12.0),
        ("/labels/stable", 6.0),
        ("/labels/canary", 12.0),
    ):
        assert call(target, f"/toy{part}:regress", request) == (200, {"results": [expected]})
    for part, code in (("/versions/3", 404), ("/labels/nightly", 400)):
        got, answer = call(target, f"/toy{part}:regress", request)
        assert got == code and set(answer) == {"error"}


def test_classify(target: Any) -> None:
    request = {
        "signature_name": "classify",
        "context": {"x": [1.0, 1.0, 1.0]},
        "examples": [{}, {"x": [1.0, 2.0, 3.0]}],
    }
    expected = [[["like", 6.0], ["share", 12.0]], [["like", 12.0], ["share", 24.0]]]
    assert call(target, "/toy:classify", request) == (200, {"results": expected})


@pytest.mark.parametrize(
    ("verb", "request_body", "part"),
    [
        ("predict", b"", "empty"),
        ("predict", b"{", "JSON Parse error"),
        ("predict", b"[1]", "object"),
        ("predict", b"[" * 100_000, ""),
        ("predict", b'{"instances": [1]', "JSON Parse error"),
        ("predict", {}, "Missing 'inputs' or 'instances' key"),
        ("predict", {"instances": [], "signature_name": "echo"}, "instances"),
        ("predict", {"instances": 1, "signature_name": "echo"}, "instances"),
        ("predict", {"instances": [1], "inputs": [1]}, "only one of"),
        ("predict", {"instances": [1], "signature_name": 1}, "must be a string"),
        ("predict", {"instances": [1], "signature_name": "nowhere"}, "nowhere"),
        ("predict", {"instances": ["a"], "signature_name": "echo"}, "not of expected type: float"),
        ("predict", {"instances": [True], "signature_name": "echo"}, "not of expected type: float"),
        ("predict", {"instances": [None], "signature_name": "echo"}, "not of expected type: float"),
        ("predict", {"instances": [1 << 25], "signature_name": "echo"}, "loss of precision"),
        ("predict", {"instances": [1e39], "signature_name": "echo"}, "loss of precision"),
        ("predict", {"instances": [1, [2]], "signature_name": "echo"}, ""),
        ("predict", {"instances": [[1], [2, 3]], "signature_name": "echo"}, ""),
        ("predict", {"instances": [[[1], [2]]], "signature_name": "echo"}, ""),
        ("predict", {"instances": [{"values": 1}, 2], "signature_name": "echo"}, ""),
        ("predict", {"instances": [{"other": 1}], "signature_name": "echo"}, "other"),
        ("predict", {"instances": [{"x": [1, 2, 3]}], "signature_name": "predict"}, "name"),
        ("predict", {"instances": [1], "signature_name": "predict"}, "list of objects"),
        ("predict", {"inputs": [1], "signature_name": "predict"}, "multiple input tensors"),
        ("predict", {"inputs": {"x": [[1, 2, 3]]}, "signature_name": "predict"}, "name"),
        ("predict", {"instances": [{"b64": "%%%"}]}, "base64"),
        ("predict", {"instances": [b64(b"garbage")]}, "garbage"),
        (
            "predict",
            {"inputs": {"dividend": [1.5], "divisor": [1]}, "signature_name": "divide"},
            "not of expected type: int64",
        ),
        (
            "predict",
            {"inputs": {"dividend": [1], "divisor": [0]}, "signature_name": "divide"},
            "division by zero",
        ),
        ("classify", {"examples": [{"x": [1.0, 2.0, 3.0]}]}, "tensorflow/serving/classify"),
        ("regress", {"examples": [{"x": [1.0, 2.0, 3.0]}]}, "tensorflow/serving/regress"),
        ("classify", {"signature_name": "classify"}, "examples"),
        ("classify", {"signature_name": "classify", "examples": []}, "examples"),
        ("classify", {"signature_name": "classify", "examples": {}}, "examples"),
        ("classify", {"signature_name": "classify", "examples": [1]}, "Example"),
        ("regress", {"signature_name": "regress", "examples": [{"x": [1, 2.5]}]}, "x"),
        ("regress", {"signature_name": "regress", "examples": [{"x": None}]}, "x"),
        ("regress", {"signature_name": "regress", "examples": [{"x": [[1.0]]}]}, "x"),
        ("regress", {"signature_name": "regress", "examples": [{"x": [1.0]}]}, "x"),
    ],
)
def test_wrong_requests_say_what_is_wrong(
    target: Any, verb: str, request_body: Any, part: str
) -> None:
    if target.real and isinstance(request_body, bytes) and len(request_body) > 1000:
        pytest.skip("the real server's JSON parser may run out of stack")
    code, answer = call(target, f"/toy:{verb}", request_body)
    assert code == 400
    assert set(answer) == {"error"} and part in answer["error"]


def test_paths(target: Any) -> None:
    assert call(target, "/unknown_model:predict", {"instances": [1]})[0] == 404
    assert call(target, "/toy:train", {"instances": [1]})[0] == 400
    assert call(target, "/toy", {"instances": [1]})[0] == 400
    assert call(target, "/toy:predict")[0] == 400
    assert call(target, "/toy", method="DELETE")[0] == 400
    assert call(target, "")[0] == 400
    assert call(target, "/unknown_model")[0] == 404
    assert call(target, "/toy/versions/9")[0] == 404


def test_status(target: Any) -> None:
    def of(version: str) -> dict[str, Any]:
        status = {"error_code": "OK", "error_message": ""}
        return {"version": version, "state": "AVAILABLE", "status": status}

    assert call(target, "/toy") == (200, {"model_version_status": [of("2"), of("1")]})
    assert call(target, "/toy/versions/1") == (200, {"model_version_status": [of("1")]})
    assert call(target, "/toy/labels/canary") == (200, {"model_version_status": [of("2")]})


def test_metadata(target: Any) -> None:
    code, answer = call(target, "/toy/versions/1/metadata")
    assert code == 200
    assert answer["model_spec"] == {"name": "toy", "signature_name": "", "version": "1"}
    signature = answer["metadata"]["signature_def"]["signature_def"]["predict"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    x = signature["inputs"]["x"]
    assert x["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in x["tensor_shape"]["dim"]] == ["-1", "3"]


def test_one_connection_carries_good_and_bad_requests(target: Any) -> None:
    connection = http.client.HTTPConnection(urlsplit(target.rest_address).netloc, timeout=30)
    good = json.dumps({"signature_name": "echo", "instances": [1]}).encode()
    opened = set()
    for body, code in ((good, 200), (b"{", 400), (good, 200)):
        connection.request("POST", "/v1/models/toy:predict", body)
        answer = connection.getresponse()
        assert answer.status == code
        answer.read()
        opened.add(connection.sock)  # None where the server closed it
    connection.request("POST", "/v1/models/toy:predict", iter([good[:9], good[9:]]))  # in chunks
    assert json.loads(connection.getresponse().read()) == {"predictions": [1.0]}
    assert None not in opened and len(opened) == 1  # never closed in between
    connection.close()


def test_metrics_page(target: Any, messages: Any) -> None:
    target.prediction.Predict(messages.predict(examples=[messages.example(1, 2, 3)]))
    url = f"{target.rest_address}/monitoring/prometheus/metrics"
    with urllib.request.urlopen(url, timeout=30) as answer:
        page = answer.read().decode()
    assert ':tensorflow:serving:request_count{model_name="toy",status="OK"}' in page
    assert ":tensorflow:serving:request_latency_sum{" in page
    assert ':tensorflow:serving:runtime_latency_count{model_name="toy",API="Predict"' in page
