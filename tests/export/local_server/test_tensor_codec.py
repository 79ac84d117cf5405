"""Tensors on the wire, against TensorFlow's own conversion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorflow.core.framework import tensor_pb2, types_pb2

from lfm4ads_tf.export.local_server.tensor_codec import decode_tensor, encode_tensor

DTYPES = [
    np.float32, np.float64, np.float16, np.int8, np.int16, np.int32, np.int64,
    np.uint8, np.uint16, np.uint32, np.uint64, np.bool_,
]  # fmt: skip
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)


def encoded(array: np.ndarray) -> Any:
    proto = tensor_pb2.TensorProto()
    encode_tensor(array, proto)
    return tensor_pb2.TensorProto.FromString(proto.SerializeToString())


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_numbers_equal_tensorflows_own_conversion(data: Any) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    array = data.draw(hnp.arrays(dtype, SHAPES))
    for proto in (tf.make_tensor_proto(array), encoded(array)):
        found = decode_tensor(proto)
        assert found is not None
        assert found.dtype == array.dtype and found.shape == array.shape
        assert found.tobytes() == array.tobytes()
    np.testing.assert_array_equal(tf.make_ndarray(encoded(array)), array)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=6))
def test_texts_equal_tensorflows_own_conversion(texts: list[bytes]) -> None:
    array = np.empty(len(texts), object)
    array[:] = texts
    for proto in (tf.make_tensor_proto(texts, tf.string, shape=[len(texts)]), encoded(array)):
        found = decode_tensor(proto)
        assert found is not None and found.tolist() == texts
    # packed, as TensorFlow's C++ writes large ones
    packed = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING)
    packed.tensor_shape.dim.add().size = len(texts)
    lengths = b"".join(
        bytes([len(t)]) if len(t) < 128 else bytes([len(t) & 127 | 128, len(t) >> 7]) for t in texts
    )
    packed.tensor_content = lengths + b"".join(texts)
    found = decode_tensor(packed)
    assert found is not None and found.tolist() == texts
    packed.tensor_content += b"!"
    assert decode_tensor(packed) is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_last_of_too_few_values_fills_the_rest(dtype: Any) -> None:
    proto = encoded(np.array([1, 0, 1], dtype))
    proto.tensor_shape.dim[0].size = 5
    expected = tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(dtype)).numpy()
    found = decode_tensor(proto)
    assert found is not None and found.tolist() == expected.tolist()


def test_invalid_tensors() -> None:
    proto = tf.make_tensor_proto(np.float32([1, 2]))
    proto.tensor_shape.dim[0].size = 3
    assert decode_tensor(proto) is None
    proto.ClearField("tensor_content")
    proto.tensor_shape.dim[0].size = 1 << 40  # named by two values only
    assert decode_tensor(proto) is None
    proto.tensor_shape.dim[0].size = -1
    assert decode_tensor(proto) is None
    assert decode_tensor(tensor_pb2.TensorProto()) is None
    assert decode_tensor(tensor_pb2.TensorProto(dtype=types_pb2.DT_RESOURCE)) is None


def test_bfloat16() -> None:
    array = np.array([1.5, -2.0, 3.25], tf.bfloat16.as_numpy_dtype)
    found = decode_tensor(encoded(array))
    assert found is not None and found.dtype == array.dtype
    assert found.astype(np.float32).tolist() == [1.5, -2.0, 3.25]
