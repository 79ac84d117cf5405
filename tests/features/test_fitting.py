from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.admission import admit
from lfm4ads_tf.features.dense_encoder import standardize
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.fitting import fit_encoding
from lfm4ads_tf.features.offline import encode_columns

FEATURES = {
    "user_id": {"kind": "vocabulary", "owner": "user", "min_count": 2},
    "item_id": {"kind": "vocabulary", "owner": "item"},
    "tags": {"kind": "multi", "owner": "item", "encoding": "vocabulary", "min_count": 2},
    "age": {"kind": "numeric", "owner": "user"},
    "age_log": {"kind": "numeric", "owner": "user", "column": "age", "transform": "log"},
    "age_bucket": {
        "kind": "numeric",
        "owner": "user",
        "column": "age",
        "transform": "buckets",
        "buckets": 3,
    },
    "history": {"kind": "sequence", "owner": "user", "events_of": "click", "table": "item_id"},
}
ROW = st.tuples(
    st.sampled_from(["u1", "u2", "u3", ""]),
    st.sampled_from(["i1", "i2", "i3", "i4"]),
    st.lists(st.sampled_from(["x", "y", "z", ""]), max_size=3),
    st.floats(-100, 100, width=32) | st.just(float("nan")),
    st.lists(st.sampled_from(["i1", "i2", "i3", "i4"]), max_size=3),
    st.sampled_from(["tab 1", "tab 2", "tab 3"]),
)


def columns_of(rows: list[Any]) -> dict[str, Any]:
    user, item, tags, age, history, tab = zip(*rows, strict=True)
    return {
        "user_id": np.array(user, object),
        "item_id": pa.array(item, pa.string()),
        "tags": pa.array(tags, pa.list_(pa.string())),
        "age": np.array(age, np.float64),
        "history": pa.array(history, pa.list_(pa.string())),
        "tab": pa.array(tab, pa.string()),
    }


def seen_by_training(spec: Any, rows: list[Any], first: int) -> dict[str, Any]:
    columns = columns_of(rows)
    ordinals = np.arange(len(rows))
    fitted = fit_encoding(spec, columns, ordinals, ordinals < first)
    encoder = Encoder(spec, fitted)
    return admit(encode_columns(encoder, columns), encoder.layout, fitted.vocabularies, ordinals)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(ROW, min_size=4, max_size=12),
    st.lists(ROW, max_size=8),
    st.lists(ROW, max_size=8),
)
def test_later_rows_change_no_earlier_row(
    make_spec: Any, kept: list[Any], before: list[Any], after: list[Any]
) -> None:
    spec = make_spec(FEATURES)
    kept[0] = (*kept[0][:3], 1.5, *kept[0][4:])  # the first period needs one number
    whole, changed = (seen_by_training(spec, [*kept, *rest], 4) for rest in (before, after))
    n = len(kept)
    for key in ("ids", "dense", "scenario"):
        np.testing.assert_array_equal(whole[key][:n], changed[key][:n])
    for name in ("tags", "history"):
        one, other = whole["bags"][name], changed["bags"][name]
        np.testing.assert_array_equal(one[1][: n + 1], other[1][: n + 1])
        np.testing.assert_array_equal(one[0][: one[1][n]], other[0][: other[1][n]])


def test_training_order_is_the_order_of_train_rows(make_spec: Any) -> None:
    spec = make_spec({"item_id": FEATURES["item_id"], "tags": FEATURES["tags"]})
    columns = {
        "item_id": np.array(["c", "b", "a", None, "z"], object),
        "tags": (np.array(["p", "q", "q", "p", "p"], object), np.array([0, 2, 2, 3, 5, 5])),
        "tab": np.array(["2", "1", "1", "1", "9"], object),
    }
    rows = np.array([3, 2, 1, 0])
    fitted = fit_encoding(spec, columns, rows, np.ones(5, bool))
    assert fitted.vocabularies["item_id"].values == ["a", "b", "c"]
    assert fitted.vocabularies["item_id"].admitted_at.tolist() == [1, 2, 3]
    assert fitted.vocabularies["tags"].values == ["p", "q"]
    assert fitted.vocabularies["tags"].admitted_at.tolist() == [0, 3]
    assert fitted.scenarios == ["1", "2"]


def test_auxiliary_scenario_comes_last(make_spec: Any) -> None:
    auxiliary = {
        "files": ["old.csv"],
        "scenario": "old",
        "order": "n",
        "labels": {"click": "watched"},
    }
    columns = {
        "user_id": np.array(["a"] * 5, object),
        "tab": np.array(["old", "old", "2", None, "1"], object),
    }
    spec = make_spec(auxiliary=auxiliary)
    fitted = fit_encoding(spec, columns, np.arange(5), np.ones(5, bool))
    assert fitted.scenarios == ["2", "1", "old"]
    keyless = make_spec(keys={"user": "user_id", "item": "item_id", "time": "time"})
    assert fit_encoding(keyless, columns, np.arange(5), np.ones(5, bool)).scenarios == ["all"]


