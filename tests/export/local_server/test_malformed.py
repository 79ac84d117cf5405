"""1,000 malformed requests to real exports: each gets its code, and the server goes on."""

from __future__ import annotations

import base64
import http.client
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)

from lfm4ads_tf.export.local_server.messages import SerializedRequest
from lfm4ads_tf.export.local_server.server import LocalServer

Code = grpc.StatusCode
RANKER, FOUNDATION = "ranker_tab 1", "foundation"
ROWS = 4
LARGE = 64 << 20
METHODS = {"classify": "tensorflow/serving/classify", "regress": "tensorflow/serving/regress"}
OTHER_DTYPES = {"O": [np.int64, np.float32], "f": [np.float64, np.int32], "i": [np.int32, bool]}


@dataclass(frozen=True)
class Case:
    """A request to a method of the PredictionService, or to a REST verb (`:predict`, ...).

    Attributes:
        kind: What is wrong with it.
        api: Method, or path of REST.
        data: Serialized message, or body.
        code: What it must be answered with: a gRPC code, or an HTTP status.
    """

    kind: str
    api: str
    data: bytes
    code: Any


class Requests:
    """Good requests, from the golden ones of an export, and what goes wrong with them."""

    def __init__(self, exports: Path, rng: np.random.Generator) -> None:
        self.rng = rng
        self.golden: dict[str, dict[str, dict[str, np.ndarray]]] = {}
        self.shapes: dict[str, dict[str, dict[str, Any]]] = {}
        for model in (RANKER, FOUNDATION):
            extra = exports / model / "1" / "assets.extra"
            with np.load(extra / "golden.npz") as held:
                for key in held.files:
                    if not key.startswith("requests/"):
                        continue
                    _, signature, name = key.split("/")
                    proto = tensor_pb2.TensorProto.FromString(held[key].tobytes())
                    rows = tf.make_ndarray(proto)[:ROWS]
                    self.golden.setdefault(model, {}).setdefault(signature, {})[name] = rows
            contract = json.loads((extra / "contract.json").read_text())["signatures"]
            self.shapes[model] = {
                s: {name: of["shape"] for name, of in about["inputs"].items()}
                for s, about in contract.items()
            }

    def pick(self, choices: Any) -> Any:
        choices = list(choices)
        return choices[self.rng.integers(len(choices))]

    def any_model(self) -> str:
        return str(self.pick(self.golden))

    # good requests

    def predict(self, model: str, signature: str, **changed: np.ndarray) -> Any:
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = model, signature
        for name, array in {**self.golden[model][signature], **changed}.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
        return request

    def examples(self, model: str) -> list[bytes]:
        return list(self.golden[model]["classify"]["inputs"])

    def of_examples(self, model: str, signature: str, examples: list[bytes]) -> Any:
        """Classify or Regress, with examples that need not be valid."""
        spec = predict_pb2.PredictRequest().model_spec
        spec.name, spec.signature_name = model, signature
        return self.serialized([spec], examples)

    def multi(self, model: str, tasks: list[tuple[str, str]], examples: list[bytes]) -> Any:
        heads = []
        for signature, method in tasks:
            task = inference_pb2.InferenceTask(method_name=method)
            task.model_spec.name, task.model_spec.signature_name = model, signature
            heads.append(task)
        return self.serialized(heads, examples)

    @staticmethod
    def serialized(heads: list[Any], examples: list[bytes]) -> Any:
        request = SerializedRequest(head=[head.SerializeToString() for head in heads])
        request.input.example_list.examples.extend(examples)
        return request

    # what goes wrong with tensors

    def input_of(self, model: str, signature: str, fits: Callable[[Any], bool]) -> str:
        shapes = self.shapes[model][signature]
        return str(self.pick(name for name, shape in shapes.items() if fits(shape)))

    def wrong_dtype(self) -> tuple[Any, Code]:
        model = self.any_model()
        signature = self.pick(self.golden[model])
        name = self.pick(self.golden[model][signature])
        array = self.golden[model][signature][name]
        other = np.zeros(array.shape, self.pick(OTHER_DTYPES[array.dtype.kind]))
        return self.predict(model, signature, **{name: other}), Code.INVALID_ARGUMENT

    def wrong_rank(self) -> tuple[Any, Code]:
        model = self.any_model()
        signature = self.pick(self.golden[model])
        name = self.pick(self.golden[model][signature])
        array = self.golden[model][signature][name]
        flat = array.reshape(-1) if array.ndim == 2 else array[:1].reshape(())
        other = self.pick([array[..., None], array[None], flat])
        return self.predict(model, signature, **{name: other}), Code.INVALID_ARGUMENT

    def wrong_inner_size(self) -> tuple[Any, Code]:
        model = self.any_model()
        signature = self.pick({"predict", "rank"} & self.golden[model].keys())
        name = self.input_of(model, signature, lambda s: len(s) == 2 and s[1] is not None)
        array = self.golden[model][signature][name]
        other = self.pick([array[:, :-1], array[:, :0], np.repeat(array, 2, axis=1)])
        return self.predict(model, signature, **{name: other}), Code.INVALID_ARGUMENT

    def unequal_rows(self) -> tuple[Any, Code]:
        model = self.any_model()
        signature = self.pick({"predict", "rank"} & self.golden[model].keys())
        name = self.pick(self.golden[model][signature])
        array = self.golden[model][signature][name]
        choices = [np.repeat(array, 2, axis=0), array[:0]]
        if len(array) > 2:  # of `rank`, a column of the context may have one row
            choices += [array[:2], array[1:]]
        return self.predict(model, signature, **{name: self.pick(choices)}), Code.INVALID_ARGUMENT

    def unequal_lists(self) -> tuple[Any, Code]:
        model = self.any_model()
        weights = self.golden[model]["predict"]["tag_weights"]
        other = self.pick([weights[:, :-1], np.repeat(weights, 2, axis=1)])
        return self.predict(model, "predict", tag_weights=other), Code.INVALID_ARGUMENT

    def unknown_input(self) -> tuple[Any, Code]:
        model = self.any_model()
        request = self.predict(model, self.pick(self.golden[model]))
        name = self.pick(request.inputs)
        request.inputs[f"feature_{self.rng.integers(1000)}"].CopyFrom(request.inputs[name])
        return request, Code.INVALID_ARGUMENT

    def missing_input(self) -> tuple[Any, Code]:
        model = self.any_model()
        request = self.predict(model, self.pick(self.golden[model]))
        del request.inputs[self.pick(request.inputs)]
        return request, Code.INVALID_ARGUMENT

    def no_inputs(self) -> tuple[Any, Code]:
        model = self.any_model()
        request = self.predict(model, self.pick(self.golden[model]))
        request.inputs.clear()
        return request, Code.INVALID_ARGUMENT

    def undecodable_tensor(self) -> tuple[Any, Code]:
        request = self.predict(self.any_model(), "predict")
        tensor = request.inputs[self.pick(["price", "weekday", "vector"])]
        match self.rng.integers(4):
            case 0:
                tensor.tensor_content += self.rng.bytes(3)
            case 1:
                tensor.dtype = int(self.rng.integers(200, 1000))
            case 2:
                tensor.tensor_shape.dim[0].size = -int(self.rng.integers(1, 9))
            case _:
                tensor.Clear()
        return request, Code.INVALID_ARGUMENT

    def unknown_output(self) -> tuple[Any, Code]:
        request = self.predict(self.any_model(), "predict")
        names = ["click", "click"] if self.rng.integers(2) else [f"o{self.rng.integers(99)}"]
        request.output_filter.extend(names)
        return request, Code.INVALID_ARGUMENT

    def unknown_signature(self) -> tuple[Any, Code]:
        request = self.predict(self.any_model(), "predict")
        request.model_spec.signature_name = f"signature_{self.rng.integers(1000)}"
        return request, Code.FAILED_PRECONDITION

    def misdirected(self, request: Any) -> Code:
        """Makes a request name a model, version or label that is not there."""
        match self.rng.integers(4):
            case 0:
                request.model_spec.name = f"model_{self.rng.integers(1000)}"
                return Code.NOT_FOUND
            case 1:
                request.model_spec.version.value = int(self.rng.integers(2, 1 << 62))
                return Code.NOT_FOUND
            case 2:
                request.model_spec.version_label = f"label_{self.rng.integers(1000)}"
                return Code.INVALID_ARGUMENT
            case _:
                request.model_spec.name = ""
                return Code.INVALID_ARGUMENT

    def misdirected_predict(self) -> tuple[Any, Code]:
        request = self.predict(self.any_model(), "serving_default")
        return request, self.misdirected(request)

    # what goes wrong with examples

    def bad_example(self, model: str) -> list[bytes]:
        """Examples of which one is no message, or has a list of another type."""
        examples = self.examples(model)
        at = int(self.rng.integers(len(examples)))
        if self.rng.integers(2):
            examples[at] = b"\xff" + self.rng.bytes(int(self.rng.integers(1, 50)))
            return examples
        row = tf.train.Example.FromString(examples[at])
        name = self.pick(["user_id", "price", "tags", "vector", "weekday"])
        feature = row.features.feature[name]
        feature.Clear()
        if name in ("user_id", "tags"):
            feature.int64_list.value.append(1)
        else:
            feature.bytes_list.value.append(b"1")
        examples[at] = row.SerializeToString()
        return examples

    def bad_example_predicted(self) -> tuple[Any, Code]:
        model = self.any_model()
        signature = self.pick(["serving_default", "encode", "classify", "regress"])
        name = next(iter(self.golden[model][signature]))
        rows = np.array(self.bad_example(model), object)
        return self.predict(model, signature, **{name: rows}), Code.INVALID_ARGUMENT

    def bad_example_inferred(self, api: str) -> tuple[Any, Code]:
        model = self.any_model()
        return self.inference(api, model, self.bad_example(model)), Code.INVALID_ARGUMENT

    def inference(self, api: str, model: str, examples: list[bytes]) -> Any:
        if api == "MultiInference":
            tasks = [("classify", METHODS["classify"]), ("regress_like", METHODS["regress"])]
            return self.multi(model, tasks, examples)
        return self.of_examples(model, api.lower().replace("ification", "ify"), examples)

    def empty_input(self, api: str) -> tuple[Any, Code]:
        request = self.inference(api, self.any_model(), [])
        if self.rng.integers(2):
            request.ClearField("input")
        return request, Code.INVALID_ARGUMENT

    def wrong_signature(self, api: str) -> tuple[Any, Code]:
        """A signature of another method, or none; in MultiInference twice the same too."""
        model = self.any_model()
        examples = self.examples(model)
        if api == "MultiInference":
            classify, regress = METHODS["classify"], METHODS["regress"]
            tasks = self.pick(
                [
                    [("regress", regress), ("regress", regress)],
                    [("classify", classify), ("regress", classify)],
                    [("classify", regress)],
                    [("nowhere", classify)],
                    [("serving_default", regress)],
                    [],
                ]
            )
            return self.multi(model, tasks, examples), Code.INVALID_ARGUMENT
        own = "classify" if api == "Classify" else "regress"
        others = {"", "serving_default", "predict", "encode", "nowhere", *METHODS} - {own}
        return self.of_examples(model, self.pick(sorted(others)), examples), Code.INVALID_ARGUMENT

    def misdirected_inference(self, api: str) -> tuple[Any, Code]:
        examples = self.examples(FOUNDATION)
        if api == "MultiInference":
            task = inference_pb2.InferenceTask(method_name=METHODS["regress"])
            task.model_spec.name, task.model_spec.signature_name = FOUNDATION, "regress"
            code = self.misdirected(task)
            if self.rng.integers(4) == 0:  # two models in one request
                task.model_spec.name, task.model_spec.signature_name = FOUNDATION, "regress"
                task.model_spec.ClearField("version_choice")
                other = inference_pb2.InferenceTask(method_name=METHODS["classify"])
                other.model_spec.name, other.model_spec.signature_name = RANKER, "classify"
                return self.serialized([task, other], examples), Code.INVALID_ARGUMENT
            return self.serialized([task], examples), code
        kind = {
            "Classify": classification_pb2.ClassificationRequest,
            "Regress": regression_pb2.RegressionRequest,
        }[api]
        request = kind()
        request.model_spec.name = FOUNDATION
        request.model_spec.signature_name = api.lower()
        for example in examples:
            request.input.example_list.examples.add().MergeFromString(example)
        return request, self.misdirected(request)

    def unsupported_method(self, api: str) -> tuple[Any, Code]:
        method = self.pick(["tensorflow/serving/predict", "", f"m{self.rng.integers(99)}"])
        tasks = [("regress", METHODS["regress"]), ("serving_default", method)]
        return self.multi(FOUNDATION, tasks, self.examples(FOUNDATION)), Code.UNIMPLEMENTED

    # bytes that are no message

    def truncated(self, api: str) -> tuple[bytes, Code]:
        """A good request that ends too early; an end between two fields would be a message."""
        model = self.any_model()
        parsed: Any = SerializedRequest
        if api == "Predict":
            parsed = predict_pb2.PredictRequest
            data = self.predict(model, self.pick(self.golden[model])).SerializeToString()
        else:
            data = self.inference(api, model, self.examples(model)).SerializeToString()
        while True:
            cut = data[: self.rng.integers(1, len(data))]
            try:
                parsed.FromString(cut)
            except DecodeError:
                return cut, Code.INTERNAL

    def of_method(self, api: str, number: int) -> Case:
        if api == "Predict":
            makers = [
                self.wrong_dtype,
                self.wrong_rank,
                self.wrong_inner_size,
                self.unequal_rows,
                self.unequal_lists,
                self.unknown_input,
                self.missing_input,
                self.no_inputs,
                self.undecodable_tensor,
                self.unknown_output,
                self.unknown_signature,
                self.misdirected_predict,
                self.bad_example_predicted,
                lambda: self.truncated(api),
            ]
            names = [m.__name__ for m in makers[:-1]] + ["truncated"]
        else:
            methods = [
                self.bad_example_inferred,
                self.empty_input,
                self.wrong_signature,
                self.misdirected_inference,
                self.truncated,
            ]
            if api == "MultiInference":
                methods.append(self.unsupported_method)
            makers = [lambda m=m: m(api) for m in methods]  # type: ignore[misc]
            names = [m.__name__ for m in methods]
        at = number % len(makers)
        made, code = makers[at]()
        data = made if isinstance(made, bytes) else made.SerializeToString()
        return Case(names[at], api, data, code)

    # REST

    def rest(self, number: int) -> Case:
        model = self.any_model()
        path = f"/v1/models/{quote(model)}"
        columns = {n: _listed(a) for n, a in self.golden[model]["predict"].items()}
        body: Any = {"signature_name": "predict", "inputs": columns}
        features = {"user_id": ["u"], "price": [1.5], "weekday": [1]}
        examples: Any = {"signature_name": "classify", "examples": [features]}
        kinds = [
            "wrong type", "ragged", "wrong rank", "wrong inner size", "unequal rows", "missing",
            "unknown", "signature", "truncated", "example type", "no examples", "garbage example",
            "wrong verb", "nothing there",
        ]  # fmt: skip
        kind = kinds[number % len(kinds)]
        code, verb = 400, ":predict"
        name = self.pick(columns)
        match kind:
            case "wrong type":
                columns[self.pick(["price", "weekday", "vector"])] = [["text"]]
            case "ragged":
                columns["tags"] = [["a"], ["a", "b"], [], []]
            case "wrong rank":
                columns[name] = [columns[name]]
            case "wrong inner size":
                columns["vector"] = [[1.0]] * ROWS
            case "unequal rows":
                columns[name] = columns[name] * 2
            case "missing":
                del columns[name]
            case "unknown":
                # Of rows: more than the inputs in `inputs` is passed over, as by the real server.
                rows = [{n: values[i] for n, values in columns.items()} for i in range(ROWS)]
                rows[self.rng.integers(ROWS)][f"feature_{self.rng.integers(1000)}"] = 1.0
                body = {"signature_name": "predict", "instances": rows}
            case "signature":
                body["signature_name"] = self.pick(["nowhere", 3, None, ["predict"]])
            case "truncated":
                text = json.dumps(body).encode()
                return Case(kind, path + verb, text[: self.rng.integers(len(text))], code)
            case "example type":
                wrong = {"user_id": [1], "price": ["a"], "weekday": [1, "b"], "tags": [[1]]}
                name = self.pick(wrong)
                features[name] = wrong[name]
                body, verb = examples, ":classify"
            case "no examples":
                body, verb = self.pick([{**examples, "examples": []}, {}, []]), ":classify"
            case "garbage example":
                row = {"b64": base64.b64encode(b"\xff" + self.rng.bytes(9)).decode()}
                body = {"instances": [row]}
            case "wrong verb":
                body, verb = examples, self.pick([":regress", ":train"])
            case _:
                where = self.pick(["/versions/7", "/labels/nightly", "_2"])
                path, code = path + where, 400 if "labels" in where else 404
        return Case(kind, path + verb, json.dumps(body).encode(), code)


