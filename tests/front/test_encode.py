from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pytest

import lfm4ads_tf as lfm
from lfm4ads_tf.data.cache import INDEX
from lfm4ads_tf.errors import UserError
from tests.front.conftest import Files


class Frame:
    """A data frame of a library that speaks Arrow's C stream interface."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


def in_memory(folder: Path) -> dict[str, pa.Table]:
    """The tables of the files, lists as lists."""
    text = csv.ConvertOptions(column_types={"interests": pa.string()}, strings_can_be_null=True)
    with gzip.open(folder / "history.csv.gz") as history:
        tables = {"auxiliary": csv.read_csv(history)}
    for name in ("log", "users", "items"):
        tables[name] = csv.read_csv(folder / f"{name}.csv", convert_options=text)
    users = tables["users"]
    lists = pc.split_pattern(users["interests"], "|")
    tables["users"] = users.set_column(users.column_names.index("interests"), "interests", lists)
    weights = pc.split_pattern(pc.cast(users["interest_weights"], pa.string()), "|")
    numbers = pa.array(
        [None if w is None else [float(x) for x in w if x] for w in weights.to_pylist()],
        pa.list_(pa.float64()),
    )
    place = users.column_names.index("interest_weights")
    tables["users"] = tables["users"].set_column(place, "interest_weights", numbers)
    return tables


def test_tables_in_memory_are_encoded_as_their_files_are(files: Files, log: lfm.EncodedLog) -> None:
    tables = in_memory(files.folder)
    rows = Frame(tables.pop("log"))
    made = lfm.encode(files.spec, rows, tables)
    assert made.layout == log.layout
    for name in (*INDEX, "ids", "dense"):
        np.testing.assert_array_equal(made.cache.column(name), log.cache.column(name))
    every = np.arange(log.cache.rows)
    ours, theirs = made.cache.take(every, "daily"), log.cache.take(every, "daily")
    for name, bag in ours["bags"].items():
        np.testing.assert_array_equal(bag.values, theirs["bags"][name].values)
        np.testing.assert_array_equal(bag.splits, theirs["bags"][name].splits)
    assert made.encoder.digest == log.encoder.digest
    again = lfm.encode(files.spec, rows, tables)
    assert again.fingerprint == made.fingerprint  # of the content, not of when it was written


def test_data_frames_of_pandas(files: Files, log: lfm.EncodedLog) -> None:
    pandas = pytest.importorskip("pandas")
    tables = in_memory(files.folder)
    frames = {name: table.to_pandas() for name, table in tables.items()}
    assert isinstance(frames["log"], pandas.DataFrame)
    frames["log"]["tab"] = frames["log"]["tab"].astype("category")
    frames["log"] = frames["log"].set_index(pandas.RangeIndex(5, 5 + len(frames["log"])))
    made = lfm.encode(files.spec, frames.pop("log"), frames)
    for name in ("ids", "dense", "labels", "scenario"):
        np.testing.assert_array_equal(made.cache.column(name), log.cache.column(name))


def test_what_was_encoded_is_opened_again(files: Files, tmp_path: Path) -> None:
    made = lfm.encode(files.spec, files.folder, folder=tmp_path / "data")
    again = lfm.EncodedLog(files.spec, tmp_path / "data")
    assert again.fingerprint == made.fingerprint
    assert repr(again) == repr(made)
    with pytest.raises(UserError, match="not empty"):
        lfm.encode(files.spec, files.folder, folder=tmp_path / "data")


def test_a_temporary_folder_lasts_as_long_as_its_log(files: Files) -> None:
    made = lfm.encode(files.spec, files.folder)
    folder = made.folder
    assert folder.exists()
    del made
    assert not folder.exists()


def test_failed_encoding_leaves_nothing(files: Files, tmp_path: Path) -> None:
    tables = in_memory(files.folder)
    rows = tables.pop("log").drop_columns(["click"])
    with pytest.raises(UserError, match="click") as refused:
        lfm.encode(files.spec, rows, tables, folder=tmp_path / "data")
    assert ".parquet" not in str(refused.value)  # the user gave tables, not files
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda tables: tables.pop("items"), "joins the table 'items'"),
        (lambda tables: tables.update(item=tables.pop("items")), "no side table 'item'.*items"),
        (lambda tables: tables.update(items=7), "Table 'items' must be a table"),
        (lambda tables: tables.update(items={"ad": [1, "a"]}), "cannot be read as an Arrow table"),
        (
            lambda tables: tables.update(items=pa.table([[1], [2]], names=["ad", "ad"])),
            "two columns 'ad'",
        ),
    ],
)
def test_side_tables_that_do_not_fit_are_refused(files: Files, change: Any, message: str) -> None:
    tables: dict[str, Any] = dict(in_memory(files.folder))
    rows = tables.pop("log")
    change(tables)
    with pytest.raises(UserError, match=f"(?s){message}"):
        lfm.encode(files.spec, rows, tables)
    with pytest.raises(UserError, match="log is not"):
        lfm.encode(files.spec, files.folder, {"items": tables})


def test_a_folder_without_data_is_told(files: Files, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no encoded data"):
        lfm.EncodedLog(files.spec, tmp_path)


def test_data_of_another_spec_are_told(files: Files, log: lfm.EncodedLog) -> None:
    with pytest.raises(UserError, match="another spec than 'synthetic'"):
        lfm.EncodedLog("synthetic", log.folder)
    features = {n: f for n, f in files.spec.features.items() if n != "tab"}
    fewer = files.spec.model_copy(update={"features": features})
    with pytest.raises(UserError, match="another spec"):
        lfm.EncodedLog(fewer, log.folder).encoder  # noqa: B018 - the encoder is made when asked for


@pytest.mark.parametrize(
    "weights, message",
    [
        (lambda n: np.ones(n - 1), "one value per row"),
        (lambda n: -np.ones(n), "not negative"),
        (lambda n: np.full(n, np.nan), "finite"),
    ],
)
def test_row_weights_that_do_not_fit_are_refused(
    log: lfm.EncodedLog, weights: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        log.dataset("train", weights=weights(log.cache.rows))


def test_row_weights_of_any_number_are_joined_to_their_rows(log: lfm.EncodedLog) -> None:
    given = list(range(log.cache.rows))
    batch = next(iter(log.dataset("valid", batch_size=7, weights=given)))  # type: ignore[arg-type]
    np.testing.assert_array_equal(batch["weights"], log.rows("valid")[:7])
    with pytest.raises(UserError, match="at least one row"):
        log.dataset("train", batch_size=0)
    with pytest.raises(UserError, match="no state 'dayly'.*daily"):
        log.dataset("valid", refresh="dayly")  # type: ignore[arg-type]
