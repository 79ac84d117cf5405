"""Requests of a client, against `RequestSchema` on the same rows."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.request_schema import RequestSchema
from lfm4ads_tf.export.wire.raw_rows import RawRows
from lfm4ads_tf.export.wire.request_builder import RequestBuilder
from lfm4ads_tf.export.wire.scored_rows import read_rows
from lfm4ads_tf.export.wire.serving_error import ServingError
from lfm4ads_tf.features.raw_types import RawType, raw_sides, raw_types
from lfm4ads_tf.features.request_name import request_name
from lfm4ads_tf.features.spec_file import parse_spec
from lfm4ads_tf.representations.names import is_item_side

World = Any  # of conftest.py
WIDTHS = {"UR": 3, "CR_user@cross_2": 5}


def signatures_of(schema: RequestSchema) -> dict[str, Any]:
    """What a server's metadata says of a schema."""
    inputs = {
        name: {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}
        for name, spec in schema.tensor_specs().items()
    }
    return {"predict": {"method": "tensorflow/serving/predict", "inputs": inputs, "outputs": {}}}


@pytest.fixture(scope="module")
def schema(world: World) -> RequestSchema:
    return RequestSchema(raw_types(world.spec), {**WIDTHS, "IR": 2})


@pytest.fixture(scope="module")
def builder(world: World, schema: RequestSchema) -> RequestBuilder:
    return RequestBuilder(world.spec, signatures_of(schema), "the model 'ranker'")


@pytest.fixture(scope="module")
def vectors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    held = {n: rng.normal(size=(40, d)).astype(np.float32) for n, d in {**WIDTHS, "IR": 2}.items()}
    held["UR"][3] = 0
    return held


def forms(samples: pa.Table, vectors: dict[str, np.ndarray]) -> dict[str, Any]:
    """The same rows in every container that a client takes."""
    dicts = samples.to_pylist()
    for row, held in enumerate(dicts):
        for name, matrix in vectors.items():
            held[name] = matrix[row] if matrix[row].any() else None
    sparse = [
        {k: v for k, v in row.items() if v is not None or i == 0} for i, row in enumerate(dicts)
    ]
    mapping = {name: samples[name].to_pylist() for name in samples.column_names} | vectors
    table = samples
    for name, matrix in vectors.items():
        table = table.append_column(name, pa.array(matrix.tolist(), pa.list_(pa.float32())))
    flat, splits = samples["history"].combine_chunks().flatten(), [0]
    for held in samples["history"].to_pylist():
        splits.append(splits[-1] + len(held))
    arrays = {n: samples[n].combine_chunks() for n in samples.column_names} | vectors
    arrays["history"] = (flat, np.array(splits))
    return {"dicts": dicts, "sparse": sparse, "mapping": mapping, "table": table, "arrays": arrays}


@pytest.mark.parametrize("form", ["dicts", "sparse", "mapping", "table", "arrays"])
def test_requests_are_those_of_the_schema(
    world: World,
    schema: RequestSchema,
    builder: RequestBuilder,
    vectors: dict[str, np.ndarray],
    form: str,
) -> None:
    rows = forms(world.samples, vectors)[form]
    assert builder.schema.columns == schema.columns
    assert builder.schema.representations == schema.representations
    expected = schema.examples(world.columns, vectors)
    assert [tf.train.Example.FromString(e) for e in builder.examples(rows)] == [
        tf.train.Example.FromString(e) for e in expected
    ]
    found, tensors = builder.tensors(rows), schema.tensors(world.columns, vectors)
    assert set(found) == set(tensors)
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_ranking_holds_the_user_once(
    world: World, schema: RequestSchema, builder: RequestBuilder, vectors: dict[str, np.ndarray]
) -> None:
    sides: dict[str, str] = dict(raw_sides(world.spec))
    sides |= {n: "item" if is_item_side(n) else "user" for n in vectors}
    rows = forms(world.samples, vectors)["dicts"]
    user = {k: v for k, v in rows[0].items() if sides.get(k) == "user" or k == "tab"}
    items = [
        {k: v for k, v in row.items() if sides.get(k) == "item" or k == "weekday"} for row in rows
    ]
    found = builder.rank_tensors(user, items)
    expected = schema.tensors(world.columns, vectors)
    assert set(found) == set(expected)
    for name, array in expected.items():
        column = next(c for c in [*schema.columns, *vectors] if request_name(c) == name)
        one = sides[column] == "user" or column == "tab"
        assert len(found[name]) == (1 if one else len(rows)), name
        # a list of the first row alone may be padded to a smaller width
        width = found[name].shape[1:]
        cut = (array[:1] if one else array)[(slice(None), *map(slice, width))]
        np.testing.assert_array_equal(found[name], cut, err_msg=name)


