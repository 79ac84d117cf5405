"""The one text of a value: storages against each other, and against Python's own printing."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lfm4ads_tf.features.value_texts import inexact, plain_texts, value_text, value_texts

BIG = 2**53 + 1  # no 64-bit float
UINT = 2**64 - 1


@pytest.mark.parametrize(
    ("array", "texts"),
    [
        (pa.array([7.0, -0.0, 1e10, -1e10, 2.0**63, None]),
         ["7", "0", "10000000000", "-10000000000", "9223372036854775808", None]),
        (pa.array([0.1, 1e-5, 12345678901.5, float("nan"), float("inf")]),
         ["0.1", "1e-05", "12345678901.5", None, "inf"]),
        (pa.array([0.1, 2.0**24, 1e-5], pa.float32()), ["0.1", "16777216", "1e-05"]),
        (pa.array(np.array([0.1, 2], np.float16)), ["0.1", "2"]),
        (pa.array([BIG, None]), ["9007199254740993", None]),
        (pa.array([UINT], pa.uint64()), ["18446744073709551615"]),
        (pa.array([Decimal("7.00"), Decimal("7.50"), Decimal("-0.25"), None, Decimal(0)],
                  pa.decimal128(20, 2)), ["7", "7.5", "-0.25", None, "0"]),
        (pa.array([Decimal("0.00001"), Decimal("1234567890123456789.125")], pa.decimal128(38, 9)),
         ["1e-05", "1234567890123456789.125"]),
        (pa.array([Decimal(700)], pa.decimal128(5, -2)), ["700"]),
        (pa.array([True, False, None]), ["true", "false", None]),
        (pa.array(["7.0", "b", "7.0"]).dictionary_encode(), ["7", "b", "7"]),
        (pa.array(["1.0"], pa.large_string()), ["1"]),
        (pa.array([b"1.0", b"True"]), ["1", "true"]),
    ],
)  # fmt: skip
def test_the_text_of_each_storage(array: pa.Array, texts: list[str | None]) -> None:
    assert value_texts(array).to_pylist() == texts


PLAIN = {
    "7.0": "7", "7.000": "7", "-7.0": "-7", "0.0": "0", "-0.0": "0", "-0": "0",
    "9007199254740993.0": "9007199254740993", "18446744073709551615": "18446744073709551615",
    "7.000000000000000000e+00": "7", "1e+10": "10000000000", "1.2345678E7": "12345678",
    "9.223372036854776e+18": "9223372036854775808", "1.0E-5": "1e-05", "1e-05": "1e-05",
    "1.5e-7": "1.5e-07", "True": "true", "TRUE": "true", "False": "false", "FALSE": "false",
}  # fmt: skip
KEPT = [
    "7", "000007", "007.0", "+7", "+7.0", "7.", ".0", "7.50", "7.10", "1e3", "12E5", "1E10",
    "12345e67", "7.0.0", "7.0 ", " 7.0", "1_0.0", "٧.0", "tRUE", "Truest", "1.0e999", "1.0e-999",
    "inf", "nan", "v1.0", "-", "", "2026-01-05", "1.0e+0001",
]  # fmt: skip


def test_texts_of_numbers_and_truth_values_are_read_and_others_stay() -> None:
    given, expected = [*PLAIN, *KEPT, None], [*PLAIN.values(), *KEPT, None]
    assert plain_texts(pa.array(given)).to_pylist() == expected
    assert (
        plain_texts(pa.array(["1.0", *given, "2.0"]).slice(1, len(given))).to_pylist() == expected
    )
    for text, plain in zip(given, expected, strict=True):  # each by itself, as in a request
        assert plain_texts(pa.array([text], pa.string())).to_pylist() == [plain]
        assert text is None or value_text(text) == plain


TEXTS = st.one_of(
    st.text(max_size=6),
    st.text("0123456789.eE+-TRUEtrue", max_size=8),
    st.from_regex(r"-?[0-9]{1,3}(\.[0-9]{1,2})?([eE][+-]?[0-9]{1,2})?", fullmatch=True),
)


@given(st.lists(st.none() | TEXTS, max_size=8))
def test_columns_and_single_texts_are_read_alike_and_once(texts: list[str | None]) -> None:
    found = plain_texts(pa.array(texts, pa.string()))
    assert found.to_pylist() == [None if t is None else value_text(t) for t in texts]
    assert plain_texts(found).equals(found)


@given(st.lists(st.integers(-(2**53), 2**53), min_size=1, max_size=6))
def test_an_integer_has_its_digits_in_every_storage(numbers: list[int]) -> None:
    expected = [str(n) for n in numbers]
    written: list[pa.Array] = [
        pa.array(numbers, pa.int64()),
        pa.array(numbers, pa.float64()),
        pa.array([Decimal(n) for n in numbers], pa.decimal128(30, 4)),
        pa.array([repr(float(n)) for n in numbers]),  # as pandas writes a column with gaps
        pa.array([f"{n:.18e}" for n in numbers]),  # as numpy.savetxt does
        pa.array([str(n) for n in numbers]),
    ]
    for array in written:
        assert value_texts(array).to_pylist() == expected
    assert [value_text(n) for n in numbers] == [value_text(float(n)) for n in numbers] == expected


def floats_of(bits: Any) -> st.SearchStrategy[tuple[int, list[float]]]:
    return st.tuples(st.just(bits), st.lists(st.floats(width=bits), min_size=1, max_size=6))


@given(st.one_of(*map(floats_of, (16, 32, 64))))
@example((32, [float(np.float32(1e-4))]))  # below 0.0001, and nearest to it
@example((16, [float(np.float16(1e-4)), float(np.float16(1e-5))]))
def test_a_float_has_its_shortest_text(drawn: tuple[int, list[float]]) -> None:
    bits, values = drawn
    numbers = np.array(values, f"f{bits // 8}")
    texts = value_texts(pa.array(numbers)).to_pylist()
    for number, text in zip(numbers, texts, strict=True):
        if np.isnan(number):
            assert text is None
            continue
        assert text == value_text(number) == value_text(text)
        assert numbers.dtype.type(text) == number
        if np.isfinite(number) and number != int(number):
            assert text == repr(float(str(number)))  # the digits of its own width


@given(st.decimals(-(10**9), 10**9, allow_nan=False, places=5))
def test_a_decimal_has_the_text_of_the_equal_float(value: Decimal) -> None:
    text = value_texts(pa.array([value], pa.decimal128(30, 5)))[0].as_py()
    assert text == value_text(value)
    assert Decimal(text) == value
    if Decimal(repr(float(value))) == value:
        assert text == value_text(float(value))


def test_integers_that_a_float_type_may_have_merged_are_counted() -> None:
    values = [1.0, 2.0**24 - 1, 2.0**24, -(2.0**25), None, float("inf"), float("nan")]
    assert inexact(pa.array(values, pa.float32())) == 2
    assert inexact(pa.array(values, pa.float64())) == 0
    assert inexact(pa.array([2.0**53, 2.0**53 - 1])) == 1
    assert inexact(pa.array(np.array([2048, 2047], np.float16))) == 1


def test_what_has_no_text_of_its_own() -> None:
    with pytest.raises(TypeError, match="list"):
        value_text([1])
    with pytest.raises(ValueError, match="digits"):
        value_text(10**5000)
