"""`train.py check-skew`: a run's own rows pass, and what is wrong is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
import pytest

MODELS = ("foundation", "ranker_home")
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def log(shop: Any) -> pa.Table:
    """The raw rows of the test day as they were logged."""
    table = arrow_csv.read_csv(shop.folder / "shop.csv")
    return table.filter(pc.equal(table["day"], 20260107))


@pytest.fixture(scope="module")
def served_log(shop_run: Any, log: pa.Table) -> pa.Table:
    """The same with the moving columns and the representations that were sent."""
    from lfm4ads_tf.export.skew.logged_rows import read_logged_rows
    from lfm4ads_tf.pipeline.predict import join_frozen, load_encoder
    from lfm4ads_tf.pipeline.run import open_run
    from lfm4ads_tf.pipeline.stored_representations import open_store

    run = open_run(shop_run[0])
    path = shop_run[0].parent / "served.parquet"
    pq.write_table(log, path)
    rows = read_logged_rows(run.spec, run.out / "data", path, {})
    state = rows.offline(run.spec, run.out / "data", load_encoder(run))
    for name in ("user_click.count", "user_click.rate", "item_click.count", "item_click.rate"):
        log = log.append_column(name, pa.array(state[name]))
    log = log.append_column("clicked_before", state["clicked_before"])
    store = open_store(run, 0)
    keys = {"user": rows.plain["user_id"], "item": rows.plain["item_id"]}
    for name in ("UR", "IR"):
        vectors = join_frozen(store, name, keys)[:, :-1]
        log = log.append_column(name, pa.array(vectors.tolist(), pa.list_(pa.float32())))
    return log


@pytest.fixture()
def check(cli: Callable[..., Any], shop_run: Any, tmp_path: Path) -> Callable[..., Any]:
    """`check(table, model="foundation", *more, out=None)`: outcome and JSON report."""

    def run(table: pa.Table, model: str = "foundation", *more: Any, out: Path | None = None) -> Any:
        path, report = tmp_path / "log.parquet", tmp_path / "skew.json"
        pq.write_table(table, path)
        report.unlink(missing_ok=True)
        done = cli(
            "check-skew", "--out", out or shop_run[0], "--model", model, "--input", path,
            "--json", report, "--quiet", *more,
        )  # fmt: skip
        assert "Traceback" not in done.text
        assert report.exists(), done.text
        return done, json.loads(report.read_text("utf-8"))

    return run


def _with(table: pa.Table, column: str, change: Callable[[list[Any]], list[Any]]) -> pa.Table:
    at = table.column_names.index(column)
    of = table.schema.field(column).type
    return table.set_column(at, column, pa.array(change(table[column].to_pylist()), of))


def _at(row: int, value: Callable[[Any], Any]) -> Callable[[list[Any]], list[Any]]:
    """Changes one row."""
    return lambda values: [value(v) if k == row else v for k, v in enumerate(values)]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("moving", [False, True])
def test_the_runs_own_test_rows_pass(
    check: Callable[..., Any], log: pa.Table, served_log: pa.Table, model: str, moving: bool
) -> None:
    """The moving columns that were sent are what the run completes the rows with."""
    done, report = check(served_log if moving else log, model)
    assert done.code == 0, done.text
    assert not report["skew"] and not report["drift"]
    home = pc.sum(pc.equal(log["surface"], "home")).as_py()
    assert report["rows"] == (len(log) if model == "foundation" else home)
    assert [c["differing"] for c in report["raw_columns"]] == [0] * (5 if moving else 0)
    read = [f["name"] for f in report["features"]]
    assert read[:3] == ["user_id", "age_group", "city"] and "city_category" in read
    assert [s["name"] for s in report["scores"]] == ["click", "order"]
    assert all(s["largest"] <= 1e-6 for s in report["scores"])
    assert "user_id" in done.out and "clicked_before" in done.out


def test_the_foundation_scores_are_the_evaluations(
    check: Callable[..., Any], shop_run: Any, log: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The offline side is no second copy of the served graph: it gives the run's predictions."""
    import lfm4ads_tf.export.skew.check as skew

    kept: list[np.ndarray] = []
    score = skew.score_encoded

    def keep(*arguments: Any) -> np.ndarray:
        kept.append(score(*arguments))
        return kept[-1]

    monkeypatch.setattr(skew, "score_encoded", keep)
    check(log)
    stored = np.load(shop_run[0] / "upstream" / "seed_0" / "predictions.npz")["test_frozen"]
    np.testing.assert_allclose(kept[0], stored, rtol=0, atol=1e-6)