@pytest.mark.parametrize(
    ("user", "items", "reason"),
    [
        ({"price": 3.0}, {}, "'price' describes the item, but the user's row"),
        ({}, {"age": 30}, "'age' describes the user, but the candidates"),
        ({}, {"tab": "t"}, "'tab' describes the context, but the user's row holds it too"),
        ({}, {"UR": [0.0] * 3}, "'UR' describes the user"),
    ],
)
def test_a_column_on_the_wrong_side_is_refused(
    world: World,
    builder: RequestBuilder,
    vectors: dict[str, np.ndarray],
    user: dict[str, Any],
    items: dict[str, Any],
    reason: str,
) -> None:
    sides: dict[str, str] = dict(raw_sides(world.spec))
    sides |= {n: "item" if is_item_side(n) else "user" for n in vectors}
    row = forms(world.samples, vectors)["dicts"][0]
    of_user = {k: v for k, v in row.items() if sides.get(k) != "item"} | user
    of_item = {k: v for k, v in row.items() if sides.get(k) == "item"} | items
    with pytest.raises(ServingError, match=reason) as caught:
        builder.rank_tensors(of_user, [of_item])
    assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("column", "value", "reasons"),
    [
        ("user_id", ["u1"], ["'user_id' must hold text: row 2 is of type list", "['u1']"]),
        ("weekday", "3", ["'weekday' must hold an integer: row 2 is of type str"]),
        ("weekday", 2.5, ["row 2 is no integer", "2.5"]),
        ("price", "7", ["'price' must hold a number: row 2 is of type str"]),
        ("price", 1e39, ["beyond float32"]),
        ("tags", "tag 1|tag 2", ["'tags' must hold a list of texts", "not a list"]),
        ("tags", [["a"]], ["row 2 is of type list"]),
        ("tag_weights", [1.0, None], ["row 2 has a missing number inside"]),
        ("tag_weights", [1.0, -np.inf], ["row 2 has an infinite number inside"]),
        ("vector", [1.0, np.nan], ["'vector' must hold", "row 2 has a missing number inside"]),
        ("UR", [1.0, np.inf, 0.0], ["'UR' must hold", "row 2 has an infinite number inside"]),
        ("vector", [1.0, 2.0, 3.0], ["vectors of 2 numbers", "3 numbers in row 2"]),
        ("UR", [1.0], ["'UR' must hold vectors of 3 numbers", "row 2"]),
        ("tag_weights", [0.5] * 17, ["one weight per value of 'tags'", "17 weights", "row 2"]),
        ("user_id", b"\xff", ["row 2 is not UTF-8"]),
        ("prise", 1.0, ["knows no column 'prise'. Did you mean 'price'?"]),
    ],
)
def test_a_wrong_value_is_named_with_its_row_and_column(
    world: World,
    builder: RequestBuilder,
    vectors: dict[str, np.ndarray],
    column: str,
    value: Any,
    reasons: list[str],
) -> None:
    rows = forms(world.samples, vectors)["dicts"]
    rows[2][column] = value
    with pytest.raises(ServingError) as caught:
        builder.examples(rows)
    assert caught.value.code == "INVALID_ARGUMENT"
    for reason in reasons:
        assert reason in str(caught.value)


def test_a_missing_column_is_named_with_the_nearest_one(
    world: World, builder: RequestBuilder, vectors: dict[str, np.ndarray]
) -> None:
    mapping = forms(world.samples, vectors)["mapping"]
    del mapping["item_id"]
    with pytest.raises(ServingError, match="lack the column 'item_id', which the model 'ranker'"):
        builder.tensors(mapping)


