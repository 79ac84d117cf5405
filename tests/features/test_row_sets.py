"""Ads and segments: what a value equals, what is refused, and the encoder's branch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.offline import encode_columns
from lfm4ads_tf.features.row_sets import RowSet
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.vocabulary import Vocabulary

USER = {"user_id": {"kind": "hashed", "owner": "user"}}
MakeSpec = Callable[..., FeatureSpec]


@pytest.mark.parametrize(
    ("value", "text", "equal"),
    [
        (1, "1", True),
        ("1", "1", True),
        (1, "1.0", True),
        (1.0, "1", True),
        ("1.0", "1", True),
        (1, "01", False),
        ("007", "7", False),
        ("007", "007", True),
        (2.5, "2.5", True),
        (-3, "-3", True),
        (1, "10", False),
        (True, "true", True),
        (True, "1", True),
        (False, "0", True),
        ("AD", "AD", True),
        ("AD", "ad", False),
        ("nan", "NaN", False),
        ("1.00", "1", True),
        (1e10, "10000000000", True),
        ("1e+10", "10000000000", True),
        ("True", "true", True),
        (2**64 - 1, "18446744073709551615", True),
        (0, "", False),
    ],
)
def test_what_a_value_equals(value: Any, text: str, equal: bool) -> None:
    assert RowSet(by="x", values=[value]).rows(pa.array([text, None])).tolist() == [equal, False]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=4),
    st.lists(st.one_of(st.none(), st.integers(0, 8)), min_size=1, max_size=9),
)
def test_text_and_number_columns_agree_with_plain_membership(
    values: list[int], column: list[int | None]
) -> None:
    expected = [v in values for v in column]
    of = RowSet(by="x", values=values)
    texts = [None if v is None else str(v) for v in column]
    numbers = [None if v is None else float(v) for v in column]
    assert of.rows(pa.array(texts, pa.string())).tolist() == expected
    assert of.rows(pa.array(numbers, pa.float64())).tolist() == expected
    assert of.rows(pa.array(column, pa.int64())).tolist() == expected


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64()])
def test_integers_are_compared_exactly(kind: pa.DataType) -> None:
    column = pa.array([2**53, 2**53 + 1, None, 7], kind)
    for value in (2**53 + 1, str(2**53 + 1)):
        of = RowSet(by="x", values=[value, -1, 2**70])
        assert of.rows(column).tolist() == [False, True, False, False]
        held = tf.constant([2**53, 2**53 + 1, -1, 7], tf.int64)
        assert of.holds_number(held).numpy().tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("feature", "column"),
    [
        (None, np.array(["3", "1", None, "1.0", "x"], object)),
        (
            {"kind": "vocabulary", "owner": "context"},
            np.array(["3", "1", None, "1.0", "x"], object),
        ),
        ({"kind": "numeric", "owner": "context"}, np.array([3, 1, np.nan, 1.0, 7])),
        ({"kind": "identity", "owner": "context", "size": 9}, np.array([3, 1, np.nan, 1.0, 7])),
    ],
)
@pytest.mark.parametrize("values", [[1, 5, -1], ["1"], [1.0]])
def test_the_encoder_tells_ads_whatever_reads_the_column(
    make_spec: MakeSpec, feature: dict[str, Any] | None, column: Any, values: list[Any]
) -> None:
    features = USER if feature is None else {**USER, "place": feature}
    spec = make_spec(features, ads={"by": "place", "values": values})
    fitted = FittedEncoding(standardize={"place": (0.0, 1.0)}, scenarios=["t"])
    if feature is not None and feature["kind"] == "vocabulary":
        empty = Vocabulary(["x"], np.zeros(1, np.int64))
        fitted = FittedEncoding(vocabularies={"place": empty}, scenarios=["t"])
    encoder = Encoder(spec, fitted)
    columns = {
        "user_id": np.array(list("abcde"), object),
        "tab": np.array(["t"] * 5, object),
        "place": column,
    }
    found = encode_columns(encoder, columns, chunk_rows=2)["branch"]
    assert found.tolist() == [0, 1, 0, 1, 0] and found.dtype == np.int8


def test_without_ads_every_row_is_content(make_spec: MakeSpec) -> None:
    encoder = Encoder(make_spec(USER), FittedEncoding(scenarios=["t"]))
    assert list(encoder.raw_types) == ["user_id", "tab"]
    columns = {"user_id": np.array(["a", "b"], object), "tab": np.array(["t", None], object)}
    assert encode_columns(encoder, columns)["branch"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"ads": {"by": "tab", "values": []}}, r"ads\.values"),
        ({"ads": {"by": "tab", "value": [1]}}, "Did you mean 'values'"),
        ({"ads": {"by": "", "values": [1]}}, r"ads\.by"),
        ({"ads": {"values": [1]}}, r"ads\.by: this key is required"),
        ({"ads": {"by": "tab", "values": [""]}}, "empty value"),
        ({"ads": {"by": "tab", "values": [None]}}, r"ads\.values"),
        ({"ads": {"by": "is_click", "values": [1]}}, "`ads` goes by the label column 'is_click'"),
        ({"segments": {"x": {"by": "is_like", "values": [1]}}}, r"segments\.x` goes by the label"),
        ({"segments": {"a b": {"by": "tab", "values": [1]}}}, "segments"),
        ({"segments": {"all": {"by": "tab", "values": [1]}}}, "name of a scenario"),
    ],
)
def test_sets_that_cannot_be_are_refused(
    make_spec: MakeSpec, over: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_spec(USER, **over)


def test_columns_that_features_make_or_that_hold_lists_are_refused(make_spec: MakeSpec) -> None:
    rate = {"kind": "statistic", "owner": "user", "task": "click", "keys": ["user"]}
    with pytest.raises(UserError, match="makes from past events"):
        make_spec({**USER, "r": rate}, ads={"by": "r.rate", "values": [1]})
    spec = make_spec(
        {**USER, "tags": {"kind": "multi", "owner": "item"}}, ads={"by": "tags", "values": ["a"]}
    )
    with pytest.raises(UserError, match="a list of texts"):
        Encoder(spec, FittedEncoding(scenarios=["t"]))
    with pytest.raises(UserError, match="holds lists"):
        RowSet(by="tags", values=["a"]).rows(pa.array([["a"]]))
    spec = make_spec(
        {**USER, "age": {"kind": "numeric", "owner": "user"}}, ads={"by": "age", "values": ["old"]}
    )
    with pytest.raises(UserError, match="names no number"):
        Encoder(spec, FittedEncoding(scenarios=["t"]))
