"""gRPC `PredictionService`: Predict, Classify, Regress, MultiInference, GetModelMetadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    inference_pb2,
    model_pb2,
    predict_pb2,
)

from lfm4ads_tf.export.local_server.grpc_handlers import generic_handler, parse_message
from lfm4ads_tf.export.local_server.messages import (
    SerializedRequest,
    classification_result,
    delimited,
    example_bytes,
    regression_result,
)
from lfm4ads_tf.export.local_server.metrics import Metrics
from lfm4ads_tf.export.local_server.model_store import ModelStore
from lfm4ads_tf.export.local_server.servable import CLASSIFY, DEFAULT_SIGNATURE, Classified
from lfm4ads_tf.export.local_server.status_error import invalid
from lfm4ads_tf.export.local_server.tensor_codec import encode_tensor

_SIGNATURE_DEF = "signature_def"


class PredictionService:
    """Answers requests on models; each method takes and returns serialized messages.

    Args:
        store: Lends the versions.
        metrics: Counts the requests.
    """

    def __init__(self, store: ModelStore, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics

    def handler(self) -> grpc.GenericRpcHandler:
        """What a gRPC server has to be given to offer the service."""
        return generic_handler(
            "tensorflow.serving.PredictionService",
            {
                "Predict": self.predict,
                "Classify": self.classify,
                "Regress": self.regress,
                "MultiInference": self.multi_inference,
                "GetModelMetadata": self.get_model_metadata,
            },
        )

    def predict(self, data: bytes) -> bytes:
        """`PredictRequest` to `PredictResponse`."""
        with self._metrics.request("Predict", "GRPC") as timer:
            request: Any = parse_message(predict_pb2.PredictRequest, data)
            timer.model = request.model_spec.name
            if not request.HasField("model_spec"):
                raise invalid("Missing ModelSpec")
            with self._store.lease(request.model_spec) as (version, servable):
                outputs = servable.predict(
                    request.model_spec.signature_name, request.inputs, request.output_filter, timer
                )
            response = predict_pb2.PredictResponse(model_spec=_spec(request.model_spec, version))
            for name, array in outputs.items():
                encode_tensor(array, response.outputs[name])
            return bytes(response.SerializeToString())

    def classify(self, data: bytes) -> bytes:
        """`ClassificationRequest` to `ClassificationResponse`."""
        with self._metrics.request("Classify", "GRPC") as timer:
            spec, examples = _examples_request(data)
            timer.model = spec.name
            with self._store.lease(spec) as (version, servable):
                result = servable.classify(spec.signature_name, examples, timer)
            return _response(_result_bytes(result), _spec(spec, version))

    def regress(self, data: bytes) -> bytes:
        """`RegressionRequest` to `RegressionResponse`."""
        with self._metrics.request("Regress", "GRPC") as timer:
            spec, examples = _examples_request(data)
            timer.model = spec.name
            with self._store.lease(spec) as (version, servable):
                result = servable.regress(spec.signature_name, examples, timer)
            return _response(_result_bytes(result), _spec(spec, version))

    def multi_inference(self, data: bytes) -> bytes:
        """`MultiInferenceRequest` to `MultiInferenceResponse`."""
        with self._metrics.request("MultiInference", "GRPC") as timer:
            request = parse_message(SerializedRequest, data)
            tasks: list[Any] = [
                parse_message(inference_pb2.InferenceTask, head) for head in request.head
            ]
            spec = tasks[0].model_spec if tasks else model_pb2.ModelSpec()
            timer.model = spec.name
            with self._store.lease(spec) as (version, servable):
                results = servable.multi_inference(tasks, example_bytes(request.input), timer)
            response = b""
            for task, result in zip(tasks, results, strict=True):
                field = 2 if task.method_name == CLASSIFY else 3  # of InferenceResult
                answered = _spec(task.model_spec, version).SerializeToString()
                response += delimited(
                    1, delimited(1, answered) + delimited(field, _result_bytes(result))
                )
            return response

    def get_model_metadata(self, data: bytes) -> bytes:
        """`GetModelMetadataRequest` to `GetModelMetadataResponse`."""
        request: Any = parse_message(get_model_metadata_pb2.GetModelMetadataRequest, data)
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        return bytes(
            model_metadata(
                self._store, request.model_spec, request.metadata_field
            ).SerializeToString()
        )


def model_metadata(store: ModelStore, model_spec: Any, fields: Sequence[str]) -> Any:
    """A `GetModelMetadataResponse` with the signatures of a version.

    Args:
        store: Lends the versions.
        model_spec: Which version.
        fields: Must be `["signature_def"]`: the server knows no other metadata.

    Raises:
        StatusError: INVALID_ARGUMENT for other fields; see `ModelStore.lease`.
    """
    if not fields:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in fields:
        if field != _SIGNATURE_DEF:
            raise invalid(f"Metadata field {field} is not supported")
    with store.lease(model_spec) as (version, servable):
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in servable.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = model_spec.name
    response.model_spec.version.value = version
    response.metadata[_SIGNATURE_DEF].Pack(signatures)
    return response


def _examples_request(data: bytes) -> tuple[Any, Sequence[bytes]]:
    """The ModelSpec and the serialized examples of a Classify or Regress request."""
    request = parse_message(SerializedRequest, data)
    if not request.head:
        raise invalid("Missing ModelSpec")
    # a field that comes twice is merged, which is what concatenated messages are
    return parse_message(model_pb2.ModelSpec, b"".join(request.head)), example_bytes(request.input)


def _spec(asked: Any, version: int) -> Any:
    spec = model_pb2.ModelSpec(
        name=asked.name, signature_name=asked.signature_name or DEFAULT_SIGNATURE
    )
    spec.version.value = version
    return spec


def _result_bytes(result: Classified | np.ndarray) -> bytes:
    if isinstance(result, Classified):
        return classification_result(result.labels, result.scores)
    return regression_result(result)


def _response(result: bytes, spec: Any) -> bytes:
    """`result` is field 1 and `model_spec` field 2 of both responses."""
    return delimited(1, result) + delimited(2, spec.SerializeToString())
