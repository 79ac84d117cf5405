"""NaN and infinity in a request: missing as a number or weight, refused as a vector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from lfm4ads_tf.export.local_server.server import LocalServer
from lfm4ads_tf.export.verify_child import read_golden

pytestmark = pytest.mark.processor

RANKER = "ranker_tab 1"
BAD = [np.nan, np.inf, -np.inf]
VECTORS = {"UR": "Representations UR", "CR_user_at_cross_2": "Representations CR_user@cross_2",
           "vector": "Vectors of the column vector"}  # fmt: skip


@pytest.fixture(scope="module")
def golden(exports: Path) -> dict[str, dict[str, np.ndarray]]:
    """Signature -> input -> values of all golden rows."""
    requests, *_ = read_golden(exports / RANKER / "1")
    return requests


@pytest.fixture(scope="module")
def stub(server_of_exports: LocalServer) -> Any:
    channel = grpc.insecure_channel(server_of_exports.grpc_address)
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def asked(stub: Any, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = RANKER, signature
    for name, values in inputs.items():
        text = tf.string if values.dtype == object else None
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values, text))
    return {k: tf.make_ndarray(v) for k, v in stub.Predict(request, timeout=60).outputs.items()}


def with_bad_feature(examples: np.ndarray, name: str, bad: float) -> np.ndarray:
    """Examples in which a float feature of every row that has it begins with another number."""
    changed = []
    for serialized in examples:
        example = tf.train.Example.FromString(serialized)
        if name in example.features.feature:
            example.features.feature[name].float_list.value[0] = bad
        changed.append(example.SerializeToString())
    return np.array(changed, object)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("signature", ["predict", "rank"])
def test_a_number_or_weight_is_missing(stub: Any, golden: Any, signature: str, bad: float) -> None:
    for name in ("income", "age", "price", "s.rate".replace(".", "_dot_")):
        missing, found = (dict(golden[signature]) for _ in range(2))
        one = missing[name].copy()
        one[:] = 0.0 if name.startswith("s_dot") else np.nan
        missing[name], found[name] = one, np.full_like(one, bad)
        answers = [asked(stub, signature, of) for of in (missing, found)]
        for task, scores in answers[0].items():
            np.testing.assert_array_equal(scores, answers[1][task], err_msg=name)
            assert np.isfinite(scores).all()
    weights, tags = golden[signature]["tag_weights"], golden[signature]["tags"]
    row = int(np.argmax((tags != b"").sum(axis=1)))
    without, found = (dict(golden[signature]) for _ in range(2))
    without["tags"], found["tag_weights"] = tags.copy(), weights.copy()
    without["tags"][row, 0], found["tag_weights"][row, 0] = b"", bad
    answers = [asked(stub, signature, of) for of in (without, found)]
    for task, scores in answers[0].items():
        np.testing.assert_array_equal(scores, answers[1][task])


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("bad", BAD[:2])
def test_a_vector_is_refused_by_every_signature(
    stub: Any, golden: Any, name: str, bad: float
) -> None:
    def refused(signature: str, inputs: dict[str, np.ndarray]) -> None:
        with pytest.raises(grpc.RpcError) as error:
            asked(stub, signature, inputs)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert f"{VECTORS[name]} must hold finite numbers" in error.value.details()

    for signature in ("predict", "rank"):
        inputs = dict(golden[signature])
        inputs[name] = inputs[name].copy()
        inputs[name][0, 1] = bad
        refused(signature, inputs)
    feature = name.replace("_at_", "@")
    examples = with_bad_feature(golden["serving_default"]["examples"], feature, bad)
    refused("serving_default", {"examples": examples})
    refused("encode", {"examples": examples})
