"""Requests to a model server over REST."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2

from lfm4ads_tf.export.wire.model_target import HIDDEN, ModelTarget
from lfm4ads_tf.export.wire.retry_policy import Deadline
from lfm4ads_tf.export.wire.serving_error import ServingError, refused

_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    412: "FAILED_PRECONDITION",
    413: "RESOURCE_EXHAUSTED",
    416: "OUT_OF_RANGE",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_CHUNK = 1 << 16


class RestTransport:
    """Connections that are kept open and lent to one thread at a time.

    Args:
        url: http(s)://host:port, and what a proxy puts before `/v1`.
        headers: Sent with every request.
    """

    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self.address = url
        self._prefix = parts.path.rstrip("/")
        self._host, self._port = parts.hostname or "", parts.port
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Closes the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def predict(
        self,
        target: ModelTarget,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, Any],
        deadline: Deadline,
    ) -> tuple[dict[str, np.ndarray], int | None]:
        """Outputs; the version is not told.

        Args:
            target: The model.
            signature: A Predict signature.
            inputs: Name -> array; texts are objects of type bytes.
            outputs: Name -> dtype and shape: JSON has no types, and leaves a single name out.
            deadline: Of the call.
        """
        held = {name: _json(array, binary=name == "examples") for name, array in inputs.items()}
        body = {"signature_name": signature, "inputs": held}
        answer = self._ask(target, ":predict", body, deadline)["outputs"]
        if len(outputs) == 1:
            answer = {next(iter(outputs)): answer}
        return {name: _array(values, outputs.get(name)) for name, values in answer.items()}, None

    def classify(
        self, target: ModelTarget, signature: str, examples: Sequence[bytes], deadline: Deadline
    ) -> list[list[tuple[str, float]]]:
        """Label and score of every class, per example."""
        body = {"signature_name": signature, "examples": [_features(e) for e in examples]}
        results = self._ask(target, ":classify", body, deadline)["results"]
        return [[(label, score) for label, score in row] for row in results]

    def regress(
        self, target: ModelTarget, signature: str, examples: Sequence[bytes], deadline: Deadline
    ) -> list[float]:
        """A value per example."""
        body = {"signature_name": signature, "examples": [_features(e) for e in examples]}
        values: list[float] = self._ask(target, ":regress", body, deadline)["results"]
        return values

    def multi_inference(
        self,
        target: ModelTarget,
        methods: Mapping[str, str],
        examples: Sequence[bytes],
        deadline: Deadline,
    ) -> dict[str, Any]:
        """There is no such path.

        Raises:
            ServingError: Always.
        """
        raise ServingError(
            "UNIMPLEMENTED",
            "A model server answers MultiInference over gRPC only.",
            received=self.address,
            fix="use grpc://host:port, or `classify` and `regress`",
        )

    def metadata(
        self, target: ModelTarget, deadline: Deadline
    ) -> tuple[dict[str, Any], int | None]:
        """Signature -> method, inputs and outputs; and the version."""
        answer = self._ask(target, "/metadata", None, deadline)
        signatures = {}
        for name, signature in answer["metadata"]["signature_def"]["signature_def"].items():
            if name.startswith(HIDDEN):
                continue
            signatures[name] = {
                "method": signature.get("method_name", ""),
                "inputs": {k: _tensor_info(v) for k, v in signature.get("inputs", {}).items()},
                "outputs": {k: _tensor_info(v) for k, v in signature.get("outputs", {}).items()},
            }
        version = answer.get("model_spec", {}).get("version")
        return signatures, None if version is None else int(version)

    def status(self, target: ModelTarget, deadline: Deadline) -> list[dict[str, Any]]:
        """Version, state and error of every version."""
        answer = self._ask(target, "", None, deadline)
        return [
            {
                "version": int(version["version"]),
                "state": version["state"],
                "error": version.get("status", {}).get("error_message", ""),
            }
            for version in answer["model_version_status"]
        ]

    def _ask(
        self, target: ModelTarget, path: str, body: Mapping[str, Any] | None, deadline: Deadline
    ) -> Any:
        """One request and its decoded answer; GET without a body."""
        asked = f"{'GET' if body is None else 'POST'} {target.path()}{path} at {self.address}"
        payload = None if body is None else json.dumps(body).encode()
        try:
            status, content = self._exchange(self._prefix + target.path() + path, payload, deadline)
        except TimeoutError as error:
            details = f"no answer within {deadline.seconds:g} s"
            raise refused("DEADLINE_EXCEEDED", asked, details) from error
        except ssl.SSLError as error:
            raise refused("UNAUTHENTICATED", asked, f"TLS: {error}") from error
        except (OSError, http.client.HTTPException) as error:
            # refused, reset, or closed before an answer
            raise refused("UNAVAILABLE", asked, f"{type(error).__name__}: {error}") from error
        try:
            answer = json.loads(content)
        except ValueError as error:
            code = _CODES.get(status, "UNKNOWN")
            text = content[:200].decode(errors="replace")
            raise refused(code, asked, f"HTTP {status}, not JSON: {text}") from error
        if status != 200:
            details = answer.get("error", content.decode()) if isinstance(answer, dict) else answer
            raise refused(_CODES.get(status, "UNKNOWN"), asked, f"HTTP {status}: {details}")
        return answer

    def _exchange(self, path: str, payload: bytes | None, deadline: Deadline) -> tuple[int, bytes]:
        """Sends over an idle connection, or over a new one where the idle one was closed."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None:
            try:
                return self._send(connection, path, payload, deadline)
            except TimeoutError:
                raise
            except (OSError, http.client.HTTPException):
                # The server closes connections that are idle for long; all of ours may be so old.
                self.close()
        return self._send(self._connection(), path, payload, deadline)

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is not None:
            return http.client.HTTPSConnection(self._host, self._port, context=self._tls)
        return http.client.HTTPConnection(self._host, self._port)

    def _send(
        self,
        connection: http.client.HTTPConnection,
        path: str,
        payload: bytes | None,
        deadline: Deadline,
    ) -> tuple[int, bytes]:
        try:
            connection.timeout = _left(deadline)
            if connection.sock is None:
                connection.connect()
            connection.sock.settimeout(_left(deadline))
            method = "GET" if payload is None else "POST"
            connection.request(method, path, payload, self._headers)
            connection.sock.settimeout(_left(deadline))
            socket = connection.sock  # http.client forgets it when the server will close
            response = connection.getresponse()
            chunks = []
            while chunk := response.read1(_CHUNK):
                chunks.append(chunk)
                # A timeout is of one read; a slow answer in many pieces shall end in time too.
                if not response.isclosed():
                    socket.settimeout(_left(deadline))
            response.close()
        except BaseException:
            connection.close()
            raise
        if connection.sock is not None:
            with self._lock:
                self._idle.append(connection)
        return response.status, b"".join(chunks)


