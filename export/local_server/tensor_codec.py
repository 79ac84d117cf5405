"""`TensorProto` to NumPy and back, with the rules of TensorFlow's own parser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

MAX_FILLED_BYTES = 2 << 30
"""How large a tensor may get of which the request names fewer values than it has elements."""

_INT_VAL = ("int_val", np.int64)
_FIELDS: dict[int, tuple[str, Any]] = {  # data type -> its repeated field, type of that field
    types_pb2.DT_FLOAT: ("float_val", np.float32),
    types_pb2.DT_DOUBLE: ("double_val", np.float64),
    types_pb2.DT_INT64: ("int64_val", np.int64),
    types_pb2.DT_UINT64: ("uint64_val", np.uint64),
    types_pb2.DT_UINT32: ("uint32_val", np.uint32),
    types_pb2.DT_BOOL: ("bool_val", np.bool_),
    types_pb2.DT_INT32: _INT_VAL,
    types_pb2.DT_INT16: _INT_VAL,
    types_pb2.DT_INT8: _INT_VAL,
    types_pb2.DT_UINT16: _INT_VAL,
    types_pb2.DT_UINT8: _INT_VAL,
    types_pb2.DT_HALF: ("half_val", np.uint16),
    types_pb2.DT_BFLOAT16: ("half_val", np.uint16),
}
_BITS = {types_pb2.DT_HALF, types_pb2.DT_BFLOAT16}  # their field holds bit patterns
_DTYPES = {number: np.dtype(tf.as_dtype(number).as_numpy_dtype) for number in _FIELDS}
_NUMBERS = {dtype: number for number, dtype in _DTYPES.items()}
# packed fields whose bytes on the wire are the array's own: tag of the field
_RAW_TAGS = {types_pb2.DT_FLOAT: b"\x2a", types_pb2.DT_DOUBLE: b"\x32"}


def decode_tensor(proto: Any) -> np.ndarray | None:
    """The array of a `TensorProto`.

    As in TensorFlow, the last of too few values fills the rest, and no value at all means zeros.

    Returns:
        An array that may be read-only, texts as bytes in an object array; None when the message
        is no valid tensor: type, shape or the number of bytes do not fit.
    """
    shape = proto.tensor_shape
    if shape.unknown_rank:
        return None
    sizes = tuple(dim.size for dim in shape.dim)
    count = 1
    for size in sizes:
        if size < 0:
            return None
        count *= size
    if proto.dtype == types_pb2.DT_STRING:
        return _decode_strings(proto, count, sizes)
    if proto.dtype not in _FIELDS:
        return None
    dtype = _DTYPES[proto.dtype]
    content = proto.tensor_content
    if content:
        if len(content) != count * dtype.itemsize:
            return None
        return np.frombuffer(content, dtype).reshape(sizes)
    field, field_type = _FIELDS[proto.dtype]
    values = getattr(proto, field)
    given = len(values)
    if given < count and count * dtype.itemsize > MAX_FILLED_BYTES:
        return None
    array = np.fromiter(values, field_type, given)[:count]
    array = array.astype(np.uint16).view(dtype) if proto.dtype in _BITS else array.astype(dtype)
    if given < count:
        rest = np.full(count - given, array[-1] if given else 0, dtype)
        array = np.concatenate([array, rest])
    return array.reshape(sizes)


def _decode_strings(proto: Any, count: int, sizes: Sequence[int]) -> np.ndarray | None:
    content = proto.tensor_content
    values = _split_strings(content, count) if content else list(proto.string_val)
    if values is None:
        return None
    if len(values) < count:
        if count * 8 > MAX_FILLED_BYTES:
            return None
        values += [values[-1] if values else b""] * (count - len(values))
    array = np.empty(count, object)
    array[:] = values[:count]
    return array.reshape(sizes)


def _split_strings(content: bytes, count: int) -> list[bytes] | None:
    """Reads `count` varint lengths and then the texts, as `tensor_content` holds them."""
    position, lengths = 0, []
    for _ in range(count):
        length, shift = 0, 0
        while True:
            if position >= len(content) or shift > 28:
                return None
            byte = content[position]
            position += 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        lengths.append(length)
    if position + sum(lengths) != len(content):
        return None
    texts = []
    for length in lengths:
        texts.append(content[position : position + length])
        position += length
    return texts


def encode_tensor(array: np.ndarray, proto: Any) -> None:
    """Fills an empty `TensorProto` from what the session returned.

    Values go into the repeated field of their type, as the real server sends them by default.
    """
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    if array.dtype == object:
        proto.dtype = types_pb2.DT_STRING
        proto.string_val.extend(array.ravel().tolist())
        return
    number = _NUMBERS.get(array.dtype)
    if number is None:
        proto.CopyFrom(tf.make_tensor_proto(array))
        return
    proto.dtype = number
    tag = _RAW_TAGS.get(number)
    if tag is not None and array.size > 8:
        data = np.ascontiguousarray(array).tobytes()
        carrier = tensor_pb2.TensorProto.FromString(tag + varint(len(data)) + data)
        proto.MergeFrom(carrier)
        return
    field, _ = _FIELDS[number]
    values = array.view(np.uint16) if number in _BITS else array
    getattr(proto, field).extend(values.ravel().tolist())


def varint(number: int) -> bytes:
    """A number as a protocol buffer spells it."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
