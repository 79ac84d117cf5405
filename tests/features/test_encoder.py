"""The batched encoder against one `tf.feature_column` column at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow.python.feature_column.feature_column_v2 import (
    FeatureTransformationCache,
    _StateManagerImpl,
)

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.columns import build_columns
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.offline import encode_columns
from lfm4ads_tf.features.vocabulary import Vocabulary

VALUES = ["a", "b", "ü", "a b", "line\nbreak", "tab\t", "\x1f", "0\x1fa", "7"]
FEATURES: dict[str, Any] = {
    "weekday": {"kind": "identity", "owner": "context", "size": 7},
    "user_id": {"kind": "hashed", "owner": "user", "buckets": 1000},
    "user_vocabulary": {"kind": "vocabulary", "owner": "user", "column": "user_id"},
    "item_id": {"kind": "vocabulary", "owner": "item"},
    "brand": {"kind": "hashed", "owner": "item", "buckets": 2},
    "brand_as_item": {"kind": "hashed", "owner": "item", "column": "brand", "table": "item_id"},
    "user_brand": {
        "kind": "crossed",
        "owner": "context",
        "columns": ["user_id", "brand"],
        "buckets": 100_003,
    },
    "three": {"kind": "crossed", "owner": "context", "columns": ["brand", "tab", "user_id"]},
    "age": {"kind": "numeric", "owner": "user"},
    "age_log": {"kind": "numeric", "owner": "user", "column": "age", "transform": "log"},
    "age_plain": {
        "kind": "numeric",
        "owner": "user",
        "column": "age",
        "standardize": False,
        "bound": 5,
    },
    "age_bucket": {"kind": "numeric", "owner": "user", "column": "age", "transform": "buckets"},
    "price_bucket": {
        "kind": "numeric",
        "owner": "item",
        "column": "price",
        "transform": "buckets",
        "boundaries": [0.0, 1.0],
    },
    "tags": {"kind": "multi", "owner": "item", "buckets": 50},
    "weighted": {"kind": "multi", "owner": "item", "weights": "tag_weights", "pooling": "sum"},
    "segments": {"kind": "multi", "owner": "user", "encoding": "vocabulary"},
    "levels": {"kind": "multi", "owner": "context", "table": "weekday"},
    "history": {
        "kind": "sequence",
        "owner": "user",
        "events_of": "click",
        "table": "item_id",
        "max_length": 2,
    },
    "pages": {"kind": "sequence", "owner": "user", "max_length": 3, "buckets": 9},
    "vector": {"kind": "pretrained", "owner": "item", "size": 2},
    "rate": {"kind": "statistic", "owner": "item", "task": "click", "keys": ["item"]},
}
FEATURES["weighted"]["column"] = "weighted"
FITTED = FittedEncoding(
    vocabularies={
        "user_vocabulary": Vocabulary(VALUES[2:], np.arange(len(VALUES) - 2)),
        "item_id": Vocabulary(VALUES[:6], np.arange(6)),
        "segments": Vocabulary([], np.zeros(0, np.int64)),
    },
    boundaries={"age_bucket": [-1.5, 0.0, 3.25, 80.0], "price_bucket": [0.0, 1.0]},
    standardize={"age": (3.5, 0.25), "age_log": (-1.0, 2.0)},
    scenarios=["tab 2", "ü"],
    bounds={"age": 30.0, "age_plain": 5.0},
)
TEXT = st.sampled_from(["", *VALUES]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=5
)
NUMBER = st.floats(width=32) | st.sampled_from(
    [float("nan"), float("inf"), -float("inf"), -1.5, 0.0, 80.0]
)
SMALL = st.floats(-1000, 1000, width=32)
NOT_FINITE = st.sampled_from([float("nan"), float("inf"), -float("inf")])
ROW = st.fixed_dictionaries(
    {
        "weekday": st.integers(-2, 9) | st.integers(-(2**63), 2**63 - 1),
        "user_id": TEXT,
        "item_id": TEXT,
        "brand": TEXT,
        "tab": TEXT | st.sampled_from(FITTED.scenarios),
        "age": NUMBER,
        "price": NUMBER,
        "tags": st.lists(TEXT, max_size=4),
        "weighted": st.lists(st.tuples(TEXT, SMALL | NOT_FINITE), max_size=4),
        "segments": st.lists(TEXT, max_size=2),
        "levels": st.lists(TEXT | st.sampled_from(["0", "6", "7", "-1", "9" * 30]), max_size=4),
        "history": st.lists(TEXT, max_size=5),
        "pages": st.lists(TEXT, max_size=5),
        "vector": st.tuples(SMALL, SMALL),
        "rate.count": SMALL,
        "rate.rate": SMALL,
    }
)


@pytest.fixture(scope="module")
def spec(make_spec: Any) -> Any:
    return make_spec(FEATURES)


@pytest.fixture(scope="module")
def encoder(spec: Any) -> Encoder:
    return Encoder(spec, FITTED)


def tensors_of(encoder: Encoder, rows: list[dict[str, Any]]) -> dict[str, Any]:
    raw: dict[str, Any] = {}
    for column, of in encoder.raw_signature().items():
        if column == "tag_weights":
            values: list[Any] = [[w for _, w in row["weighted"]] for row in rows]
        elif column == "weighted":
            values = [[v for v, _ in row["weighted"]] for row in rows]
        else:
            values = [row[column] for row in rows]
        if isinstance(of, tf.RaggedTensorSpec):
            raw[column] = tf.ragged.constant(values, of.dtype, ragged_rank=1, inner_shape=())
        else:
            raw[column] = tf.constant(values, of.dtype)
    return raw


def sparse_ids(column: Any, features: dict[str, Any]) -> Any:
    """What the column makes of the features: (ids per row, weights per row or None)."""
    state = _StateManagerImpl(tf_keras.layers.Layer(), trainable=False)
    column.create_state(state)
    getter = getattr(column, "get_sparse_tensors")  # noqa: B009 - two kinds share the name
    pair = getter(FeatureTransformationCache(features), state)
    rows = int(pair.id_tensor.dense_shape[0])
    ids: list[list[int]] = [[] for _ in range(rows)]
    weights: list[list[float]] = [[] for _ in range(rows)]
    for at, value in zip(
        pair.id_tensor.indices.numpy(), pair.id_tensor.values.numpy(), strict=True
    ):
        ids[at[0]].append(int(value))
    if pair.weight_tensor is None:
        return ids, None
    found = zip(pair.weight_tensor.indices.numpy(), pair.weight_tensor.values.numpy(), strict=True)
    for at, value in found:
        weights[at[0]].append(float(value))
    return ids, weights


def dense_of(columns: Any, features: dict[str, Any]) -> np.ndarray:
    return np.concatenate(
        [tf_keras.layers.DenseFeatures([c])(features).numpy() for c in columns], axis=1
    )


def kept_texts(values: list[str]) -> list[str]:
    return [v for v in values if v]


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.lists(ROW, min_size=1, max_size=6))
def test_equals_every_single_feature_column(
    spec: Any, encoder: Encoder, rows: list[dict[str, Any]]
) -> None:
    columns = build_columns(spec, FITTED)
    raw = tensors_of(encoder, rows)
    encoded = encoder(raw)
    names = [f.name for f in encoder.layout.single]
    ids = dict(zip(names, encoded["ids"].numpy().T.tolist(), strict=True))

    for name in ("user_id", "user_vocabulary", "item_id", "brand", "brand_as_item"):
        expected, _ = sparse_ids(columns[name][0], raw)
        assert [[i] if i >= 0 else [] for i in ids[name]] == expected, name
    days = raw["weekday"]
    valid = tf.where((days >= 0) & (days < 7), days, -1)
    expected, _ = sparse_ids(columns["weekday"][0], {"weekday": valid})
    assert [[i] if i >= 0 else [] for i in ids["weekday"]] == expected
    for name in ("user_brand", "three"):
        # A crossed column crosses the empty text like any other; here it is missing.
        expected, _ = sparse_ids(columns[name][0], raw)
        read = FEATURES[name]["columns"]
        assert ids[name] == [
            e[0] if all(row[c] for c in read) else -1 for e, row in zip(expected, rows, strict=True)
        ], name
    for name in ("age_bucket", "price_bucket"):
        expected, _ = sparse_ids(columns[name][0], raw)
        read = FEATURES[name]["column"]
        assert ids[name] == [
            e[0] if np.isfinite(row[read]) else -1 for e, row in zip(expected, rows, strict=True)
        ], name

    for name in ("tags", "segments", "history", "pages"):
        column = FEATURES[name].get("column", name)
        kept = [kept_texts(row[column]) for row in rows]
        expected, _ = sparse_ids(columns[name][0], {column: ragged_texts(kept).to_sparse()})
        last = FEATURES[name].get("max_length", 99)
        values, weights = encoded["bags"][name]
        assert values.to_list() == [e[-last:] for e in expected], name
        assert weights is None
    digits = [[t for t in row["levels"] if t in set("0123456")] for row in rows]
    numbers = tf.ragged.constant([[int(t) for t in d] for d in digits], tf.int64, ragged_rank=1)
    expected, _ = sparse_ids(columns["levels"][0], {"levels": numbers.to_sparse()})
    assert encoded["bags"]["levels"][0].to_list() == expected
    pairs = [[(v, w) for v, w in row["weighted"] if v and np.isfinite(w)] for row in rows]
    expected, expected_weights = sparse_ids(
        columns["weighted"][0],
        {
            "weighted": ragged_texts([[v for v, _ in p] for p in pairs]).to_sparse(),
            "tag_weights": tf.ragged.constant(
                [[w for _, w in p] for p in pairs], tf.float32, ragged_rank=1
            ).to_sparse(),
        },
    )
    values, weights = encoded["bags"]["weighted"]
    assert values.to_list() == expected
    assert weights.to_list() == expected_weights

    start = 0
    for field in encoder.layout.dense:
        got = encoded["dense"][:, start : start + field.width].numpy()
        start += field.width
        np.testing.assert_allclose(got, dense_of(columns[field.name], raw), rtol=1e-6, atol=1e-6)
    assert np.isfinite(encoded["dense"].numpy()).all()
    order = {s: i for i, s in enumerate(FITTED.scenarios)}
    assert encoded["scenario"].numpy().tolist() == [order.get(row["tab"], -1) for row in rows]


def ragged_texts(values: list[list[str]]) -> tf.RaggedTensor:
    return tf.ragged.constant(values, tf.string, ragged_rank=1)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(ROW, min_size=1, max_size=6), st.integers(1, 3))
def test_offline_encoding_equals_the_layer(
    encoder: Encoder, rows: list[dict[str, Any]], chunk: int
) -> None:
    raw = tensors_of(encoder, rows)
    columns: dict[str, Any] = {}
    for name, tensor in raw.items():
        if isinstance(tensor, tf.RaggedTensor):
            columns[name] = (plain(tensor.values.numpy()), tensor.row_splits.numpy())
        else:
            columns[name] = plain(tensor.numpy())
    encoded = encoder(raw)
    offline = encode_columns(encoder, columns, slice(1, None), chunk_rows=chunk)
    for key in ("ids", "dense", "scenario"):
        np.testing.assert_allclose(offline[key], encoded[key].numpy()[1:], rtol=1e-6)
    for name, (values, weights) in encoded["bags"].items():
        flat, splits, flat_weights = offline["bags"][name]
        assert flat.tolist() == values[1:].flat_values.numpy().tolist()
        assert splits.tolist() == values[1:].row_splits.numpy().tolist()
        if weights is not None:
            assert flat_weights.tolist() == weights[1:].flat_values.numpy().tolist()


def plain(values: np.ndarray) -> np.ndarray:
    """Bytes as text, None for some of the missing."""
    if values.dtype != object:
        return values
    texts = [v.decode() or None for v in values]
    return np.array(texts, object)


def test_layout_is_owner_major(encoder: Encoder) -> None:
    layout = encoder.layout
    for fields in (layout.fields, layout.dense):
        declared = [f.name for f in fields]
        by_owner = [
            name
            for owner in ("user", "item", "context")
            for name, f in FEATURES.items()
            if f["owner"] == owner and name in declared
        ]
        assert declared == by_owner
    rows = {t.name: t.rows for t in layout.tables}
    assert rows["weekday"] == 7
    assert rows["user_vocabulary"] == len(VALUES) - 1
    assert rows["segments"] == 1
    assert rows["age_bucket"] == 5
    assert rows["three"] == 100_000
    assert "brand_as_item" not in rows and "history" not in rows
    assert {f.name: f.combiner for f in layout.bags}["weighted"] == "sum"
    assert layout.scenarios == ("tab 2", "ü") and layout.tasks == ("click", "like")


def test_a_spec_without_scenario_or_dense(make_spec: Any) -> None:
    keys = {"user": "user_id", "item": "item_id", "time": "time"}
    encoder = Encoder(
        make_spec({"tags": {"kind": "multi", "owner": "item"}}, keys=keys), FittedEncoding()
    )
    encoded = encoder({"tags": ragged_texts([["a"], [], ["b"]])})
    assert encoded["ids"].shape == (3, 0) and encoded["dense"].shape == (3, 0)
    assert encoded["scenario"].numpy().tolist() == [0, 0, 0]


def test_bfloat16_policy_leaves_numbers_alone(make_spec: Any) -> None:
    features = {"age": {"kind": "numeric", "owner": "user", "standardize": False}}
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        encoder = Encoder(make_spec(features), FittedEncoding(scenarios=["t"]))
        dense = encoder({"age": tf.constant([1.0009765625]), "tab": tf.constant(["t"])})["dense"]
    finally:
        tf_keras.mixed_precision.set_global_policy(before)
    assert dense.numpy().tolist() == [[1.0009765625]]


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (
            {
                "n": {"kind": "numeric", "owner": "user", "column": "age"},
                "h": {"kind": "hashed", "owner": "user", "column": "age"},
            },
            ["'age'", "'n'", "'h'", "text", "number"],
        ),
        (
            {"t": {"kind": "identity", "owner": "context", "column": "tab", "size": 3}},
            ["'t'", "key"],
        ),
        (
            {
                "v": {"kind": "pretrained", "owner": "item", "column": "vector", "size": 2},
                "w": {"kind": "pretrained", "owner": "item", "column": "vector", "size": 3},
            },
            ["'v'", "'w'", "2 numbers", "3 numbers"],
        ),
        (
            {
                "user_id": {"kind": "hashed", "owner": "user", "dim": 4},
                "other": {"kind": "hashed", "owner": "user", "table": "user_id", "dim": 8},
            },
            ["'other'", "8", "4"],
        ),
    ],
)
def test_contradictions_are_refused(make_spec: Any, features: Any, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        Encoder(make_spec(features), FittedEncoding())
    for word in words:
        assert word in str(error.value)


def test_a_crossed_feature_shares_no_table(make_spec: Any) -> None:
    features = {
        "user_id": {"kind": "hashed", "owner": "user"},
        "x": {
            "kind": "crossed",
            "owner": "context",
            "columns": ["user_id", "item_id"],
            "table": "user_id",
        },
    }
    with pytest.raises(UserError, match="'x'"):
        Encoder(make_spec(features), FittedEncoding())


def test_bad_columns_are_named(make_spec: Any) -> None:
    features = {
        "tags": {"kind": "multi", "owner": "item", "weights": "tag_weights"},
        "vector": {"kind": "pretrained", "owner": "item", "size": 2},
    }
    encoder = Encoder(make_spec(features), FittedEncoding(scenarios=["t"]))
    columns = {
        "tags": (np.array(["a", "b"], object), np.array([0, 1, 2])),
        "tag_weights": (np.array([1.0, 2.0]), np.array([0, 1, 2])),
        "vector": np.ones((2, 2)),
        "tab": np.array(["t", "t"], object),
    }
    assert encode_columns(encoder, columns)["dense"].tolist() == [[1, 1], [1, 1]]
    ragged = (np.array([1.0, 2.0]), np.array([0, 0, 2]))
    with pytest.raises(UserError, match="'tag_weights'.*\n.*1 values and 0 weights in row 0"):
        encode_columns(encoder, {**columns, "tag_weights": ragged})
    with pytest.raises(UserError, match="'vector'.*\n.*3 numbers in row 0"):
        encode_columns(encoder, {**columns, "vector": np.ones((2, 3))})
    with pytest.raises(UserError, match="'vector'"):
        encode_columns(encoder, {k: v for k, v in columns.items() if k != "vector"})
    with pytest.raises(UserError, match="'tab'"):
        encoder({k: v for k, v in tensors_like(columns).items() if k != "tab"})


def tensors_like(columns: dict[str, Any]) -> dict[str, Any]:
    return {
        "tags": ragged_texts([["a"], ["b"]]),
        "tag_weights": tf.ragged.constant([[1.0], [2.0]]),
        "vector": tf.constant(columns["vector"], tf.float32),
        "tab": tf.constant(["t", "t"]),
    }


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_missing_and_a_vector_refused(
    encoder: Encoder, bad: float
) -> None:
    """In every place where a request can hold one: number, bucketised number, weight, vector."""
    signature = encoder.raw_signature()

    def row(number: float | None, weights: list[float], vector: list[float]) -> dict[str, Any]:
        raw: dict[str, Any] = {}
        for column, of in encoder.raw_types.items():
            if of.kind == "vector":
                raw[column] = tf.constant([vector])
            elif of.kind == "number":
                raw[column] = tf.constant([np.nan if number is None else number], tf.float32)
            elif column == "weighted":
                raw[column] = tf.ragged.constant([["a", "b", "c"][: len(weights)]])
            elif column == "tag_weights":
                raw[column] = tf.ragged.constant([weights], dtype=tf.float32)
            elif of.kind in ("text", "integer"):
                raw[column] = tf.zeros([1], signature[column].dtype)
            else:
                raw[column] = tf.ragged.constant([["x"]])
        return raw

    traced = tf.function(encoder.call, input_signature=[signature])
    vector = [1.0, -2.0]
    missing, found = (
        traced(row(None, [0.5, 2.0], vector)),
        traced(row(bad, [0.5, bad, 2.0], vector)),
    )
    np.testing.assert_array_equal(found["ids"], missing["ids"])
    np.testing.assert_array_equal(found["dense"], missing["dense"])
    ids, weights = found["bags"]["weighted"]
    assert weights.to_list() == [[0.5, 2.0]] and len(ids.to_list()[0]) == 2
    with pytest.raises(tf.errors.InvalidArgumentError, match="column vector must hold finite"):
        traced(row(1.0, [0.5], [1.0, bad]))