@settings(deadline=None)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=50), st.integers(2, 8))
def test_numeric_statistics(make_spec: Any, values: list[float], buckets: int) -> None:
    age = np.array([*values, np.nan, 7e7])  # the last row lies after the first period
    features = {**FEATURES, "age_bucket": {**FEATURES["age_bucket"], "buckets": buckets}}
    numeric = {k: v for k, v in features.items() if k.startswith("age")}
    first = np.arange(len(age)) < len(age) - 1
    columns = {"age": age, "tab": np.full(len(age), "t", object)}
    fitted = fit_encoding(make_spec(numeric), columns, np.arange(len(age)), first)
    x = np.asarray(values)
    for name, transformed in (("age", x), ("age_log", np.sign(x) * np.log1p(np.abs(x)))):
        scaler = StandardScaler().fit(transformed[:, None])
        mean, deviation = fitted.standardize[name]
        assert mean == pytest.approx(scaler.mean_[0], abs=1e-9)
        if deviation != 1.0:
            assert deviation == pytest.approx(scaler.scale_[0], rel=1e-9)
        else:
            assert transformed.std() <= 1e-6 * max(1.0, abs(mean)) or scaler.scale_[0] == 1.0
    boundaries = fitted.boundaries["age_bucket"]
    expected = np.quantile(x, np.arange(1, buckets) / buckets).astype(np.float32)
    assert boundaries == sorted(set(expected.tolist()))


def test_all_missing_number_names_the_feature(make_spec: Any) -> None:
    columns = {"age": np.array([np.nan, np.inf, 3.0]), "tab": np.array(["t"] * 3, object)}
    first = np.array([True, True, False])
    with pytest.raises(UserError, match="'age_bucket'"):
        fit_encoding(
            make_spec({"age_bucket": FEATURES["age_bucket"]}), columns, np.arange(3), first
        )
    raw = {"age": {**FEATURES["age"], "standardize": False}}
    assert fit_encoding(make_spec(raw), columns, np.arange(3), first).standardize == {}


def test_absent_column_names_the_nearest(make_spec: Any) -> None:
    columns = {"user_ids": np.array(["a"], object), "tab": np.array(["t"], object)}
    spec = make_spec({"user_id": FEATURES["user_id"]})
    with pytest.raises(UserError, match="'user_id'.*Did you mean 'user_ids'"):
        fit_encoding(spec, columns, np.arange(1), np.ones(1, bool))


def test_save_and_load(make_spec: Any, tmp_path: Path) -> None:
    rows = [("u1", "i\n1", ["ü", "x"], 1.25, [], "tab 1"), ("u1", "i2", ["ü"], 3.5, [], "tab 2")]
    fitted = fit_encoding(make_spec(FEATURES), columns_of(rows), np.arange(2), np.ones(2, bool))
    fitted.save(tmp_path / "encoding")
    assert FittedEncoding.load(tmp_path / "encoding") == fitted
    assert fitted.vocabularies["tags"].values == ["ü"]


def test_an_encoding_of_an_earlier_version_has_no_bound(make_spec: Any, tmp_path: Path) -> None:
    rows = [("u1", "i1", [], float(k), [], "tab 1") for k in range(9)]
    spec = make_spec({"age": {"kind": "numeric", "owner": "user", "bound": 3}})
    fitted = fit_encoding(spec, columns_of(rows), np.arange(9), np.ones(9, bool))
    assert fitted.bounds == {"age": 3.0}
    fitted.save(tmp_path)
    document = json.loads((tmp_path / "encoding.json").read_text())
    del document["bounds"]
    (tmp_path / "encoding.json").write_text(json.dumps(document))
    earlier = FittedEncoding.load(tmp_path)
    assert earlier == replace(fitted, bounds={})
    assert earlier.digest != fitted.digest  # an export of one is none of the other
    column = {"age": np.array([1e4, -1e4]), "tab": np.array(["tab 1"] * 2, object)}
    whole, bounded = (
        encode_columns(Encoder(spec, of), column)["dense"] for of in (earlier, fitted)
    )
    assert bounded.tolist() == [[3.0], [-3.0]]
    np.testing.assert_allclose(whole[:, 0], (column["age"] - 4) / np.std(np.arange(9)), rtol=1e-6)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(width=32), min_size=1, max_size=20),
    st.sampled_from(["raw", "log"]),
    st.floats(-1e3, 1e3, width=32),
    st.sampled_from([2.0**-9, 0.75, 1e3]),
    st.sampled_from([None, 0.5, 10.0]),
)
def test_numbers_are_bounded_and_missing_by_their_raw_value(
    values: list[float], transform: str, mean: float, deviation: float, bound: float | None
) -> None:
    x = np.asarray(values, np.float32).astype(np.float64)
    arrays = [np.full((1, 1), v, np.float32) for v in (mean, deviation, bound or np.inf)]
    log = np.full((1, 1), transform == "log")
    found = standardize(tf.constant(x[None], tf.float32), log, *arrays).numpy()[0]
    wide = np.where(np.isfinite(x), x, 0.0)
    wide = np.sign(wide) * np.log1p(np.abs(wide)) if transform == "log" else wide
    with np.errstate(over="ignore"):
        wide = wide.astype(np.float32).astype(np.float64)
    exact = np.where(np.isfinite(x), (wide - mean) / deviation, 0.0)
    assert np.isfinite(found).all()
    error = 1e-6 * (np.abs(wide) + abs(mean)) / deviation
    if bound is None:  # a quotient that overflows is missing, as it always was
        overflow = np.abs(exact) > np.finfo(np.float32).max
        assert not found[overflow].any()
        exact = np.where(overflow, 0.0, exact)
    else:
        exact = np.clip(exact, -bound, bound)
    assert (np.abs(found - exact) <= error + 1e-30).all()
