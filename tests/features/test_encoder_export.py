"""An exported encoder, reloaded in a process that knows only TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitting import fit_encoding
from lfm4ads_tf.features.offline import encode_columns

FEATURES = {
    "user_id": {"kind": "vocabulary", "owner": "user"},
    "item_id": {"kind": "hashed", "owner": "item"},
    "pair": {"kind": "crossed", "owner": "context", "columns": ["user_id", "item_id"]},
    "weekday": {"kind": "identity", "owner": "context", "size": 7},
    "age": {"kind": "numeric", "owner": "user"},
    "age_bucket": {"kind": "numeric", "owner": "user", "column": "age", "transform": "buckets"},
    "tags": {"kind": "multi", "owner": "item", "weights": "tag_weights", "encoding": "vocabulary"},
    "pages": {"kind": "sequence", "owner": "user", "max_length": 2},
    "vector": {"kind": "pretrained", "owner": "item", "size": 2},
    "rate": {"kind": "statistic", "owner": "item", "task": "click", "keys": ["item"]},
}
COLUMNS: dict[str, Any] = {
    "user_id": np.array(["a\nb", "ü", "a\nb", None, "never seen"], object),
    "item_id": np.array(["1", "2", None, "4", "5"], object),
    "weekday": np.array([0.0, 6.0, 7.0, np.nan, 2.5]),
    "age": np.array([20.0, 30.0, np.nan, 50.0, 61.5]),
    "tags": (np.array(["x", "", "y", "z", "x"], object), np.array([0, 2, 3, 3, 4, 5])),
    "tag_weights": (np.array([0.5, 9.0, 2.0, -1.0, 0.0]), np.array([0, 2, 3, 3, 4, 5])),
    "pages": (np.array(["p", "q", "r", "s"], object), np.array([0, 3, 3, 4, 4, 4])),
    "vector": np.arange(10.0).reshape(5, 2),  # (5, 2)
    "rate.count": np.arange(5.0),
    "rate.rate": -np.arange(5.0),
    "tab": np.array(["tab 1", "tab 2", "tab 1", "tab 9", None], object),
}
RELOAD = """
import sys
import numpy as np
import tensorflow as tf

model = tf.saved_model.load(sys.argv[1])
examples = np.load(sys.argv[2], allow_pickle=True)
out = model.signatures["serving_default"](tf.constant(examples.tolist()))
np.savez(sys.argv[3], **{k: v.numpy() for k, v in out.items()})
assert "lfm4ads_tf" not in sys.modules
"""


def example(row: int) -> bytes:
    """One row of COLUMNS as a serialized Example; what is missing is left out."""
    features: dict[str, tf.train.Feature] = {}
    for name, column in COLUMNS.items():
        if isinstance(column, tuple):
            values = column[0][column[1][row] : column[1][row + 1]].tolist()
        else:
            values = np.ravel(column[row]).tolist()
        if name == "weekday":
            whole = [int(v) for v in values if v == v and v == int(v)]
            features[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=whole))
        elif values and isinstance(values[0], str):
            texts = [v.encode() for v in values]
            features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=texts))
        elif values and values[0] is not None and values[0] == values[0]:
            features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
    features = {k: v for k, v in features.items() if v.WhichOneof("kind")}
    if not features["weekday"].int64_list.value:
        del features["weekday"]
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def test_export_and_reload(make_spec: Any, tmp_path: Path) -> None:
    spec = make_spec(FEATURES)
    fitted = fit_encoding(spec, COLUMNS, np.arange(4), np.ones(5, bool))
    encoder = Encoder(spec, fitted)

    def serve(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        encoded = encoder(tf.io.parse_example(examples, encoder.example_spec()))
        out = {k: encoded[k] for k in ("ids", "dense", "scenario")}
        for name, (ids, weights) in encoded["bags"].items():
            out |= {f"{name}_values": ids.values, f"{name}_splits": ids.row_splits}
            if weights is not None:
                out[f"{name}_weights"] = weights.values
        return out

    archive = tf_keras.export.ExportArchive()
    archive.track(encoder)
    archive.add_endpoint("serve", serve, [tf.TensorSpec([None], tf.string)])
    archive.write_out(str(tmp_path / "model"))
    examples = np.array([example(row) for row in range(5)], object)
    np.save(tmp_path / "examples.npy", examples, allow_pickle=True)
    subprocess.run(
        [sys.executable, "-c", RELOAD, "model", "examples.npy", "out.npz"],
        cwd=tmp_path,
        check=True,
    )

    served = np.load(tmp_path / "out.npz")
    expected = encode_columns(encoder, COLUMNS)
    for key in ("ids", "dense", "scenario"):
        np.testing.assert_array_equal(served[key], expected[key])
    for name, (values, splits, weights) in expected["bags"].items():
        np.testing.assert_array_equal(served[f"{name}_values"], values)
        np.testing.assert_array_equal(served[f"{name}_splits"], splits)
        if weights is not None:
            np.testing.assert_array_equal(served[f"{name}_weights"], weights)
    ids = dict(zip([f.name for f in encoder.layout.single], served["ids"].T, strict=True))
    assert ids["user_id"].tolist() == [1, 2, 1, -1, 0]
    assert ids["weekday"].tolist() == [0, 6, -1, -1, -1]
    assert served["scenario"].tolist() == [0, 1, 0, 2, -1]


@pytest.mark.parametrize("batch", [1, 4])
def test_raw_signature_is_what_call_takes(make_spec: Any, batch: int) -> None:
    spec = make_spec(FEATURES)
    fitted = fit_encoding(spec, COLUMNS, np.arange(4), np.ones(5, bool))
    encoder = Encoder(spec, fitted)
    function = tf.function(lambda raw: encoder(raw), input_signature=[encoder.raw_signature()])
    examples = tf.constant([example(row) for row in range(batch)])
    raw = tf.io.parse_example(examples, encoder.example_spec())
    ids = function(raw)["ids"].numpy()
    np.testing.assert_array_equal(ids, encode_columns(encoder, COLUMNS, slice(0, batch))["ids"])
