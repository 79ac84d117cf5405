"""Rows that hold keys and vectors in parts are requested as rows that hold them whole."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lfm4ads_tf.export.request_schema import RequestSchema
from lfm4ads_tf.export.wire.request_builder import RequestBuilder
from lfm4ads_tf.export.wire.scored_rows import read_rows
from lfm4ads_tf.export.wire.serving_error import ServingError
from lfm4ads_tf.features.raw_types import raw_types
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.spec_file import parse_spec

SPEC = parse_spec(
    {
        "name": "parts",
        "log": {"files": ["log.csv"]},
        "keys": {"user": ["country", "id"], "item": "item", "time": "none"},
        "tasks": {"click": "click"},
        "split": {"per": "all", "by": "time", "fractions": [0.8, 0.1, 0.1]},
        "features": {
            "who": {"owner": "user", "kind": "hashed", "column": "country+id"},
            "item": {"owner": "item", "kind": "hashed"},
            "taste": {"owner": "context", "kind": "pretrained", "columns": ["t_1", "t_2"]},
        },
    }
)
PARTS = [
    {"country": "SE", "id": 7, "item": "a", "t_1": 0.5, "t_2": None},
    {"country": "S+", "id": "7", "item": "b", "t_1": None, "t_2": -2},
    {"country": None, "id": "7", "item": None, "t_1": None, "t_2": None},
]
WHOLE = [
    {"country+id": "SE+7", "item": "a", "taste": [0.5, 0.0]},
    {"country+id": "S\\++7", "item": "b", "taste": [0.0, -2.0]},
    {"country+id": None, "item": None, "taste": None},
]


def builder_of(spec: FeatureSpec) -> RequestBuilder:
    schema = RequestSchema(raw_types(spec), {})
    inputs = {
        name: {"dtype": of.dtype.name, "shape": of.shape.as_list()}
        for name, of in schema.tensor_specs().items()
    }
    return RequestBuilder(spec, {"predict": {"inputs": inputs, "outputs": {}}}, "the model")


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys() == {"country_u2b_id", "item", "taste"}
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], name)


def test_parts_make_the_whole(tmp_path: Path) -> None:
    builder = builder_of(SPEC)
    expected = builder.tensors(WHOLE)
    assert expected["country_u2b_id"].tolist() == [b"SE+7", b"S\\++7", b""]
    assert_same(builder.tensors(PARTS), expected)
    assert builder.examples(PARTS)[:2] == builder.examples(WHOLE)[:2]
    columns = {name: [row[name] for row in PARTS] for name in PARTS[0]}
    table = pa.table({n: [str(v) if n == "id" else v for v in vs] for n, vs in columns.items()})
    assert_same(builder.tensors(table), expected)
    with (tmp_path / "rows.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([list(columns), *[list(row.values()) for row in PARTS]])
    held = read_rows(tmp_path / "rows.csv", SPEC, builder.schema)
    assert_same(builder.tensors(held), expected)


def test_the_whole_goes_before_its_parts() -> None:
    rows: list[Any] = [{**PARTS[0], "country+id": "NO+1", "taste": [1, 2]}]
    found = builder_of(SPEC).tensors(rows)
    assert found["country_u2b_id"].tolist() == [b"NO+1"]
    assert found["taste"].tolist() == [[1, 2]]


def test_a_part_that_lacks_is_named_by_its_key() -> None:
    rows = [{k: v for k, v in PARTS[0].items() if k != "id"}]
    with pytest.raises(ServingError, match=r"lack the column 'country\+id'"):
        builder_of(SPEC).tensors(rows)


def test_a_part_of_a_wrong_type_is_named() -> None:
    with pytest.raises(ServingError, match="'t_2'"):
        builder_of(SPEC).tensors([{**PARTS[0], "t_2": "two"}])