def _left(deadline: Deadline) -> float:
    """Seconds left for a socket, which takes 0 as "do not wait"."""
    remaining = deadline.remaining()
    if remaining <= 0:
        raise TimeoutError
    return remaining


def _json(array: np.ndarray, *, binary: bool) -> Any:
    """An array as nested lists; texts of any bytes in base64, others as they are."""
    if array.dtype != object:
        return array.tolist()  # float32 as the double of the same value: nothing is lost
    if array.ndim > 1:
        return [_json(row, binary=binary) for row in array]
    if binary:
        return [{"b64": base64.b64encode(value).decode()} for value in array]
    return [value.decode() for value in array]


def _array(values: Any, info: Mapping[str, Any] | None) -> np.ndarray:
    if info is not None and info["dtype"] == "string":
        return np.array(values, object)
    return np.array(values, None if info is None else info["dtype"])


def _features(serialized: bytes) -> dict[str, Any]:
    """A `tf.Example` in the REST API's form; an integral float keeps its `.0`, which tells it."""
    features: dict[str, Any] = {}
    for name, feature in tf.train.Example.FromString(serialized).features.feature.items():
        kind = feature.WhichOneof("kind")
        values = list(getattr(feature, kind).value)
        features[name] = [v.decode() for v in values] if kind == "bytes_list" else values
    return features


def _tensor_info(info: Mapping[str, Any]) -> dict[str, Any]:
    dims = info.get("tensor_shape", {}).get("dim", [])
    sizes = [int(d["size"]) for d in dims]
    unknown = bool(info.get("tensor_shape", {}).get("unknown_rank"))
    dtype = tf.as_dtype(types_pb2.DataType.Value(info["dtype"])).name
    return {"dtype": dtype, "shape": None if unknown else [None if s < 0 else s for s in sizes]}
