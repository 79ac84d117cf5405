"""Warm-up requests: what TensorFlow Serving replays after loading, before it takes traffic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
"""Where TensorFlow Serving looks, inside a version folder."""

MAX_RECORDS = 1000
"""TensorFlow Serving refuses to replay more."""


def write_warmup(folder: Path, model_name: str, examples: Sequence[bytes]) -> int:
    """Writes one Predict request on `serving_default` per example.

    Args:
        folder: The version folder.
        model_name: Name under which the model is served.
        examples: Serialized `tf.Example`s of real rows.

    Returns:
        The number of records.
    """
    path = folder / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    spec = model_pb2.ModelSpec(name=model_name, signature_name="serving_default")
    kept = examples[:MAX_RECORDS]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in kept:
            request = predict_pb2.PredictRequest(model_spec=spec)
            request.inputs["examples"].CopyFrom(tf.make_tensor_proto([example], tf.string))
            log = prediction_log_pb2.PredictLog(request=request)
            record = prediction_log_pb2.PredictionLog(predict_log=log)
            writer.write(record.SerializeToString())
    return len(kept)


def read_warmup(folder: Path) -> list[tuple[str, dict[str, bytes]]]:
    """Reads the warm-up requests of a version folder.

    Returns:
        Per record the signature and its inputs, name -> serialized TensorProto; empty when there
        is no warm-up file.

    Raises:
        ValueError: The file is damaged, or a record is no Predict request.
    """
    path = folder / WARMUP_FILE
    if not path.exists():
        return []
    requests: list[tuple[str, dict[str, bytes]]] = []
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record)
            if log.WhichOneof("log_type") != "predict_log":
                raise ValueError(f"record {len(requests)} is no Predict request")
            request = log.predict_log.request
            inputs = {name: t.SerializeToString() for name, t in request.inputs.items()}
            requests.append((request.model_spec.signature_name or "serving_default", inputs))
    except (tf.errors.OpError, DecodeError) as error:
        raise ValueError(f"record {len(requests)} cannot be read ({error})") from error
    return requests