def test_what_the_spec_names_is_passed_over(
    world: World, builder: RequestBuilder, vectors: dict[str, np.ndarray]
) -> None:
    rows = forms(world.samples, vectors)["dicts"]
    expected = builder.examples(rows)
    for row in rows:
        row |= {"is_click": 1, "is_like": None, "time": 7.0, "CR_item@cross_1": [1.0]}
    assert builder.examples(rows) == expected


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "at least one row"),
        ({}, "at least one row"),
        ({"user_id": "u1"}, "a single row is a list of one mapping"),
        ({"user_id": ["u1"], "tab": []}, "different numbers of rows"),
        (["u1"], "Row 0 is no mapping"),
    ],
)
def test_what_is_no_table_of_rows_is_refused(
    builder: RequestBuilder, rows: Any, reason: str
) -> None:
    with pytest.raises(ServingError, match=reason):
        builder.examples(rows)


def test_a_model_of_another_spec_is_refused(world: World, schema: RequestSchema) -> None:
    def build(**changed: Any) -> None:
        signatures = signatures_of(schema)
        signatures["predict"]["inputs"] |= changed
        RequestBuilder(world.spec, signatures, "the model 'm'")

    with pytest.raises(ServingError, match="disagree on 'price': the spec says a number"):
        build(price={"dtype": "int64", "shape": [None]})
    with pytest.raises(ServingError, match="disagree on 'vector'"):
        build(vector={"dtype": "float32", "shape": [None, 3]})
    with pytest.raises(ServingError, match="asks for 'pricee'.* Did you mean 'price'"):
        build(pricee={"dtype": "float32", "shape": [None]})
    with pytest.raises(ServingError, match="no signature 'predict'"):
        RequestBuilder(world.spec, {"serving_default": {}}, "the model 'm'")


def test_a_column_as_numbers_is_as_if_it_were_text(world: World, schema: RequestSchema) -> None:
    part = RequestSchema({"user_id": RawType("text")}, {})
    builder = RequestBuilder(world.spec, signatures_of(part), "m")
    expected = builder.examples([{"user_id": "7"}, {"user_id": "12"}])
    assert builder.examples({"user_id": np.array([7, 12])}) == expected
    assert builder.examples({"user_id": pa.array([7, 12])}) == expected
    assert builder.examples([{"user_id": 7}, {"user_id": np.int64(12)}]) == expected


SAME_TEXT: dict[str, list[Any]] = {
    "10000000000": [10**10, 1e10, np.float64(1e10), Decimal("1e10"), "10000000000.0", "1e+10"],
    "18446744073709551615": [2**64 - 1, np.uint64(2**64 - 1), Decimal(2**64 - 1)],
    str(10**30): [10**30],
    "0": [0, -0.0, "-0.0", Decimal("0.00")],
    "0.1": [0.1, np.float32(0.1), Decimal("0.10"), "0.1"],
    "true": [True, np.True_, "True", "TRUE", "true", b"True"],
    "000007": ["000007"],
}