def _listed(array: np.ndarray) -> list[Any]:
    """An array as JSON; the golden rows hold no NaN that would matter here."""
    if array.dtype != object:
        return list(np.nan_to_num(array).tolist())
    return [_listed(row) if isinstance(row, np.ndarray) else row.decode() for row in array]


class Server:
    """The local server as clients see it."""

    def __init__(self, rest_address: str, channel: grpc.Channel) -> None:
        self.channel = channel
        self.rest = http.client.HTTPConnection(urlsplit(rest_address).netloc, timeout=60)

    def begin(self, method: str, data: bytes) -> Any:
        call = self.channel.unary_unary(f"/tensorflow.serving.PredictionService/{method}")
        return call.future(data, timeout=60)

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        self.rest.request("POST", path, body)
        answer = self.rest.getresponse()
        return answer.status, answer.read()


@pytest.fixture(scope="module")
def server(server_of_exports: LocalServer, messages: Any) -> Iterator[Server]:
    with messages.channel(server_of_exports.grpc_address) as channel:
        yield Server(server_of_exports.rest_address, channel)


@pytest.fixture
def requests(exports: Path) -> Requests:
    return Requests(exports, np.random.default_rng(0))


@pytest.fixture
def good_answers(server: Server, requests: Requests) -> Callable[[], dict[str, bytes]]:
    """The answers to good requests of every API."""

    def ask() -> dict[str, bytes]:
        found = {}
        for model in (RANKER, FOUNDATION):
            asked = {
                f"Predict {signature}": requests.predict(model, signature)
                for signature in requests.golden[model]
            }
            for api in ("Classify", "Regress", "MultiInference"):
                asked[api] = requests.inference(api, model, requests.examples(model))
            metadata = get_model_metadata_pb2.GetModelMetadataRequest()
            metadata.model_spec.name = model
            metadata.metadata_field.append("signature_def")
            asked["GetModelMetadata"] = metadata
            for name, request in asked.items():
                call = server.begin(name.split()[0], request.SerializeToString())
                found[f"{model} {name}"] = call.result()
            row = {"b64": base64.b64encode(requests.examples(model)[0]).decode()}
            body = json.dumps({"instances": [row]}).encode()
            status, answer = server.post(f"/v1/models/{quote(model)}:predict", body)
            assert status == 200, answer
            found[f"{model} REST"] = answer
        return found

    return ask


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_malformed_requests(
    server: Server, requests: Requests, good_answers: Callable[[], dict[str, bytes]], count: int
) -> None:
    before = good_answers()
    methods = [("Predict", 420), ("Classify", 120), ("Regress", 120), ("MultiInference", 130)]
    cases = [requests.of_method(api, n) for api, count in methods for n in range(count)]
    cases += [requests.rest(n) for n in range(210)]
    assert len(cases) == 1000
    order = requests.rng.permutation(len(cases))[:count]
    wrong: list[Any] = []
    for start in range(0, count, 100):
        chunk = [cases[i] for i in order[start : start + 100]]
        asked = [(c, server.begin(c.api, c.data)) for c in chunk if "/" not in c.api]
        for case in chunk:
            if "/" in case.api:
                status, answer = server.post(case.api, case.data)
                if status != case.code or set(json.loads(answer)) != {"error"}:
                    wrong.append((case.kind, case.api, case.code, status, answer[:200]))
        for case, call in asked:
            if call.code() != case.code or not call.details():
                wrong.append((case.kind, case.api, case.code, call.code(), call.details()[:200]))
        assert good_answers() == before
    assert not wrong, (Counter(w[:2] for w in wrong), wrong[:8])


