"""Golden requests: real rows with the scores that the Keras model gives them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from export.request_schema import RequestSchema
from lfm4ads_tf.features import raw_values
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.models.batch import EncodedBatch

GOLDEN_FILE = Path("assets.extra") / "golden.npz"
"""Inside a version folder. Keys: `<signature>/<input>` holds a serialized TensorProto as bytes,
`scores/<output>` the expected output."""


def with_missing_row(samples: pa.Table, encoder: Encoder) -> dict[str, pa.Array]:
    """The encoder's columns of some rows, and one more row in which every value is missing.

    Raises:
        UserError: A column is not there.
    """
    held = {name: samples[name] for name in samples.column_names}
    columns = {}
    for name in encoder.raw_types:
        array = raw_values.column_of(held, name)
        if array.type == pa.null():
            array = array.cast(pa.string())
        columns[name] = pa.concat_arrays([array, pa.nulls(1, array.type)])
    return columns


def encoded_batch(
    encoder: Encoder, columns: raw_values.Columns, representations: Mapping[str, np.ndarray]
) -> EncodedBatch:
    """Rows encoded as for training.

    Args:
        encoder: The encoder.
        columns: Raw column -> values (B,).
        representations: Name -> (B, d + 1).
    """
    encoded = encoder.encode_numpy(columns)
    bags: dict[str, Any] = {}
    for name, (values, splits, weights) in encoded["bags"].items():
        ids = tf.RaggedTensor.from_row_splits(tf.cast(values, tf.int64), splits)
        of = None if weights is None else tf.RaggedTensor.from_row_splits(weights, splits)
        bags[name] = (ids, of)
    return {
        "ids": tf.constant(encoded["ids"], tf.int64),
        "bags": bags,
        "dense": tf.constant(encoded["dense"], tf.float32),
        "scenario": tf.constant(encoded["scenario"], tf.int64),
        "branch": tf.constant(encoded["branch"], tf.int64),
        "representations": {n: tf.constant(v, tf.float32) for n, v in representations.items()},
    }


def write_golden(
    folder: Path,
    schema: RequestSchema,
    columns: raw_values.Columns,
    representations: Mapping[str, np.ndarray],
    scores: Mapping[str, np.ndarray],
) -> None:
    """Writes the golden requests of both signatures and the expected scores.

    Args:
        folder: The version folder.
        schema: How rows become requests.
        columns: Raw column -> values (B,).
        representations: Name -> (B, d).
        scores: Output -> (B,) or (B, D) float32, or text as bytes.
    """
    requests: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    examples = schema.examples(columns, representations)
    requests["serving_default/examples"] = tf.make_tensor_proto(examples, tf.string)
    specs = schema.tensor_specs()
    for name, values in schema.tensors(columns, representations).items():
        requests[f"predict/{name}"] = tf.make_tensor_proto(values, specs[name].dtype)
    for key, proto in requests.items():
        arrays[key] = np.frombuffer(proto.SerializeToString(), np.uint8)
    for name, values in scores.items():
        held = np.asarray(values)
        # texts as fixed-length bytes: objects would have to be pickled
        arrays[f"scores/{name}"] = held.astype("S") if held.dtype == object else held
    path = folder / GOLDEN_FILE
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
