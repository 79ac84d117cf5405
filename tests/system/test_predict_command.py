"""`train.py predict`: new rows get the scores that the run itself gave them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
import pytest

from lfm4ads_tf.data.cache import EncodedCache

pytestmark = pytest.mark.processor


@pytest.fixture(scope="module")
def test_rows(shop: Any) -> pa.Table:
    """The raw rows of the test split, in the order of the log, every value as text."""
    types = dict.fromkeys(arrow_csv.read_csv(shop.folder / "shop.csv").column_names, pa.string())
    options = arrow_csv.ConvertOptions(column_types=types, strings_can_be_null=True)
    table = arrow_csv.read_csv(shop.folder / "shop.csv", convert_options=options)
    return table.filter(pa.array([d == "20260107" for d in table["day"].to_pylist()]))


def _write(table: pa.Table, path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        arrow_csv.write_csv(table, path)
    return path


def _served(table: pa.Table) -> tuple[str, ...]:
    """Model, method, what it stands for and seed, as the file's metadata tell them."""
    held = table.schema.metadata
    names = ("model", "method", "resolved", "seed")
    return tuple(held[f"lfm4ads_tf.{n}".encode()].decode() for n in names)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_foundation_scores_test_rows_as_the_run_did(
    cli: Callable[..., Any], shop_run: Any, test_rows: pa.Table, suffix: str, tmp_path: Path
) -> None:
    source = _write(test_rows, tmp_path / f"rows{suffix}")
    done = cli(
        "predict", "--out", shop_run[0], "--model", "foundation", "--input", source,
        "--output", tmp_path / "scores.parquet",
    )  # fmt: skip
    assert done.code == 0, done.text
    table = pq.read_table(tmp_path / "scores.parquet")
    assert table.column_names == ["row", "scenario", "task", "score"]
    assert _served(table) == ("foundation", "upstream", "upstream", "0")
    assert "foundation: method upstream, the only one, seed 0" in done.log
    assert table["row"].to_pylist() == np.repeat(np.arange(len(test_rows)), 2).tolist()
    assert table["task"].to_pylist() == ["click", "order"] * len(test_rows)
    assert table["scenario"].to_pylist()[::2] == test_rows["surface"].to_pylist()
    stored = np.load(shop_run[0] / "upstream" / "seed_0" / "predictions.npz")["test_frozen"]
    scores = table["score"].to_numpy().reshape(-1, 2)  # (B, T)
    assert scores.shape == stored.shape
    np.testing.assert_allclose(scores, stored, rtol=0, atol=1e-6)


def test_a_ranker_with_representations_scores_test_rows_as_the_run_did(
    cli: Callable[..., Any],
    shop_run: Any,
    shop_arguments: list[str],
    test_rows: pa.Table,
    tmp_path: Path,
) -> None:
    """The ranker of the method that validation chose, and of the other one by name."""
    from lfm4ads_tf.pipeline.choice import chosen_method
    from lfm4ads_tf.pipeline.predict import join_frozen
    from lfm4ads_tf.pipeline.run import open_run
    from lfm4ads_tf.pipeline.stored_representations import open_store

    run = open_run(shop_run[0])
    mine = test_rows.filter(pa.array([s == "home" for s in test_rows["surface"].to_pylist()]))
    done = cli(
        "predict", "--out", shop_run[0], "--model", "ranker_home",
        "--input", _write(mine, tmp_path / "rows.csv"), "--output", tmp_path / "scores.parquet",
    )  # fmt: skip
    assert done.code == 0, done.text
    method = chosen_method(run, "home").name
    held = pq.read_table(tmp_path / "scores.parquet")
    assert _served(held) == ("ranker_home", method, method, "0")
    assert f"ranker_home: method {method}, best on validation, seed 0" in done.log
    folder = run.downstream("home", method, 0)
    stored = np.load(folder / "predictions.npz")["test_frozen"]
    scores = pq.read_table(tmp_path / "scores.parquet")["score"].to_numpy().reshape(-1, 2)
    np.testing.assert_allclose(scores, stored, rtol=0, atol=1e-6)
    # What a request would carry is what the run joined, whichever method was chosen.
    store = open_store(run, 0)
    cache = EncodedCache(shop_run[0] / "data")
    rows = cache.rows_of("test", "home")
    keys = {"user": mine["user_id"].combine_chunks(), "item": mine["item_id"].combine_chunks()}
    names = ["UR", "IR", "CR_user@cross_1", "CR_item@dnn_1"]
    joined = store.lookup(cache, names)(rows)
    for name in names:
        np.testing.assert_array_equal(join_frozen(store, name, keys), joined[name])


def test_unseen_ids_and_missing_values_get_scores(
    cli: Callable[..., Any], shop_run: Any, tmp_path: Path
) -> None:
    source = tmp_path / "new.csv"
    features = "user_id,age_group,city,item_id,category,price,tags,surface,position".split(",")
    rows = [
        ["nobody", "90+", "atlantis", "i999", "c99", "1e6", "x|y", "home", "77"],
        ["u1", "", "", "i1", "", "", "", "", ""],
        ["nobody", "", "", "i999", "", "", "", "elsewhere", ""],
    ]
    with source.open("w", newline="") as stream:
        csv.writer(stream).writerows([features, *rows])
    for model in ("foundation", "ranker_home"):
        target = tmp_path / f"{model}.parquet"
        done = cli(
            "predict", "--out", shop_run[0], "--model", model, "--input", source,
            "--output", target,
        )  # fmt: skip
        assert done.code == 0, done.text
        scores = pq.read_table(target)["score"].to_numpy()
        assert len(scores) == 6 and np.isfinite(scores).all()
        assert ((scores > 0) & (scores < 1)).all()
        in_none = "no scenario: 2 of 3 given rows; 'elsewhere' 1, none 1"
        assert in_none in done.log
        # the foundation has a head for all of them, the ranker for those of its scenario
        others = "2 of 3 rows are not of 'home', whose model scores them all the same"
        assert (others in done.log) == (model == "ranker_home")


def test_what_predict_refuses(cli: Callable[..., Any], shop_run: Any, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("user_id,item_id\nu1,i1\n")
    output = tmp_path / "scores.parquet"

    def refused(out: Path, model: str, rows: Path) -> str:
        done = cli("predict", "--out", out, "--model", model, "--input", rows, "--output", output)
        assert done.code == 2 and "Traceback" not in done.text
        assert not output.exists()
        return str(done.err)

    assert "is no run folder" in refused(tmp_path / "nothing", "foundation", source)
    assert "Did you mean 'foundation'?" in refused(shop_run[0], "fundation", source)
    assert "ranker_home" in refused(shop_run[0], "ranker_home2", source)
    assert "lack the column" in refused(shop_run[0], "foundation", source)
    assert "does not exist" in refused(shop_run[0], "foundation", tmp_path / "none.csv")