@pytest.mark.slow
def test_requests_of_64_mb(
    server: Server, requests: Requests, good_answers: Callable[[], dict[str, bytes]]
) -> None:
    before = good_answers()
    text = np.array([b"x" * LARGE] + [b"u"] * (ROWS - 1), object)
    feature = tf.train.Example()
    feature.features.feature["user_id"].int64_list.value.append(1)  # of a wrong type
    feature.features.feature["padding"].bytes_list.value.append(b"x" * (1 << 20))
    examples = [feature.SerializeToString()] * 64
    floats = np.zeros((LARGE // 16, 4), np.float32)
    cases = [
        ("Predict", requests.predict(RANKER, "predict", user_id=text), Code.OK),
        ("Predict", requests.predict(RANKER, "predict", vector=floats), Code.INVALID_ARGUMENT),
        ("Predict", requests.predict(RANKER, "predict", price=text), Code.INVALID_ARGUMENT),
        (
            "Predict",
            requests.predict(RANKER, "serving_default", examples=text),
            Code.INVALID_ARGUMENT,
        ),
        *(
            (api, requests.inference(api, FOUNDATION, examples), Code.INVALID_ARGUMENT)
            for api in ("Classify", "Regress", "MultiInference")
        ),
        ("Classify", b"\xff" * LARGE, Code.INTERNAL),
        (
            "Regress",
            requests.inference("Regress", RANKER, examples).SerializeToString()[:-1],
            Code.INTERNAL,
        ),
    ]
    for api, request, code in cases:
        data = request if isinstance(request, bytes) else request.SerializeToString()
        assert len(data) > 0.99 * LARGE
        call = server.begin(api, data)
        assert call.code() == code, (api, code, call.details())
        assert not call.details() or len(call.details()) < 2000
    for body in (b"[" * LARGE, b'{"instances": ["' + b"u" * LARGE + b'"]}'):
        status, answer = server.post(f"/v1/models/{quote(RANKER)}:predict", body)
        assert status == 400 and len(answer) < 4000
    assert good_answers() == before


def test_empty_tensors_give_empty_scores_or_are_refused(
    server: Server, requests: Requests, good_answers: Callable[[], dict[str, bytes]]
) -> None:
    before = good_answers()
    for model in (RANKER, FOUNDATION):
        for signature, inputs in requests.golden[model].items():
            empty = {name: array[:0] for name, array in inputs.items()}
            if signature == "rank":  # no candidate; the user stays
                one = {n for n, array in inputs.items() if len(array) == 1}
                empty |= {name: inputs[name] for name in one}
            call = server.begin(
                "Predict", requests.predict(model, signature, **empty).SerializeToString()
            )
            assert call.code() == Code.OK, (model, signature, call.details())
            for tensor in predict_pb2.PredictResponse.FromString(call.result()).outputs.values():
                assert tensor.tensor_shape.dim[0].size == 0
    assert good_answers() == before
