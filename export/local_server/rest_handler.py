"""The REST paths: what a method and a path mean, and the HTTP code of an error."""

from __future__ import annotations

import json
import re
import traceback
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2

from lfm4ads_tf.export.local_server.json_tensors import (
    classification_response,
    examples,
    parse_json_object,
    predict_inputs,
    predict_response,
    regression_response,
    signature_name,
)
from lfm4ads_tf.export.local_server.metrics import Metrics
from lfm4ads_tf.export.local_server.model_service import model_status
from lfm4ads_tf.export.local_server.model_store import ModelStore
from lfm4ads_tf.export.local_server.prediction_service import model_metadata
from lfm4ads_tf.export.local_server.servable import DEFAULT_SIGNATURE
from lfm4ads_tf.export.local_server.status_error import StatusError, invalid

_VERSION = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_FLAGS = re.IGNORECASE | re.ASCII
_RUN = re.compile(
    rf"/v1/models/(?P<model>[^/:]+){_VERSION}:(?P<verb>classify|regress|predict)", _FLAGS
)
_LOOK = re.compile(rf"/v1/models(?:/(?P<model>[^/:]+))?{_VERSION}(?:/(?P<part>metadata))?", _FLAGS)
_HTTP_CODES = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}  # all others: 500


_MAX_MESSAGE = 1024


@dataclass(frozen=True)
class RestAnswer:
    """What goes back to a REST client."""

    code: int
    body: bytes
    content_type: str = "application/json"


class RestHandler:
    """Answers REST requests.

    Args:
        store: Lends the versions.
        metrics: Counts the requests.
        metrics_path: Path of the metrics page; None for none.
    """

    def __init__(self, store: ModelStore, metrics: Metrics, metrics_path: str | None) -> None:
        self._store = store
        self._metrics = metrics
        self._metrics_path = metrics_path

    def answer(self, method: str, path: str, body: bytes) -> RestAnswer:
        """Answers one request; never raises.

        Args:
            method: `GET`, `POST`, ...
            path: Path of the URL, without the query.
            body: Content of the request.
        """
        if path == self._metrics_path:
            return RestAnswer(200, self._metrics.page().encode(), "text/plain")
        if not path.lower().startswith("/v1/"):
            return RestAnswer(404, _error("Not Found"))
        try:
            return RestAnswer(200, self._run(method, path, body).encode())
        except Exception as error:
            failure = StatusError.of(error)
            if failure.code == grpc.StatusCode.INTERNAL and not isinstance(error, StatusError):
                traceback.print_exc()
            return RestAnswer(_HTTP_CODES.get(failure.code, 500), _error(failure.message))

    def _run(self, method: str, path: str, body: bytes) -> str:
        if method == "POST" and (match := _RUN.fullmatch(path)):
            spec = _spec(match)
            verb = match["verb"]
            if verb == "predict":
                return self._predict(spec, body)
            if verb == "classify":
                return self._classify(spec, body)
            if verb == "regress":
                return self._regress(spec, body)
        if method == "GET" and (match := _LOOK.fullmatch(path)):
            if match["model"] is None:
                raise invalid("Missing model name in request.")
            return self._look(_spec(match), match["part"])
        raise invalid(f"Malformed request: {method} {path}")

    def _predict(self, spec: Any, body: bytes) -> str:
        with self._metrics.request("Predict", "REST") as timer:
            timer.model = spec.name
            document = parse_json_object(body)
            signature = signature_name(document) or DEFAULT_SIGNATURE
            with self._store.lease(spec) as (_, servable):
                definition = servable.signatures.get(signature)
                if definition is None:
                    raise invalid(
                        f'Serving signature name: "{signature}" not found in signature def'
                    )
                if not definition.inputs:
                    raise invalid(f"Failed to get input map for signature: {signature}")
                inputs, rows = predict_inputs(document, definition.inputs)
                outputs = servable.predict(signature, inputs, [], timer)
            return predict_response(outputs, rows)

    def _classify(self, spec: Any, body: bytes) -> str:
        with self._metrics.request("Classify", "REST") as timer:
            timer.model = spec.name
            document = parse_json_object(body)
            signature, rows = signature_name(document), examples(document)
            with self._store.lease(spec) as (_, servable):
                return classification_response(servable.classify(signature, rows, timer))

    def _regress(self, spec: Any, body: bytes) -> str:
        with self._metrics.request("Regress", "REST") as timer:
            timer.model = spec.name
            document = parse_json_object(body)
            signature, rows = signature_name(document), examples(document)
            with self._store.lease(spec) as (_, servable):
                return regression_response(servable.regress(signature, rows, timer))

    def _look(self, spec: Any, page: str | None) -> str:
        if page is None:
            return _json(model_status(self._store, spec))
        response = model_metadata(self._store, spec, ["signature_def"])
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        return (
            f'{{\n"model_spec":{_json(response.model_spec)},\n'
            f'"metadata": {{"signature_def": {_json(signatures)}}}\n}}\n'
        )


def _spec(match: re.Match[str]) -> Any:
    spec = model_pb2.ModelSpec(name=unquote(match["model"]))
    if match["version"] is not None:
        number = int(match["version"])
        if number >= 2**63:
            raise invalid(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = number
    elif match["label"] is not None:
        spec.version_label = unquote(match["label"])
    return spec


def _json(message: Any) -> str:
    return json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _error(message: str) -> bytes:
    if len(message) > _MAX_MESSAGE:  # an op quotes what it was fed, which may be long
        message = f"{message[:_MAX_MESSAGE]}...TRUNCATED"
    return json.dumps({"error": message}).encode()