@pytest.mark.parametrize("text", SAME_TEXT)
def test_a_value_has_the_text_that_files_give_it(world: World, text: str) -> None:
    parts = RequestSchema({"user_id": RawType("text"), "tags": RawType("texts")}, {})
    builder = RequestBuilder(world.spec, signatures_of(parts), "m")
    for value in SAME_TEXT[text]:
        forms: list[Any] = [
            [{"user_id": value, "tags": [value, None]}],
            {"user_id": [value], "tags": [[value, ""]]},
            {"user_id": [value], "tags": ([value, None], [0, 2])},
        ]
        if isinstance(value, np.generic):
            forms.append({"user_id": np.array([value]), "tags": [np.array([value, value])[:1]]})
        if not isinstance(value, np.generic) and value != 10**30:
            held = pa.array([value], pa.uint64() if value == 2**64 - 1 else None)
            held = held.cast(pa.string()) if isinstance(value, bytes) else held
            forms.append(pa.table({"user_id": held, "tags": pa.array([[text]])}))
        for rows in forms:
            found = builder.tensors(rows)
            assert found["user_id"].tolist() == [text.encode()]
            assert found["tags"][0, 0] == text.encode()


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("integer", 2**64 - 1, "row 1 is beyond 64 bits"),
        ("integer", -(2**63) - 1, "row 1 is beyond 64 bits"),
        ("integer", 10**400, "row 1 is beyond float32"),
        ("number", 10**400, "row 1 is beyond float32"),
        ("number", Decimal("1e400"), "row 1 is beyond float32"),
        ("numbers", [1, 10**400], "row 1 is beyond float32"),
        ("text", 10**5000, "row 1 has too many digits for a text"),
        ("texts", [10**5000], "row 1 has too many digits for a text"),
        ("text", Fraction(1, 3), "row 1 is of type Fraction"),
    ],
    ids=lambda value: type(value).__name__,  # the largest has no text
)
def test_a_number_that_is_too_large_is_named_with_row_and_column(
    world: World, kind: Any, value: Any, reason: str
) -> None:
    column = {"integer": "level", "number": "age", "text": "user_id"}.get(kind, "tags")
    part = RequestSchema({column: RawType(kind)}, {})
    small = {"texts": ["1"], "numbers": [1]}.get(kind, 1)
    forms: list[Any] = [[{column: small}, {column: value}], {column: [small, value]}]
    if column == "tags":
        forms.append({column: ([*small, *value], [0, 1, 1 + len(value)])})  # type: ignore[misc]
    if kind == "integer" and value == 2**64 - 1:
        forms.append({column: np.array([1, value], np.uint64)})
        forms.append(pa.table({column: pa.array([1, value], pa.uint64())}))
    for rows in forms:
        held = RawRows(rows)
        with pytest.raises(ServingError, match=f"Column '{column}' must hold .*: {reason}"):
            held.column(column, part.columns[column], "m")


def test_excluded_items_are_optional(world: World) -> None:
    part = RequestSchema({"age": RawType("number"), "exclude": RawType("texts")}, {})
    builder = RequestBuilder(world.spec, signatures_of(part), "m")
    ages = {"age": pa.array([30.0, 40.0])}
    some = {**ages, "exclude": pa.array([["i1", "i2"], []], pa.list_(pa.string()))}
    assert builder.examples([{"age": 30}, {"age": 40}]) == part.examples(
        {**ages, "exclude": pa.array([[], []], pa.list_(pa.string()))}, {}
    )
    rows = [{"age": 30, "exclude": ["i1", "i2"]}, {"age": 40, "exclude": None}]
    assert builder.examples(rows) == part.examples(some, {})
    assert builder.tensors(rows)["exclude"].tolist() == [[b"i1", b"i2"], [b"", b""]]


def test_a_column_of_the_spec_may_be_called_exclude(world: World, tmp_path: Path) -> None:
    features = {**world.raw_spec["features"], "exclude": {"kind": "numeric", "owner": "item"}}
    spec = parse_spec({**world.raw_spec, "features": features})
    part = RequestSchema({"exclude": RawType("number")}, {})
    builder = RequestBuilder(spec, signatures_of(part), "the model 'm'")
    assert builder.schema.columns == part.columns
    expected = part.examples({"exclude": np.array([0.5, np.nan])}, {})
    assert builder.examples([{"exclude": 0.5}, {"exclude": None}]) == expected
    with pytest.raises(ServingError, match="lack the column 'exclude'"):
        builder.examples([{"item_id": "i"}])
    (tmp_path / "rows.csv").write_text("item_id\ni\n")
    with pytest.raises(UserError, match="lack the column 'exclude'"):
        read_rows(tmp_path / "rows.csv", spec, builder.schema)


