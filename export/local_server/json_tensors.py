"""REST's JSON to tensors and back, with the rules of TensorFlow Serving's `json_tensor`."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2

from lfm4ads_tf.export.local_server.messages import as_text
from lfm4ads_tf.export.local_server.servable import Classified
from lfm4ads_tf.export.local_server.status_error import StatusError, invalid

_MAX_SHOWN = 200
_INTEGERS = {  # data type -> least and greatest value
    types_pb2.DT_INT8: (-(2**31), 2**31 - 1),
    types_pb2.DT_INT16: (-(2**31), 2**31 - 1),
    types_pb2.DT_INT32: (-(2**31), 2**31 - 1),
    types_pb2.DT_UINT8: (-(2**31), 2**31 - 1),  # all of these are read as 32-bit integers
    types_pb2.DT_INT64: (-(2**63), 2**63 - 1),
    types_pb2.DT_UINT32: (0, 2**32 - 1),
    types_pb2.DT_UINT64: (0, 2**64 - 1),
}
_MANTISSA = {types_pb2.DT_FLOAT: 24, types_pb2.DT_DOUBLE: 53}


def parse_json_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        StatusError: INVALID_ARGUMENT: the body is empty, no JSON, or no object.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:  # also text that is not UTF-8
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {_shown(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    """The request's `signature_name`, empty when it has none.

    Raises:
        StatusError: It is no text.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {_shown(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return name


def predict_inputs(
    document: Mapping[str, Any], infos: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], bool]:
    """The tensors of a Predict request.

    Args:
        document: The request: `instances`, a list of rows, or `inputs`, whole tensors.
        infos: Input -> TensorInfo of the signature.

    Returns:
        Input -> array, and whether the request is in row format.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    if "instances" in document and "inputs" in document:
        raise invalid(
            f"JSON Value: {_shown(document)} Not formatted correctly expecting only one of "
            "'inputs' or 'instances' keys to exist "
        )
    if "instances" in document:
        return _from_rows(document["instances"], infos, document), True
    if "inputs" in document:
        return _from_columns(document["inputs"], infos), False
    raise invalid("Missing 'inputs' or 'instances' key")


def examples(document: Mapping[str, Any]) -> list[bytes]:
    """The serialized `tf.Example`s of a Classify or Regress request, its `context` merged in.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    context = _example(document["context"]) if "context" in document else b""
    if "examples" not in document:
        raise invalid(
            f"JSON Value: {_shown(document)} When method is classify, key 'examples' is expected "
            "and was not found"
        )
    rows = document["examples"]
    if not isinstance(rows, list):
        raise invalid(f"JSON Value: {_shown(document)} Expecting 'examples' value to be an array")
    if not rows:
        raise invalid(f"JSON Value: {_shown(document)} 'examples' value is an empty array")
    return [context + _example(row) for row in rows]


def predict_response(outputs: Mapping[str, np.ndarray], rows: bool) -> str:
    """The answer to a Predict request: `predictions` in row format, else `outputs`.

    Raises:
        StatusError: INVALID_ARGUMENT: the outputs have no common first axis (row format), or a
            type that JSON cannot hold.
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    if not rows:
        written = {name: _written(name, outputs[name]) for name in outputs}
        return '{"outputs": ' + (_object(written) if len(written) > 1 else _only(written)) + "}"
    batch: int | None = None
    for name, array in outputs.items():
        if not array.ndim:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if batch is not None and len(array) != batch:
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {batch}"
            )
        batch = len(array)
    columns = {name: _written_rows(name, array) for name, array in outputs.items()}
    if len(columns) == 1:
        return '{"predictions": [' + ", ".join(_only(columns)) + "]}"
    items = (
        _object({name: column[row] for name, column in columns.items()})
        for row in range(batch or 0)
    )
    return '{"predictions": [' + ", ".join(items) + "]}"


def classification_response(result: Classified) -> str:
    """The answer to a Classify request: per row a list of [label, score]."""
    given = result.scores if result.labels is None else result.labels
    rows = []
    for row in range(0 if given is None else len(given)):
        pairs = []
        for column in range(0 if given is None else given.shape[1]):
            label = "" if result.labels is None else as_text(result.labels[row, column])
            score = 0.0 if result.scores is None else float(result.scores[row, column])
            pairs.append(f"[{json.dumps(label)}, {_decimal(score, np.float32)}]")
        rows.append("[" + ", ".join(pairs) + "]")
    return '{"results": [' + ", ".join(rows) + "]}"


def regression_response(values: np.ndarray) -> str:
    """The answer to a Regress request: one value per row."""
    written = (_decimal(value, np.float32) for value in values.tolist())
    return '{"results": [' + ", ".join(written) + "]}"


# reading


def _from_columns(value: Any, infos: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if not isinstance(value, dict) or _is_base64(value):
        if len(infos) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        name, info = next(iter(infos.items()))
        return {name: _dense(value, info.dtype)}
    for name in infos:
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _dense(value[name], info.dtype) for name, info in infos.items()}


def _from_rows(
    rows: Any, infos: Mapping[str, Any], document: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    if not isinstance(rows, list):
        raise invalid(f"JSON Value: {_shown(document)} Excepting 'instances' to be an list/array")
    if not rows:
        raise invalid(f"JSON Value: {_shown(document)} No values in 'instances' array")
    if not isinstance(rows[0], dict) and len(infos) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    if not _is_object(rows[0]):
        name, info = next(iter(infos.items()))
        for number, row in enumerate(rows):
            if _is_object(row):
                raise invalid(f"Expecting value/list but got object at item {number} of input list")
        return {name: _dense_rows(rows, info.dtype, "")}
    names = set(infos)
    for number, row in enumerate(rows):
        if not _is_object(row):
            raise invalid(f"Expecting object but got list at item {number} of input list")
        unknown = sorted(row.keys() - names)
        if unknown:
            raise invalid(
                f"Failed to process element: {number} key: {unknown[0]} of 'instances' list. "
                "Error: INVALID_ARGUMENT: JSON object: does not have named input: "
                f"{unknown[0]}"
            )
        if len(row) != len(names):
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. JSON object: "
                f"{_shown(row)} keys must be equal to: {','.join(sorted(names))}"
            )
    return {
        name: _dense_rows([row[name] for row in rows], info.dtype, f" key: {name}")
        for name, info in infos.items()
    }


def _dense_rows(rows: list[Any], dtype: int, key: str) -> np.ndarray:
    """Stacks one value per row; all must have the first one's shape."""
    try:
        return _dense(rows, dtype)
    except StatusError:
        first: tuple[int, ...] | None = None
        for number, row in enumerate(rows):  # which row is to blame
            where = f"Failed to process element: {number}{key} of 'instances' list. Error: "
            try:
                shape = _dense(row, dtype).shape
            except StatusError as error:
                raise invalid(f"{where}INVALID_ARGUMENT: {error.message}") from error
            first = shape if first is None else first
            if shape != first:
                raise invalid(
                    f"{where}INVALID_ARGUMENT: Expecting shape {list(first)} but got: {list(shape)}"
                ) from None
        raise


def _dense(value: Any, dtype: int) -> np.ndarray:
    """A value, or lists of lists of them, as an array of the shape of the first ones."""
    shape: list[int] = []
    probe = value
    while isinstance(probe, list):
        shape.append(len(probe))
        if not probe:
            break
        probe = probe[0]
    leaves = [value]
    for level, size in enumerate(shape):
        deeper: list[Any] = []
        for item in leaves:
            if not isinstance(item, list):
                raise invalid(
                    f"JSON Value: {_shown(item)} found at incorrect level: {level + 1} in the "
                    f"JSON DOM. Expected at level: {len(shape)}"
                )
            if len(item) != size:
                raise invalid(
                    f"Encountered list at unexpected size: {len(item)} at level: {level} "
                    f"expected size: {size}"
                )
            deeper.extend(item)
        leaves = deeper
    for leaf in leaves:
        if isinstance(leaf, list):
            raise invalid(
                f"Encountered list at unexpected level: {len(shape)} expected < {len(shape)}"
            )
    return _values(leaves, dtype).reshape(shape)


def _values(leaves: list[Any], dtype: int) -> np.ndarray:
    if dtype == types_pb2.DT_STRING:
        texts = np.empty(len(leaves), object)
        texts[:] = [_bytes(leaf, dtype) for leaf in leaves]
        return texts
    if dtype in _MANTISSA:
        return _decimals(leaves, dtype)
    if dtype == types_pb2.DT_BOOL:
        _check_types(leaves, dtype, lambda leaf: isinstance(leaf, bool))
        return np.array(leaves, np.bool_)
    if dtype not in _INTEGERS:
        raise StatusError(
            grpc.StatusCode.UNIMPLEMENTED,
            f"Conversion of JSON Value to type: {tf.as_dtype(dtype).name}",
        )
    least, greatest = _INTEGERS[dtype]
    _check_types(leaves, dtype, lambda leaf: type(leaf) is int and least <= leaf <= greatest)
    wide = np.array(leaves, np.uint64 if dtype == types_pb2.DT_UINT64 else np.int64)
    return wide.astype(tf.as_dtype(dtype).as_numpy_dtype)


def _decimals(leaves: list[Any], dtype: int) -> np.ndarray:
    _check_types(leaves, dtype, lambda leaf: type(leaf) in (int, float))
    result_type = tf.as_dtype(dtype).as_numpy_dtype
    exact, greatest = 2 ** _MANTISSA[dtype] - 1, float(np.finfo(result_type).max)
    for leaf in leaves:
        lossy = abs(leaf) > (exact if type(leaf) is int else greatest)
        if lossy and not (type(leaf) is float and math.isinf(leaf)):
            kind = "float" if dtype == types_pb2.DT_FLOAT else "double"
            raise invalid(
                f"Cannot convert JSON value: {_shown(leaf)} to {kind} without loss of precision."
            )
    return np.array(leaves, np.float64).astype(result_type)


def _check_types(leaves: list[Any], dtype: int, fits: Callable[[Any], bool]) -> None:
    for leaf in leaves:
        if not fits(leaf):
            raise _type_error(leaf, dtype)


def _type_error(value: Any, dtype: int) -> StatusError:
    kind = {
        type(None): "Null",
        bool: str(value),
        dict: "Object",
        list: "Array",
        str: "String",
    }.get(type(value), "Number")
    name = {types_pb2.DT_FLOAT: "float", types_pb2.DT_DOUBLE: "double"}.get(
        dtype, tf.as_dtype(dtype).name
    )
    return invalid(f"JSON Value: {_shown(value)} Type: {kind} is not of expected type: {name}")


def _bytes(value: Any, dtype: int) -> bytes:
    if isinstance(value, str):
        return _encoded(value)
    if not isinstance(value, dict):
        raise _type_error(value, dtype)
    if not _is_base64(value):
        raise invalid(f"JSON Value: {_shown(value)} not formatted correctly for base64 data")
    return _decoded(value["b64"])


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise invalid(f"JSON Parse error: a surrogate without its other half: {error}") from error


def _decoded(text: str) -> bytes:
    packed = "".join(text.split())
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _example(value: Any) -> bytes:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON: {_shown(value)}")
    example = tf.train.Example()
    for name, content in value.items():
        feature = example.features.feature[_encoded(name).decode()]
        for item in content if isinstance(content, list) else [content]:
            _add_to_feature(item, name, feature)
    return bytes(example.SerializeToString())


def _add_to_feature(item: Any, name: str, feature: Any) -> None:
    entry: bytes | float | int
    if isinstance(item, (bool, int)):
        kind, entry = "int64_list", int(item)
        if not -(2**63) <= entry < 2**63:
            raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
    elif isinstance(item, float):
        kind, entry = "float_list", float(_decimals([item], types_pb2.DT_FLOAT)[0])
    elif isinstance(item, str):
        kind, entry = "bytes_list", _encoded(item)
    elif _is_base64(item):
        kind, entry = "bytes_list", _decoded(item["b64"])
    else:
        raise invalid(f"Feature: {name} has element with unexpected JSON type: {_shown(item)}")
    held = feature.WhichOneof("kind")
    if held not in (None, kind):
        expected = held.removesuffix("_list")
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {expected}")
    getattr(feature, kind).value.append(entry)


# writing


def _written_rows(name: str, array: np.ndarray) -> list[str]:
    """Every row as JSON."""
    write = _writer(name, array)
    rows: list[str] = []
    for row in array.tolist():
        rows.append(_nested(row, write, array.ndim - 1))
    return rows


def _written(name: str, array: np.ndarray) -> str:
    return _nested(array.tolist(), _writer(name, array), array.ndim)


def _nested(value: Any, write: Callable[[Any], str], rank: int) -> str:
    if not rank:
        return write(value)
    return "[" + ", ".join(_nested(item, write, rank - 1) for item in value) + "]"


def _writer(name: str, array: np.ndarray) -> Callable[[Any], str]:
    """How one value becomes JSON; bytes are base64 only where the output's name ends so."""
    if array.dtype == object:
        if name.endswith("_bytes"):
            return lambda value: json.dumps({"b64": base64.b64encode(value).decode()})
        return lambda value: json.dumps(as_text(value))
    if array.dtype in (np.float32, np.float64):
        kind = np.float32 if array.dtype == np.float32 else np.float64
        return lambda value: _decimal(value, kind)
    if array.dtype == np.bool_:
        return lambda value: "true" if value else "false"
    if array.dtype.kind in "iu":
        return str
    raise invalid(f"Failed to write JSON value for tensor type: {array.dtype}")


def _decimal(value: float, kind: type[np.float32] | type[np.float64]) -> str:
    """Six digits when they read back as the same number, else as many as that needs."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "-Infinity" if value < 0 else "Infinity"
    text = f"{value:.6g}"
    if kind(float(text)) != kind(value):
        text = f"{value:.9g}" if kind is np.float32 else f"{value:.17g}"
    return text if "." in text or "e" in text else f"{text}.0"


def _object(written: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(k)}: {v}" for k, v in written.items()) + "}"


def _only(values: Mapping[str, Any]) -> Any:
    return next(iter(values.values()))


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
