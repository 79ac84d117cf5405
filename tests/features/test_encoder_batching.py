"""Features that are encoded together do not touch each other, in a traced function as well."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.vocabulary import Vocabulary

TEXTS = ["", "a", "b", "c", "0", "3", "7", "12"]
FEATURES: dict[str, Any] = {
    "one": {"kind": "hashed", "owner": "user", "buckets": 5},
    "two": {"kind": "hashed", "owner": "item", "buckets": 1000},
    "word": {"kind": "vocabulary", "owner": "user"},
    "level": {"kind": "identity", "owner": "context", "size": 8},
    "pair": {"kind": "crossed", "owner": "context", "columns": ["one", "two"]},
    "triple": {"kind": "crossed", "owner": "context", "columns": ["two", "one", "word"]},
    "raw": {"kind": "numeric", "owner": "user"},
    "log": {"kind": "numeric", "owner": "item", "column": "price", "transform": "log"},
    "few": {"kind": "numeric", "owner": "item", "column": "price", "transform": "buckets"},
    "many": {"kind": "numeric", "owner": "user", "column": "raw", "transform": "buckets"},
    "words": {"kind": "multi", "owner": "item", "encoding": "vocabulary", "weights": "words.w"},
    "tags": {"kind": "multi", "owner": "item", "buckets": 7},
    "last": {"kind": "sequence", "owner": "user", "buckets": 90, "max_length": 2},
    "levels": {"kind": "multi", "owner": "context", "table": "level", "weights": "levels.w"},
    "first": {"kind": "sequence", "owner": "user", "table": "word", "max_length": 1},
    "vector": {"kind": "pretrained", "owner": "item", "size": 3},
    "rate": {"kind": "statistic", "owner": "item", "task": "click", "keys": ["item"]},
}
FITTED = FittedEncoding(
    vocabularies={
        "word": Vocabulary(["a", "3"], np.arange(2)),
        "words": Vocabulary(["c", "b", "a"], np.arange(3)),
    },
    boundaries={"few": [0.0], "many": [-1.0, -0.5, 0.0, 0.5, 1.0]},
    standardize={"raw": (0.5, 2.0), "log": (-1.0, 3.0)},
    scenarios=["a", "b"],
)


@pytest.fixture(scope="module")
def encoder(make_spec: Any) -> Encoder:
    return Encoder(make_spec(FEATURES), FITTED)


def random_rows(encoder: Encoder, rows: int, seed: int) -> dict[str, Any]:
    """Raw columns; a tenth of the numbers is missing, lists hold 0 to 5 values."""
    rng = np.random.default_rng(seed)
    lengths: dict[str, np.ndarray] = {}

    def numbers(count: Any) -> tf.Tensor:
        values = rng.normal(size=count)
        return tf.constant(np.where(rng.random(count) < 0.1, np.nan, values), tf.float32)

    raw: dict[str, Any] = {}
    for column, of in encoder.raw_types.items():
        if of.kind == "text":
            raw[column] = tf.constant(rng.choice(TEXTS, rows))
        elif of.kind == "integer":
            raw[column] = tf.constant(rng.integers(-2, 10, rows))
        elif of.kind == "number":
            raw[column] = numbers(rows)
        elif of.kind == "vector":
            raw[column] = tf.constant(rng.normal(size=(rows, of.size)), tf.float32)
        else:
            own = lengths.setdefault(column.removesuffix(".w"), rng.integers(0, 6, rows))
            total = int(own.sum())
            texts = of.kind == "texts"
            flat = tf.constant(rng.choice(TEXTS, total), tf.string) if texts else numbers(total)
            raw[column] = tf.RaggedTensor.from_row_lengths(flat, own.astype(np.int64))
    return raw


def traced(encoder: Encoder) -> Any:
    plain = tf.autograph.experimental.do_not_convert(lambda raw: encoder(raw))
    return tf.function(plain, input_signature=[encoder.raw_signature()])


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(1, 4), st.integers(0, 99), st.sets(st.sampled_from(list(FEATURES)), min_size=1))
def test_a_feature_is_encoded_the_same_in_any_company(
    encoder: Encoder, make_spec: Any, rows: int, seed: int, chosen: set[str]
) -> None:
    chosen = chosen | {FEATURES[name].get("table", name) for name in chosen}
    raw = random_rows(encoder, rows, seed)
    every = encoder(raw)
    few = Encoder(make_spec({n: f for n, f in FEATURES.items() if n in chosen}), FITTED)
    some = traced(few)({column: raw[column] for column in few.raw_types})

    places = {f.name: i for i, f in enumerate(encoder.layout.single)}
    at = [places[f.name] for f in few.layout.single]
    np.testing.assert_array_equal(some["ids"].numpy(), every["ids"].numpy()[:, at])
    columns: dict[str, list[int]] = {}
    for field in encoder.layout.dense:
        start = sum(len(c) for c in columns.values())
        columns[field.name] = list(range(start, start + field.width))
    at = [c for field in few.layout.dense for c in columns[field.name]]
    np.testing.assert_array_equal(some["dense"].numpy(), every["dense"].numpy()[:, at])
    assert set(some["bags"]) == {f.name for f in few.layout.bags}
    for name, (ids, weights) in some["bags"].items():
        expected, expected_weights = every["bags"][name]
        assert ids.to_list() == expected.to_list(), name
        assert (weights is None) == (expected_weights is None)
        if weights is not None:
            assert weights.to_list() == expected_weights.to_list()


def test_bags_come_in_the_order_of_the_layout(encoder: Encoder) -> None:
    bags = encoder(random_rows(encoder, 2, 0))["bags"]
    assert list(bags) == [f.name for f in encoder.layout.bags]


def test_the_graph_does_not_grow_with_the_features(make_spec: Any) -> None:
    def operations(copies: int) -> int:
        features = {
            f"{name}_{k}": {**feature, "column": f"{feature.get('column', name)}_{k}"}
            for k in range(copies)
            for name, feature in FEATURES.items()
            if name in ("one", "level", "raw", "tags", "last")
        }
        # Columns feed stacked operations; they are placeholders, not operations of the encoder.
        graph = traced(Encoder(make_spec(features), FITTED)).get_concrete_function().graph
        fed = ("Placeholder", "Const", "Identity")
        return sum(operation.type not in fed for operation in graph.get_operations())

    assert operations(20) == operations(2)


def test_one_long_list_among_many_short_ones(make_spec: Any) -> None:
    features = {n: FEATURES[n] for n in ("tags", "last")}
    few = Encoder(make_spec(features), FITTED)
    texts = [[b"a"] * 20_000, *([[b"b"]] * 3000)]
    long = tf.ragged.constant(texts, tf.string, ragged_rank=1)
    raw = {"tags": long, "last": long, "tab": tf.fill([3001], "a")}
    bags = few(raw)["bags"]
    assert bags["tags"][0].row_lengths().numpy().tolist() == [20_000, *([1] * 3000)]
    assert bags["last"][0].row_lengths().numpy().tolist() == [2, *([1] * 3000)]


def test_a_list_and_weights_of_other_lengths_are_refused(make_spec: Any) -> None:
    few = Encoder(make_spec({n: FEATURES[n] for n in ("words", "last")}), FITTED)
    raw = {
        "words": tf.ragged.constant([["a", "b"], ["c"]]),
        "last": tf.ragged.constant([["a"], ["b"]]),
        "words.w": tf.ragged.constant([[1.0], [2.0, 3.0]]),  # as many in all
        "tab": tf.constant(["a", "b"]),
    }
    for encode in (few, traced(few)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="differ in length"):
            encode(raw)
    whole = {**raw, "words.w": tf.ragged.constant([[1.0, 2.0], [3.0]])}
    assert few(whole)["bags"]["words"][1].to_list() == [[1.0, 2.0], [3.0]]
