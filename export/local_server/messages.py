"""Messages that `tensorflow-serving-api` lacks, and two answers written straight to the wire.

`Classify`, `Regress` and `MultiInference` carry whole `tf.Example`s. The graph wants them
serialized, so parsing and writing them again would only cost time: here they are declared as
bytes. The answers hold one message per row and class; for a batch of hundreds of rows NumPy writes
those bytes faster than the message classes do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorflow_serving.apis import classification_pb2

from lfm4ads_tf.export.local_server.tensor_codec import varint

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "lfm4ads.local_server"
_CLASSES_TAG = b"\x0a"  # field 1, length-delimited
_LABEL_TAG = b"\x0a"  # field 1, length-delimited
_SCORE_TAG = b"\x15"  # field 2, 32 bits
_REGRESSION = np.frombuffer(b"\x0a\x05\x0d\x00\x00\x00\x00", np.uint8)  # {value (field 1): 0.0}


def _declare() -> dict[str, Any]:
    """Name -> message class; numbers and types are those of the public protocol."""
    file = descriptor_pb2.FileDescriptorProto(
        name="lfm4ads_local_server.proto", package=_PACKAGE, syntax="proto3"
    )
    declared: dict[str, list[tuple[str, int, Any, bool]]] = {
        "SerializedExampleList": [("examples", 1, "bytes", True)],
        "SerializedExampleListWithContext": [
            ("examples", 1, "bytes", True),
            ("context", 2, "bytes", False),
        ],
        "SerializedInput": [
            ("example_list", 1, "SerializedExampleList", False),
            ("example_list_with_context", 2, "SerializedExampleListWithContext", False),
        ],
        "SerializedRequest": [
            ("head", 1, "bytes", True),  # a ModelSpec, or the tasks of a MultiInference
            ("input", 2, "SerializedInput", False),
        ],
        "PrometheusConfig": [("enable", 1, "bool", False), ("path", 2, "string", False)],
        "MonitoringConfig": [("prometheus_config", 1, "PrometheusConfig", False)],
    }
    scalars = {"bytes": _Field.TYPE_BYTES, "bool": _Field.TYPE_BOOL, "string": _Field.TYPE_STRING}
    for name, fields in declared.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            added = message.field.add(name=field, number=number, label=label)
            added.type = scalars.get(kind, _Field.TYPE_MESSAGE)
            if kind not in scalars:
                added.type_name = f".{_PACKAGE}.{kind}"
        if name == "SerializedInput":
            message.oneof_decl.add(name="kind")
            for added in message.field:
                added.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in declared
    }


_MESSAGES = _declare()
SerializedInput = _MESSAGES["SerializedInput"]
SerializedRequest = _MESSAGES["SerializedRequest"]
MonitoringConfig = _MESSAGES["MonitoringConfig"]


def classification_result(labels: np.ndarray | None, scores: np.ndarray | None) -> bytes:
    """A serialized `ClassificationResult`.

    Args:
        labels: bytes (B, C), or None when the signature has no `classes`.
        scores: float32 (B, C), or None when the signature has no `scores`.
    """
    given = scores if labels is None else labels
    if given is None or not given.size:
        return _classification_by_message(labels, scores)
    rows, columns = given.shape
    if labels is not None and rows > 1 and not bool((labels[1:] == labels[:1]).all()):
        return _classification_by_message(labels, scores)
    # every row has the same labels: one row as a template, the scores written into its gaps
    template, gaps = b"", []
    for column in range(columns):
        label = b"" if labels is None else labels[0, column]
        entry = _LABEL_TAG + varint(len(label)) + label
        if scores is not None:
            entry += _SCORE_TAG + b"\0\0\0\0"
        template += _CLASSES_TAG + varint(len(entry)) + entry
        gaps.append(len(template) - 4)
    head = b"\x0a" + varint(len(template))
    template = head + template
    result = np.tile(np.frombuffer(template, np.uint8), (rows, 1))  # (B, bytes of a row)
    if scores is not None:
        values = np.ascontiguousarray(scores, "<f4").view(np.uint8)
        values = values.reshape(rows, columns, 4)  # (B, C, 4)
        positions = np.asarray(gaps)[:, None] + len(head) + np.arange(4)  # (C, 4)
        result[:, positions] = values
    return result.tobytes()


def regression_result(values: np.ndarray) -> bytes:
    """A serialized `RegressionResult` of float32 (B,)."""
    result = np.tile(_REGRESSION, (len(values), 1))  # (B, 7)
    result[:, 3:] = np.ascontiguousarray(values, "<f4").view(np.uint8).reshape(-1, 4)  # (B, 4)
    return result.tobytes()


def delimited(field: int, content: bytes) -> bytes:
    """A length-delimited field of a message: `content` may be a serialized message."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def _classification_by_message(labels: np.ndarray | None, scores: np.ndarray | None) -> bytes:
    result = classification_pb2.ClassificationResult()
    given = scores if labels is None else labels
    for row in range(0 if given is None else len(given)):
        classes = result.classifications.add().classes
        for column in range(0 if given is None else given.shape[1]):
            entry = classes.add()
            if labels is not None:
                entry.label = as_text(labels[row, column])
            if scores is not None:
                entry.score = float(scores[row, column])
    return bytes(result.SerializeToString())


def as_text(value: bytes) -> str:
    """Bytes of the graph as text; what is not UTF-8 is replaced."""
    return value.decode("utf-8", errors="replace")


def example_bytes(serialized_input: Any) -> Sequence[bytes]:
    """The serialized examples of a `SerializedInput`; a context is put before each.

    Concatenating serialized messages merges them, and what comes later wins: an example's own
    feature replaces that of the context.
    """
    kind = serialized_input.WhichOneof("kind")
    if kind is None:
        return []
    chosen = getattr(serialized_input, kind)
    if kind == "example_list":
        return list(chosen.examples)
    return [chosen.context + example for example in chosen.examples]