def test_a_statistic_that_was_logged_differently_is_named(
    check: Callable[..., Any], served_log: pa.Table
) -> None:
    rows = _with(served_log, "item_click.rate", _at(11, lambda v: v + 0.25))
    rows = _with(rows, "item_click.rate", _at(17, lambda v: v - 0.5))
    done, report = check(rows)
    assert done.code == 2
    assert "feature 'item_click': 2 of" in done.err and "first row 11" in done.err
    assert "the log holds 'item_click.rate'" in done.err
    found = {f["name"]: f for f in report["features"]}
    assert found["item_click"]["differing"] == 2 and found["item_click"]["row"] == 11
    assert [name for name, f in found.items() if f["differing"]] == ["item_click"]
    assert any(s["differing"] for s in report["scores"])


@pytest.mark.slow
def test_the_first_of_several_features_is_named_in_the_specs_order(
    check: Callable[..., Any], served_log: pa.Table
) -> None:
    rows = _with(served_log, "item_click.count", _at(0, lambda v: v + 1))
    rows = _with(rows, "clicked_before", _at(5, lambda v: [*(v or []), "i1"]))
    done, report = check(rows)
    assert done.code == 2
    assert "feature 'clicked_before': 1 of" in done.err and "first row 5" in done.err
    assert "1 more feature." in done.err
    raw = {c["name"]: c for c in report["raw_columns"]}
    assert raw["clicked_before"]["differing"] == raw["item_click.count"]["differing"] == 1


@pytest.mark.slow
def test_numbers_within_the_tolerance_are_equal(
    check: Callable[..., Any], served_log: pa.Table
) -> None:
    rows = _with(served_log, "item_click.rate", lambda v: [x + 2e-7 for x in v])
    assert check(rows)[0].code == 0
    rows = _with(served_log, "item_click.rate", lambda v: [x + 1e-5 for x in v])
    assert check(rows)[0].code == 2


@pytest.mark.slow
def test_a_representation_that_was_logged_differently_is_named(
    check: Callable[..., Any], shop_run: Any, served_log: pa.Table
) -> None:
    from lfm4ads_tf.pipeline.choice import chosen_method
    from lfm4ads_tf.pipeline.run import open_run

    sources = chosen_method(open_run(shop_run[0]), "home").sources
    rows = served_log.filter(pc.equal(served_log["surface"], "home"))
    rows = _with(rows, "UR", _at(3, lambda v: [0.0] * len(v)))
    done, report = check(rows, "ranker_home")
    if "UR" not in sources:  # the method that validation chose does not read it
        assert done.code == 0 and "UR" not in [f["name"] for f in report["features"]]
        return
    assert done.code == 2
    assert "representation 'UR': 1 of" in done.err and "first row 3" in done.err
    assert "another vector" in done.err


def _copy(shop_run: Any, target: Path) -> Path:
    """The run folder without what a check does not read, to be changed."""
    ignored = shutil.ignore_patterns("tensorboard", "snapshots", "checkpoint", "retrieval*")
    return Path(shutil.copytree(shop_run[0], target, ignore=ignored))


def test_another_vocabulary_in_the_export_is_named(
    check: Callable[..., Any], shop_run: Any, log: pa.Table, tmp_path: Path
) -> None:
    out = _copy(shop_run, tmp_path / "run")
    encoding = json.loads((out / "data" / "encoding" / "encoding.json").read_text("utf-8"))
    path = out / "data" / "encoding" / encoding["vocabularies"]["category"]
    values = pq.read_table(path)
    swapped = values["value"].to_pylist()
    swapped[0], swapped[1] = swapped[1], swapped[0]
    pq.write_table(values.set_column(0, "value", pa.array(swapped)), path)
    done, report = check(log, out=out)
    assert done.code == 2
    assert "feature 'category'" in done.err and "another encoding" in done.err
    rows = sum(c in swapped[:2] for c in log["category"].to_pylist())
    found = {f["name"]: f for f in report["features"]}
    assert found["category"]["differing"] == rows
    assert [name for name, f in found.items() if f["differing"]] == ["category"]


@pytest.mark.slow
def test_other_weights_are_told_from_other_features(
    check: Callable[..., Any], shop_run: Any, log: pa.Table, tmp_path: Path
) -> None:
    """The second seed's training under the first one's name: features equal, scores not."""
    out = _copy(shop_run, tmp_path / "run")
    shutil.rmtree(out / "upstream" / "seed_0")
    shutil.copytree(out / "upstream" / "seed_1", out / "upstream" / "seed_0")
    done, report = check(log, out=out)
    assert done.code == 2
    assert "scores differ with every feature equal: score 'click'" in done.err
    assert not any(f["differing"] for f in report["features"])


@pytest.mark.parametrize(
    ("column", "change", "kind"),
    [
        ("price", lambda values: [v and 100 * v for v in values], "linf"),
        pytest.param("surface", lambda values: ["search"] * len(values), "linf", marks=SLOW),
        (
            "age_group",
            lambda values: [None if k % 2 else v for k, v in enumerate(values)],
            "missing",
        ),
        pytest.param(
            "category", lambda values: [str(v).upper() for v in values], "oov", marks=SLOW
        ),
        pytest.param("tags", lambda values: ["tag1"] * len(values), "linf", marks=SLOW),
    ],
)
def test_a_changed_distribution_is_drift(
    check: Callable[..., Any],
    log: pa.Table,
    column: str,
    change: Callable[[list[Any]], list[Any]],
    kind: str,
) -> None:
    done, report = check(_with(log, column, change))
    assert done.code == 2
    assert not report["skew"], "the same raw value is encoded alike on both sides"
    first = report["anomalies"][0]
    assert (first["feature"], first["kind"]) == (column, kind)
    assert f"The log is not like the training rows: feature '{column}'" in done.err
    assert abs(first["distance"]) > first["threshold"] + first["allowance"]


