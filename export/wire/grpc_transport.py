"""Requests to a model server over gRPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from lfm4ads_tf.export.wire.model_target import HIDDEN, ModelTarget
from lfm4ads_tf.export.wire.retry_policy import Deadline
from lfm4ads_tf.export.wire.serving_error import refused

_CHANNEL = (
    # A request of some 1,000 candidates is larger than the 4 MB that gRPC allows by default.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Retries are the client's own, which counts them and keeps the deadline. A channel that could
    # not connect refuses everything for a second by default: longer than a call may last.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 500),
)


class GrpcTransport:
    """One channel, shared by all threads.

    Args:
        address: host:port.
        secure: Whether to use TLS, with the system's certificates.
        headers: Sent with every request.
    """

    def __init__(
        self, address: str, *, secure: bool = False, headers: Mapping[str, str] | None = None
    ) -> None:
        self.address = address
        self._headers = [(k.lower(), v) for k, v in (headers or {}).items()]
        if secure:
            self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(), _CHANNEL)
        else:
            self._channel = grpc.insecure_channel(address, _CHANNEL)
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def predict(
        self,
        target: ModelTarget,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, Any],
        deadline: Deadline,
    ) -> tuple[dict[str, np.ndarray], int | None]:
        """Outputs, and the version that gave them.

        Args:
            target: The model.
            signature: A Predict signature.
            inputs: Name -> array; texts are objects of type bytes.
            outputs: Not needed here; see `RestTransport`.
            deadline: Of the call.
        """
        request = predict_pb2.PredictRequest(model_spec=target.spec(signature))
        for name, array in inputs.items():
            dtype = tf.string if array.dtype == object else array.dtype
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array, dtype))
        response = self._call(self._predictions.Predict, request, "Predict", target, deadline)
        arrays = {name: _array(tensor) for name, tensor in response.outputs.items()}
        return arrays, response.model_spec.version.value

    def classify(
        self, target: ModelTarget, signature: str, examples: Sequence[bytes], deadline: Deadline
    ) -> list[list[tuple[str, float]]]:
        """Label and score of every class, per example."""
        request = classification_pb2.ClassificationRequest(
            model_spec=target.spec(signature), input=_input(examples)
        )
        response = self._call(self._predictions.Classify, request, "Classify", target, deadline)
        return _classes(response.result)

    def regress(
        self, target: ModelTarget, signature: str, examples: Sequence[bytes], deadline: Deadline
    ) -> list[float]:
        """A value per example."""
        request = regression_pb2.RegressionRequest(
            model_spec=target.spec(signature), input=_input(examples)
        )
        response = self._call(self._predictions.Regress, request, "Regress", target, deadline)
        return _values(response.result)

    def multi_inference(
        self,
        target: ModelTarget,
        methods: Mapping[str, str],
        examples: Sequence[bytes],
        deadline: Deadline,
    ) -> dict[str, Any]:
        """Signature -> what `classify` or `regress` gives.

        Args:
            target: The model.
            methods: Signature -> its method name.
            examples: Serialized `tf.Example`s.
            deadline: Of the call.
        """
        request = inference_pb2.MultiInferenceRequest(input=_input(examples))
        for signature, method in methods.items():
            request.tasks.add(model_spec=target.spec(signature), method_name=method)
        response = self._call(
            self._predictions.MultiInference, request, "MultiInference", target, deadline
        )
        answers: dict[str, Any] = {}
        for signature, result in zip(methods, response.results, strict=True):
            if result.WhichOneof("result") == "classification_result":
                answers[signature] = _classes(result.classification_result)
            else:
                answers[signature] = _values(result.regression_result)
        return answers

    def metadata(
        self, target: ModelTarget, deadline: Deadline
    ) -> tuple[dict[str, Any], int | None]:
        """Signature -> method, inputs and outputs; and the version."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=target.spec(), metadata_field=["signature_def"]
        )
        response = self._call(
            self._predictions.GetModelMetadata, request, "GetModelMetadata", target, deadline
        )
        held = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(held)
        signatures = {}
        for name, signature in held.signature_def.items():
            if name.startswith(HIDDEN):
                continue
            signatures[name] = {
                "method": signature.method_name,
                "inputs": {k: _tensor_info(v) for k, v in signature.inputs.items()},
                "outputs": {k: _tensor_info(v) for k, v in signature.outputs.items()},
            }
        return signatures, response.model_spec.version.value

    def status(self, target: ModelTarget, deadline: Deadline) -> list[dict[str, Any]]:
        """Version, state and error of every version."""
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=target.spec())
        response = self._call(
            self._models.GetModelStatus, request, "GetModelStatus", target, deadline
        )
        states = get_model_status_pb2.ModelVersionStatus.State
        return [
            {
                "version": version.version,
                "state": states.Name(version.state),
                "error": version.status.error_message,
            }
            for version in response.model_version_status
        ]

    def _call(
        self, method: Any, request: Any, name: str, target: ModelTarget, deadline: Deadline
    ) -> Any:
        try:
            return method(request, timeout=deadline.remaining(), metadata=self._headers)
        except grpc.RpcError as error:
            asked = f"{name} on {target} at {self.address}"
            raise refused(error.code().name, asked, error.details() or "") from error


def _input(examples: Sequence[bytes]) -> input_pb2.Input:
    held = input_pb2.Input()
    for example in examples:
        held.example_list.examples.add().MergeFromString(example)
    return held


def _array(tensor: Any) -> np.ndarray:
    array: np.ndarray = tf.make_ndarray(tensor)
    if array.dtype != object:
        return array
    texts = np.empty(array.shape, object)
    texts.ravel()[:] = [text.decode(errors="replace") for text in array.ravel()]
    return texts


def _classes(result: Any) -> list[list[tuple[str, float]]]:
    return [
        [(c.label, c.score) for c in classification.classes]
        for classification in result.classifications
    ]


def _values(result: Any) -> list[float]:
    return [regression.value for regression in result.regressions]


def _tensor_info(info: Any) -> dict[str, Any]:
    shape = [None if d.size < 0 else d.size for d in info.tensor_shape.dim]
    dtype = tf.as_dtype(info.dtype).name
    return {"dtype": dtype, "shape": None if info.tensor_shape.unknown_rank else shape}
