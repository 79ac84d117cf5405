"""Warm-up requests: what TensorFlow Serving replays after loading, before it takes traffic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    classification_pb2,
    input_pb2,
    model_pb2,
    predict_pb2,
    prediction_log_pb2,
    regression_pb2,
)

from lfm4ads_tf.export.golden import GoldenRequest

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
"""Where TensorFlow Serving looks, inside a version folder."""

MAX_RECORDS = 1000
"""TensorFlow Serving refuses to replay more."""


def write_warmup(
    folder: Path, model_name: str, requests: Sequence[GoldenRequest], rows: int
) -> int:
    """Writes requests of single rows to `serving_default`, and one to every other signature.

    `rank` is asked for all candidates, the others for one row.

    Args:
        folder: The version folder.
        model_name: Name under which the model is served.
        requests: The golden requests, with real rows first.
        rows: Records of `serving_default`, fewer where there would be too many in all.

    Returns:
        The number of records.
    """
    path = folder / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    records: list[prediction_log_pb2.PredictionLog] = []
    rows = min(rows, MAX_RECORDS - len(requests))
    for request in requests:
        spec = model_pb2.ModelSpec(name=model_name, signature_name=request.signature)
        if "examples" in request.inputs and request.signature == "serving_default":
            for example in request.inputs["examples"][:-1][:rows]:
                records.append(_predict(spec, {"examples": [example]}))
        elif "inputs" in request.inputs:
            records.append(_of_input(spec, request.inputs["inputs"][0]))
        else:
            rank = request.signature == "rank"
            inputs = {n: v if rank else v[:1] for n, v in request.inputs.items()}
            records.append(_predict(spec, inputs))
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record.SerializeToString())
    return len(records)


def read_warmup(folder: Path) -> list[tuple[str, dict[str, bytes]]]:
    """Reads the warm-up requests of a version folder.

    Returns:
        Per record the signature and its inputs, name -> serialized TensorProto (the examples of
        Classify and Regress as `inputs`, serialized); empty when there is no warm-up file.

    Raises:
        ValueError: The file is damaged, or a record is no request of one of the three APIs.
    """
    path = folder / WARMUP_FILE
    if not path.exists():
        return []
    requests: list[tuple[str, dict[str, bytes]]] = []
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record)
            kind = log.WhichOneof("log_type")
            if kind == "predict_log":
                request = log.predict_log.request
                inputs = {name: t.SerializeToString() for name, t in request.inputs.items()}
            elif kind in ("classify_log", "regress_log"):
                request = getattr(log, kind).request
                examples = [e.SerializeToString() for e in request.input.example_list.examples]
                proto = tf.make_tensor_proto(examples, tf.string)
                inputs = {"inputs": proto.SerializeToString()}
            else:
                raise ValueError(f"record {len(requests)} is no Predict, Classify or Regress")
            requests.append((request.model_spec.signature_name or "serving_default", inputs))
    except (tf.errors.OpError, DecodeError) as error:
        raise ValueError(f"record {len(requests)} cannot be read ({error})") from error
    return requests


def _predict(spec: model_pb2.ModelSpec, inputs: dict) -> prediction_log_pb2.PredictionLog:
    request = predict_pb2.PredictRequest(model_spec=spec)
    for name, values in inputs.items():
        texts = isinstance(values, list) or values.dtype == object
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values, tf.string if texts else None))
    log = prediction_log_pb2.PredictLog(request=request)
    return prediction_log_pb2.PredictionLog(predict_log=log)


def _of_input(spec: model_pb2.ModelSpec, example: bytes) -> prediction_log_pb2.PredictionLog:
    """A request of Classify or Regress, by the signature's name."""
    given = input_pb2.Input()
    given.example_list.examples.add().ParseFromString(example)
    if spec.signature_name == "classify":
        request = classification_pb2.ClassificationRequest(model_spec=spec, input=given)
        classified = prediction_log_pb2.ClassifyLog(request=request)
        return prediction_log_pb2.PredictionLog(classify_log=classified)
    regression = regression_pb2.RegressionRequest(model_spec=spec, input=given)
    return prediction_log_pb2.PredictionLog(
        regress_log=prediction_log_pb2.RegressLog(request=regression)
    )
