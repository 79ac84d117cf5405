"""Every name that the code uses for itself, as a name of the data: it works, or is refused early.

`WORDS` are names of files, columns, signatures and settings of ours. Data whose features and
columns are called so are encoded to the same numbers as with plain names. `REFUSED_*` are the
names that cannot be kept apart.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lfm4ads_tf.config import Resolved, RunConfig
from lfm4ads_tf.data.append import append_to
from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.new_rows import read_files
from lfm4ads_tf.data.pack import pack
from lfm4ads_tf.data.packed import PackedCache
from lfm4ads_tf.data.raw import load_raw
from lfm4ads_tf.data.requests import complete, read_requests
from lfm4ads_tf.data.samples import cache_rows, read_samples
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.offline import encode_columns
from lfm4ads_tf.features.spec_file import parse_spec
from lfm4ads_tf.pipeline.request_names import check_request_names
from lfm4ads_tf.pipeline.run import Run

WORDS = {
    "columns and files of the encoded cache": [
        "ids", "dense", "dense_daily", "labels", "branch", "segments", "time", "split", "period",
        "ahead_row", "ahead_dense", "best_possible", "blocks", "manifest", "user_keys", "values",
        "splits", "weights", "bags", "ids.values", "state", "newest", "tables", "samples",
        "encoding", "x@daily",
    ],
    "columns of states, samples, representations and scores": [
        "row", "row_", "key", "items", "n", "s", "prior", "valid_from", "vector", "score", "task",
        "method", "slice",
    ],
    "inputs, outputs and signatures of exports": [
        "examples", "inputs", "outputs", "instances", "signature_name", "b64", "ids_bytes",
        "classes", "scores", "representation", "predict", "rank", "serving_default",
    ],
    "settings, results and models": [
        "all", "each", "none", "full", "upstream", "foundation", "log", "train", "valid", "test",
        "frozen", "daily", "count", "rate", "f.rate", "towers", "embeddings", "group.frozen",
        "scenarios", "ads", "scenarios of the spec", "ads of the spec", "auxiliary:watched",
    ],
    "words of Python and characters of paths, shells and URLs": [
        "self", "class", "None", "lambda", "a/b", "../a", "..", ".hidden", "50% off", "größe",
        "x~y", "a b", "[x]*?", "c:d", "x" * 200,
    ],
}  # fmt: skip
EVERY = [word for words in WORDS.values() for word in words]
COLUMNS = ["user_id", "item_id", "ad", "tab", "time_ms", "day", "hour", "click", "stars", "age",
           "level", "segment", "interests", "interest_weights", "pages", "price", "brand", "tags",
           "vector"]  # fmt: skip
FEATURES = 19  # of the small log


def renamed(
    ads: dict[str, Any], features: dict[str, str], columns: dict[str, str]
) -> dict[str, Any]:
    """The spec of the small log with other names of features and raw columns."""

    def column(name: str) -> str:
        return columns.get(name, name)

    spec = copy.deepcopy(ads)
    spec["features"] = {}
    for name, declared in ads["features"].items():
        of = copy.deepcopy(declared)
        if of["kind"] == "crossed":
            of["columns"] = [column(c) for c in of["columns"]]
        elif of["kind"] != "statistic" and "events_of" not in of:
            of["column"] = column(name)
        if "weights" in of:
            of["weights"] = column(of["weights"])
        if "table" in of:
            of["table"] = features.get(of["table"], of["table"])
        if "keys" in of:
            of["keys"] = [features.get(k, k) for k in of["keys"]]
        spec["features"][features.get(name, name)] = of
    spec["keys"] |= {k: column(spec["keys"][k]) for k in ("user", "item", "time", "scenario")}
    for table in spec["tables"].values():
        table["key"] = column(table["key"])
    spec["tasks"] = {
        "click": column("click"),
        "love": {"label": column("stars"), "positive_at_least": 4},
    }
    spec["split"]["by"] = spec["period"]["by"] = column("day")
    return spec


def with_columns(columns: dict[str, str]) -> Callable[[Any], None]:
    """Renames columns of the files."""

    def change(tables: dict[str, list[dict[str, Any]]]) -> None:
        for rows in tables.values():
            rows[:] = [{columns.get(name, name): v for name, v in row.items()} for row in rows]

    return change


def assert_same_data(ours: Any, plain: Any, features: dict[str, str], columns: Any) -> None:
    """Two encoded data sets are equal up to their names, and so are new rows joined to them."""
    rows = np.arange(ours.cache.rows)
    for refresh in ("frozen", "daily"):
        one, other = (w.cache.take(rows, refresh) for w in (ours, plain))
        for key in ("ids", "dense", "scenario", "branch", "item", "labels"):
            np.testing.assert_array_equal(one[key], other[key])
        for name, bag in other["bags"].items():
            mine = one["bags"][features.get(name, name)]
            np.testing.assert_array_equal(mine.values, bag.values)
            np.testing.assert_array_equal(mine.splits, bag.splits)
    places = np.arange(len(plain.cache.ahead_row))
    one, other = (w.cache.take_ahead(places) for w in (ours, plain))
    np.testing.assert_array_equal(one["dense"], other["dense"])
    samples = [read_samples(w.folder) for w in (ours, plain)]
    np.testing.assert_array_equal(*(cache_rows(s) for s in samples))
    new = []
    for world, table in zip((ours, plain), samples, strict=True):
        encoder = Encoder(world.spec, FittedEncoding.load(world.folder / "encoding"))
        keys = (world.spec.keys.user, world.spec.keys.item, world.spec.keys.scenario, "hour")
        if world is ours:
            keys = (*keys[:3], columns.get("hour", "hour"))
        path = world.folder / "new.parquet"
        pq.write_table(table.select(keys), path)
        rows_ = read_requests(world.spec, world.folder, path)
        new.append(encode_columns(encoder, complete(world.spec, world.folder, encoder, rows_)))
    for key in ("ids", "dense", "scenario"):
        np.testing.assert_array_equal(new[0][key], new[1][key])


@pytest.fixture(scope="module")
def plain(make_ads: Callable[..., Any]) -> Any:
    """The small log under its plain names."""
    return make_ads(per_day=20)


def test_a_column_may_be_called_as_the_times_are_read(
    make_ads: Callable[..., Any], ads_spec: dict[str, Any]
) -> None:
    """The times lie beside the raw columns; a feature reads a column of that name."""
    columns = {"hour": "time:time_ms", "tab": "time:day"}
    spec = renamed(ads_spec, {}, columns)
    ours = make_ads(with_columns(columns), per_day=20, **spec)
    hours = ours.raw.columns["time:time_ms"].to_pylist()
    assert hours[-20:] == [float(k % 24) for k in range(20)]
    assert set(ours.raw.columns["time:day"].to_pylist()) >= {"t0", "t1"}


@pytest.mark.parametrize("start", range(0, len(EVERY), FEATURES))
def test_features_and_columns_may_have_names_of_ours(
    start: int, make_ads: Callable[..., Any], plain: Any, ads_spec: dict[str, Any]
) -> None:
    """Each word names a feature in one of the cases, and a raw column in another one."""
    turned = EVERY[start:] + EVERY[:start]
    features = dict(zip(ads_spec["features"], turned, strict=False))
    assert len(features) == FEATURES
    columns = dict(zip(COLUMNS, turned[-len(COLUMNS) :], strict=True))
    spec = renamed(ads_spec, features, columns)
    ours = make_ads(with_columns(columns), per_day=20, **spec)
    assert_same_data(ours, plain, features, columns)


@pytest.mark.parametrize(
    ("features", "columns"),
    [
        ({"item_id": "\N{GREEK SMALL LETTER ALPHA}", "tab": "scenarios of the spec"}, {}),
        ({"user_id": "ads of the spec"}, {"hour": "auxiliary:watched"}),
        ({"clicked": "newest", "user_click": "../newest"}, {"hour": "row", "age": "row_"}),
        ({"tab": "scenario"}, {"hour": "item_love", "age": "user_click"}),
    ],
)
def test_names_that_met(
    features: dict[str, str],
    columns: dict[str, str],
    make_ads: Callable[..., Any],
    plain: Any,
    ads_spec: dict[str, Any],
) -> None:
    spec = renamed(ads_spec, features, columns)
    assert_same_data(make_ads(with_columns(columns), per_day=20, **spec), plain, features, columns)


def test_packed_and_appended_data_may_have_names_of_ours(
    make_ads: Callable[..., Any],
    ads_files: Callable[..., Path],
    ads_spec: dict[str, Any],
    tmp_path: Path,
) -> None:
    features = {"clicked": "a/b", "user_click": "../c", "item_love": "ids", "tags": "x@daily"}
    columns = {"hour": "row"}
    tables = {"users": ads_spec["tables"]["users"], "../items": ads_spec["tables"]["items"]}
    split = {"by": "day", "train_until": 4, "valid_until": 5}
    found = []
    for ours in (True, False):
        names = (features, columns) if ours else ({}, {})
        spec = renamed(ads_spec, *names) | {"split": split}
        spec |= {"tables": tables} if ours else {}

        def first(log: Any, names: Any = names) -> None:
            with_columns(names[1])(log)
            log["log"] = [row for row in log["log"] if row["day"] < 6]

        def later(log: Any, names: Any = names) -> None:
            with_columns(names[1])(log)
            log["log"] = [row for row in log["log"] if row["day"] >= 6]

        world = make_ads(first, **spec)
        place = tmp_path / f"ours_{ours}"
        pack(world.cache, place / "packed", 16)
        packed = PackedCache(place / "packed")
        new = read_files(world.spec, world.cache, [ads_files(place / "new", later) / "log.csv"])
        (place / "data").mkdir()
        append_to(place / "data", world.spec, world.cache, new, {"version": 2})
        appended = EncodedCache(place / "data")
        rows = np.arange(world.cache.rows)
        found.append(
            [packed.take(rows, "daily"), appended.take(np.arange(appended.rows)),
             appended.take_ahead(np.arange(len(appended.ahead_row)))]
        )  # fmt: skip
    for one, other in zip(*found, strict=True):
        for key in ("ids", "dense"):
            np.testing.assert_array_equal(one[key], other[key])
        for name, bag in other["bags"].items():
            np.testing.assert_array_equal(one["bags"][features.get(name, name)].values, bag.values)


# -- what the spec refuses ------------------------------------------------------------------------

HASHED = {"owner": "context", "kind": "hashed", "column": "hour_text"}
STATISTIC = {"owner": "context", "kind": "statistic", "task": "click", "keys": ["user"]}
MOVING = {"owner": "user", "kind": "sequence", "events_of": "click", "table": "item_id"}

REFUSED_BY_THE_SPEC: dict[str, tuple[dict[str, Any], str]] = {
    "a spec that is the folder above": ({"name": ".."}, "name"),
    "a task all": ({"tasks": {"all": "click"}}, "No task can be called 'all'"),
    "a task row": ({"tasks": {"row": "click"}}, "No task can be called 'row'"),
    "a task with a slash": ({"tasks": {"a/b": "click"}}, "contains a '/'"),
    "a task without a name": ({"tasks": {"": "click"}}, "A name under `tasks` is empty"),
    "a signal of a task's name": ({"signals": {"click": "stars"}}, "as a task and as a signal"),
    "a signal without a name": ({"signals": {"": "stars"}}, "A name under `signals`"),
    "a side table log": (
        {"tables": {"log": {"files": ["u.csv"], "key": "u", "owner": "user"}}},
        "No side table can be called 'log'",
    ),
    "an auxiliary scenario all": ({"auxiliary.scenario": "all"}, "No scenario can be called 'all'"),
    "an auxiliary scenario each": ({"auxiliary.scenario": "each"}, "called 'each'"),
    "an auxiliary scenario without a name": ({"auxiliary.scenario": ""}, "is empty"),
    "a segment all": ({"segments": {"all": {"by": "hour", "values": [1]}}}, "name of a scenario"),
    "a segment each": ({"segments": {"each": {"by": "hour", "values": [1]}}}, "of a scenario"),
    "a feature that cannot be printed": ({"features.\x1fads": HASHED}, "cannot be printed"),
    "a list that is stored beside another": (
        {"features.clicked@daily": HASHED}, "No feature can be called 'clicked@daily' beside"),
    "a list that is stored ahead": ({"features.clicked@ahead": HASHED}, "'clicked@ahead' beside"),
    "a count that is a column": (
        {"features.f": STATISTIC, "features.x": {**HASHED, "column": "f.count"}},
        "'f.count' would stand for two things",
    ),
    "a rate that is a label": (
        {"features.f": STATISTIC, "signals": {"z": "f.rate"}}, "the label of 'z'"),
    "a rate that is the time": ({"features.f": STATISTIC, "keys.time": "f.rate"}, "`keys.time`"),
    "a rate that is the scenario": (
        {"features.f": STATISTIC, "keys.scenario": "f.rate"}, "`keys.scenario`"),
    "a count of a count": (
        {"features.f": STATISTIC, "features.g": {**STATISTIC, "keys": ["f.count"]}},
        "feature 'g' has a column of this name",
    ),
    "a count that is a list of events": (
        {"features.f": STATISTIC, "features.f.count": MOVING}, "'f.count' would stand"),
    "a count of the user": (
        {"features.f": STATISTIC, "log.user_columns": ["f.count"]}, "`log.user_columns`"),
    "a list of events that is a column": (
        {"features.x": {**HASHED, "column": "clicked"}}, "'clicked' would stand for two things"),
    "a list of events that is the split": (
        {"features.days": MOVING, "split.by": "days"}, "`split.by`"),
    "a list of events that is the period": (
        {"features.days": MOVING, "period.by": "days"}, "`period.by`"),
    "a truth that is a list of events": (
        {"best_possible": {"click": "clicked"}}, "`best_possible.click`"),
    "ads by a count": ({"ads": {"by": "user_click.count", "values": [1]}}, "makes from past"),
    "a key that is a feature too": (
        {"features.item": HASHED}, "'item', which is the item key and also a feature"),
}  # fmt: skip


def changed(spec: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """The spec with `section.name` keys put in place."""
    for path, value in over.items():
        section, _, name = path.partition(".")
        if name:
            spec.setdefault(section, {})[name] = value
        else:
            spec[section] = value
    return spec


@pytest.mark.parametrize("case", REFUSED_BY_THE_SPEC)
def test_what_the_spec_refuses(case: str, ads_spec: dict[str, Any]) -> None:
    over, message = REFUSED_BY_THE_SPEC[case]
    if "tasks" in over:  # nothing else may name the tasks that are gone
        features = ads_spec["features"]
        ads_spec["features"] = {k: features[k] for k in ("user_id", "item_id", "price")}
        del ads_spec["auxiliary"]
    with pytest.raises(UserError) as refused:
        parse_spec(changed(ads_spec, over))
    assert message in str(refused.value)
    assert "Fix:" in str(refused.value) or case.startswith("a spec")


# -- what the log and the run refuse --------------------------------------------------------------


@pytest.mark.parametrize("name", ["all", "each"])
def test_a_scenario_of_the_log_that_is_reserved(
    name: str, ads_files: Callable[..., Path], ads_spec: dict[str, Any], tmp_path: Path
) -> None:
    def change(tables: dict[str, list[dict[str, Any]]]) -> None:
        for row in tables["log"][-7:]:  # of the test alone
            row["tab"] = name

    folder = ads_files(tmp_path, change)
    with pytest.raises(UserError) as refused:
        load_raw(parse_spec(ads_spec), folder)
    assert f"No scenario can be called '{name}'" in str(refused.value)
    assert f"7 rows with '{name}' in column 'tab'" in str(refused.value)


def test_without_a_scenario_key_the_one_scenario_is_called_all(
    make_ads: Callable[..., Any], ads_spec: dict[str, Any]
) -> None:
    ads_spec["keys"]["scenario"] = None
    ads_spec["auxiliary"] = None
    ads_spec["features"] = {k: ads_spec["features"][k] for k in ("user_id", "item_id")}
    assert make_ads(per_day=20, **ads_spec).cache.layout.scenarios == ("all",)


def columns_of(**owners: str) -> dict[str, Any]:
    """Hashed features that are called as their columns are, with their owners."""
    return {
        f"features.f_{k}": {"owner": owner, "kind": "hashed", "column": column}
        for k, (column, owner) in enumerate(owners.items())
    }


WEIGHTED = {"owner": "item", "kind": "multi", "column": "t", "weights": "w"}
REFUSED_BY_THE_RUN: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "UR": (columns_of(UR="user"), {}, "The column 'UR' and the representation 'UR'"),
    "ir": (columns_of(ir="item"), {}, "The column 'ir' and the representation 'IR'"),
    "a CR": (columns_of(**{"CR_user@cross_1": "user"}), {}, "representation 'CR_user@cross_1'"),
    "a requested CR": (columns_of(CR_item_at_dnn_1="item"), {}, "requested as 'CR_item_at_dnn_1'"),
    "upper and lower case": (columns_of(Age="user"), {}, "'age' and 'Age'"),
    "a dot": (columns_of(**{"a.b": "user", "a_dot_b": "user"}), {}, "both requested as 'a_dot_b'"),
    "a count": (columns_of(user_click_dot_count="user"), {}, "'user_click.count' and"),
    "exclude": (columns_of(exclude="user"), {}, "by which a retrieval is asked"),
    "Exclude": (columns_of(Exclude="user"), {}, "by which a retrieval is asked"),
    "a key": (columns_of(User_Id="user"), {}, "'user_id' and 'User_Id'"),
    "feature UR": ({"features.UR": HASHED}, {}, "The feature 'UR' and the representation 'UR'"),
    "feature scenario_index": ({"features.scenario_index": HASHED}, {}, "and the scenario cannot"),
    "feature branch_index": ({"features.branch_index": HASHED}, {}, "and the branch cannot"),
    "weights": (
        {"features.t": WEIGHTED, "features.t_weights": HASHED}, {}, "The feature 't_weights' and"),
    "a spelled feature": (
        {"features.a.b": HASHED, "features.a_dot_b": HASHED}, {}, "both are called 'a_dot_b'"),
}  # fmt: skip


def run_of(spec: dict[str, Any], config: dict[str, Any], out: Path) -> Run:
    return Run(out, Resolved(spec=parse_spec(spec), config=RunConfig.model_validate(config)))


@pytest.mark.parametrize("case", REFUSED_BY_THE_RUN)
def test_what_the_run_refuses_before_anything_is_made(
    case: str, ads_spec: dict[str, Any], tmp_path: Path
) -> None:
    over, config, message = REFUSED_BY_THE_RUN[case]
    with pytest.raises(UserError) as refused:
        check_request_names(run_of(changed(ads_spec, over), config, tmp_path))
    assert message in str(refused.value) and "Fix:" in str(refused.value)


@pytest.mark.parametrize(
    ("over", "config"),
    [
        ({}, {}),
        (columns_of(exclude="item", exclude_="context"), {}),
        (columns_of(exclude="user"), {"retrieval": {"enabled": False}}),
        (columns_of(exclude="user"), {"retrieval": {"methods": ["model/IR*UR"]}}),
        (columns_of(**{"CR_user@": "user", "self": "user", "class": "item", "b64": "user"}), {}),
        ({"features.ids": HASHED, "features.scores": HASHED, "features.t": WEIGHTED}, {}),
    ],
)
def test_what_the_run_accepts(
    over: dict[str, Any], config: dict[str, Any], ads_spec: dict[str, Any], tmp_path: Path
) -> None:
    check_request_names(run_of(changed(ads_spec, over), config, tmp_path))