def test_a_key_that_no_feature_reads_is_asked_for_by_a_lookup(world: World) -> None:
    features = {n: f for n, f in world.spec.features.items() if n in ("age", "brand")}
    spec = world.spec.model_copy(update={"features": features})
    columns = {"age": RawType("number"), "user_id": RawType("text"), "item_id": RawType("text")}
    builder = RequestBuilder(spec, signatures_of(RequestSchema(columns, {})), "m")
    assert builder.schema.columns == columns
    found = builder.rank_tensors(
        {"age": 30, "user_id": "u1"}, [{"item_id": "i1"}, {"item_id": "i2"}]
    )
    assert found["user_id"].tolist() == [b"u1"]
    assert found["item_id"].tolist() == [b"i1", b"i2"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_infinite_number_is_missing_in_every_form(
    world: World, bad: float, schema: RequestSchema
) -> None:
    part = RequestSchema({"price": RawType("number"), "weekday": RawType("integer")}, {})
    builder = RequestBuilder(world.spec, signatures_of(part), "m")
    expected = builder.examples([{"price": 2.0, "weekday": 3}, {"price": None, "weekday": None}])
    numbers, days = [2.0, bad], [3.0, bad]
    assert builder.examples({"price": np.array(numbers), "weekday": days}) == expected
    assert builder.examples({"price": pa.array(numbers), "weekday": days}) == expected
    rows = [{"price": p, "weekday": d} for p, d in zip(numbers, days, strict=True)]
    assert builder.examples(rows) == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_vector_with_a_number_that_is_not_finite_is_refused_in_every_form(
    world: World, bad: float
) -> None:
    part = RequestSchema({"vector": RawType("vector", 2)}, {"UR": 2})
    builder = RequestBuilder(world.spec, signatures_of(part), "m")
    good, wrong = [[1.0, 2.0], [0.0, 1.0]], [[1.0, 2.0], [bad, 1.0]]
    for name in ("vector", "UR"):
        other = "UR" if name == "vector" else "vector"
        for values in (wrong, np.array(wrong), pa.array(wrong)):
            with pytest.raises(ServingError, match=f"'{name}' must hold .*: row 1 has "):
                builder.examples({name: values, other: good})


def test_files_are_read_as_the_log_is_written(world: World, tmp_path: Path) -> None:
    how = {"format": "csv", "delimiter": ";", "quoting": "none", "list_separator": "/"}
    spec = parse_spec({**world.raw_spec, "log": {**world.raw_spec["log"], **how}})
    part = RequestSchema({"user_id": RawType("text"), "tags": RawType("texts")}, {})
    (tmp_path / "rows.txt").write_text("user_id;tags\n\"a;b/c\nd\";['e', 'f']\n")
    with pytest.raises(UserError, match=r"is no list of texts or numbers in data row 1"):
        read_rows(tmp_path / "rows.txt", spec, part)
    (tmp_path / "rows.txt").write_text('user_id;tags\n"a;b/c\nd";"e"\n')
    found = read_rows(tmp_path / "rows.txt", spec, part)
    assert found.to_pylist() == [
        {"user_id": '"a', "tags": ["b", "c"]},
        {"user_id": 'd"', "tags": ['"e"']},
    ]


@pytest.mark.parametrize("form", ["dicts", "mapping", "table"])
def test_markers_of_missing_values_are_sent_as_missing(
    world: World, schema: RequestSchema, vectors: dict[str, np.ndarray], form: str
) -> None:
    document = world.spec.model_dump(mode="json") | {"missing": {"*": ["N/A"], "brand": ["-"]}}
    builder = RequestBuilder(parse_spec(document), signatures_of(schema), "the model 'ranker'")
    rows = forms(world.samples, vectors)["dicts"][:4]
    cells: dict[str, Any] = {"brand": "-", "price": "N/A", "weekday": "N/A", "vector": "N/A"}

    def given(values: dict[str, Any]) -> Any:
        held = [{**row, **values} for row in rows]
        if form == "dicts":
            return held
        columns = {name: [row[name] for row in held] for name in held[0]}
        return columns if form == "mapping" else pa.table(columns)

    found = builder.tensors(given(cells))
    expected = builder.tensors(given(dict.fromkeys(cells)))
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    # a marker of one column is a text like another elsewhere
    assert "-" in str(builder.tensors(given({"item_id": "-"}))["item_id"])