@pytest.mark.slow
def test_limits_come_from_the_spec(
    check: Callable[..., Any], shop: Any, log: pa.Table, tmp_path: Path
) -> None:
    """A spec of other limits is given beside the run: the run stays what it is."""
    dearer = _with(log, "price", lambda values: [v and 100 * v for v in values])
    text = shop.spec.read_text("utf-8")
    spec = tmp_path / "spec.yaml"
    spec.write_text(text + "skew: {features: {price: {linf: 1}}}\n")
    assert check(dearer, "foundation", "--spec", spec)[0].code == 0
    spec.write_text(text + "skew: {features: {user_click: {linf: 0, missing: 0}}}\n")
    done, report = check(log, "foundation", "--spec", spec)
    assert done.code == 2 and report["anomalies"][0]["feature"] == "user_click"


@pytest.mark.slow
def test_max_rows_are_spread_over_the_log(check: Callable[..., Any], served_log: pa.Table) -> None:
    last = len(served_log) - 1
    rows = _with(served_log, "item_click.rate", lambda v: [x + 1 for x in v])
    done, report = check(rows, "foundation", "--max-rows", 10)
    assert report["rows"] == 10 and report["features"][9]["rows"] == 10
    assert "10 of 10 rows differ, first row 0" in done.err
    assert last > 10


def test_what_is_refused(
    cli: Callable[..., Any], shop_run: Any, log: pa.Table, tmp_path: Path
) -> None:
    rows = tmp_path / "log.parquet"
    pq.write_table(log, rows)

    def refused(model: str, path: Path, *more: Any, out: Path = shop_run[0]) -> str:
        done = cli("check-skew", "--out", out, "--model", model, "--input", path, *more)
        assert done.code == 2 and "Traceback" not in done.text, done.text
        return str(done.err)

    assert "does not exist" in refused("foundation", tmp_path / "none.csv")
    assert "is no run folder" in refused("foundation", rows, out=tmp_path / "nothing")
    assert "Did you mean 'foundation'?" in refused("fundation", rows)
    assert "--max-rows" in refused("foundation", rows, "--max-rows", 0)
    empty = tmp_path / "empty.csv"
    empty.write_text(",".join(log.column_names) + "\n")
    assert "row" in refused("foundation", empty)
    fewer = tmp_path / "fewer.parquet"
    pq.write_table(log.drop_columns(["price"]), fewer)
    assert "lack the column 'price'" in refused("foundation", fewer)
    pq.write_table(log.filter(pc.equal(log["surface"], "search")), fewer)
    assert "no row of 'home'" in refused("ranker_home", fewer)
    assert "no address of a model server" in refused(
        "foundation", rows, "--server", "carrier-pigeon://x"
    )
    bare = _copy(shop_run, tmp_path / "run")
    shutil.rmtree(bare / "exports")
    assert "has no export of 'foundation' yet" in refused("foundation", rows, out=bare)
    old = _copy(shop_run, tmp_path / "old")
    (old / "exports" / "foundation" / "1" / "assets.extra" / "contract.json").unlink()
    assert "made by an earlier version" in refused("foundation", rows, out=old)


@pytest.mark.slow
def test_a_running_server_is_asked_over_both_apis(
    check: Callable[..., Any], shop_run: Any, served_log: pa.Table
) -> None:
    from lfm4ads_tf.export.local_server.server import LocalServer

    rows = served_log.slice(0, 60)
    broken = _with(rows, "user_click.rate", _at(7, lambda v: v + 1.0))
    exports = shop_run[0] / "exports"
    with LocalServer(model_name="foundation", model_base_path=exports / "foundation") as server:
        for address in (f"grpc://{server.grpc_address}", server.rest_address):
            done, report = check(rows, "foundation", "--server", address)
            assert done.code == 0, done.text
            assert address in report["served"]
            done, report = check(broken, "foundation", "--server", address)
            assert done.code == 2 and "feature 'user_click': 1 of 60" in done.err
        gone = f"grpc://{server.grpc_address}"
    log_path = shop_run[0].parent / "gone.parquet"
    pq.write_table(rows, log_path)
    from lfm4ads_tf.errors import UserError
    from lfm4ads_tf.export.skew.check import check_skew

    with pytest.raises(UserError, match="UNAVAILABLE"):
        check_skew(shop_run[0], "foundation", log_path, server=gone, quiet=True)
