"""A cache continued with new days against one encoded from the whole log at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lfm4ads_tf.data.append import append_to
from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.new_rows import NewRows, read_files, read_folder
from lfm4ads_tf.data.splits import TEST, TRAIN, VALID
from lfm4ads_tf.errors import UserError

Tables = dict[str, list[dict[str, Any]]]
SPLIT = {"by": "day", "train_until": 4, "valid_until": 5}
KNOWN = 6  # days of the first encoding


def first_days(tables: Tables) -> None:
    tables["log"] = [row for row in tables["log"] if row["day"] < KNOWN]


def later_days(tables: Tables) -> None:
    tables["log"] = [row for row in tables["log"] if row["day"] >= KNOWN]


@pytest.fixture(scope="module")
def whole(make_ads: Callable[..., Any]) -> Any:
    return make_ads(split=SPLIT)


@pytest.fixture(scope="module")
def first(make_ads: Callable[..., Any]) -> Any:
    return make_ads(first_days, split=SPLIT)


@pytest.fixture(scope="module")
def appended(
    first: Any, ads_files: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> EncodedCache:
    folder = tmp_path_factory.mktemp("appended")
    rows = read_files(first.spec, first.cache, [ads_files(folder / "new", later_days) / "log.csv"])
    return append(first, rows, folder / "data")


def append(first: Any, rows: NewRows, folder: Path) -> EncodedCache:
    folder.mkdir()
    append_to(folder, first.spec, first.cache, rows, {"fingerprint": "appended", "version": 2})
    return EncodedCache(folder)


def test_rows_are_those_of_the_whole_log_as_of_their_own_day(
    whole: Any, appended: EncodedCache
) -> None:
    expected = whole.cache
    rows = np.arange(expected.rows)
    assert appended.rows == expected.rows
    for name in ("labels", "scenario", "branch", "time", "period"):
        np.testing.assert_array_equal(getattr(appended, name), getattr(expected, name))
    ours, theirs = appended.take(rows), expected.take(rows, "daily")
    np.testing.assert_allclose(ours["dense"], theirs["dense"], atol=1e-6)
    np.testing.assert_array_equal(appended.take(rows, "daily")["dense"], ours["dense"])
    for side in ("user", "item"):
        codes = {"user": (appended.user, expected.user), "item": (appended.item, expected.item)}
        mine, other = codes[side]
        assert appended.keys(side).take(mine).to_pylist() == (
            expected.keys(side).take(other).to_pylist()
        )


def test_known_ids_stay_and_new_ones_come_behind(
    whole: Any, first: Any, appended: EncodedCache
) -> None:
    rows = np.arange(whole.cache.rows)
    old = np.arange(first.cache.rows)
    ours, theirs = appended.take(rows), whole.cache.take(rows, "daily")
    np.testing.assert_array_equal(ours["ids"][old], first.cache.take(old)["ids"])
    sizes = {t.name: t.rows for t in first.cache.layout.tables}
    for k, field in enumerate(appended.layout.single):
        mine, other = ours["ids"][:, k], theirs["ids"][:, k]
        known = mine < sizes[field.table]
        np.testing.assert_array_equal(mine[known], other[known])
        assert (other[~known] == 0).all()  # out of vocabulary, as no training row has the value
        assert not (~known[old]).any()
    for field in appended.layout.bags:
        mine, other = ours["bags"][field.name], theirs["bags"][field.name]
        np.testing.assert_array_equal(mine.splits, other.splits)
        known = mine.values < sizes[field.table]
        np.testing.assert_array_equal(mine.values[known], other.values[known])


def test_a_value_that_only_new_rows_have_gets_an_id(
    first: Any, ads_files: Callable[..., Path], tmp_path: Path, appended: EncodedCache
) -> None:
    def newcomer(tables: Tables) -> None:
        later_days(tables)
        for row in tables["log"][:5]:
            row["item_id"] = "newcomer"

    path = ads_files(tmp_path / "new", newcomer) / "log.csv"
    rows = read_files(first.spec, first.cache, [path])
    cache = append(first, rows, tmp_path / "data")
    before = {t.name: t.rows for t in first.cache.layout.tables}
    after = {t.name: t.rows for t in cache.layout.tables}
    assert after["item_id"] > before["item_id"]
    column = [f.name for f in cache.layout.single].index("item_id")
    ids = cache.take(np.arange(first.cache.rows, first.cache.rows + 5))["ids"][:, column]
    assert (ids == ids[0]).all() and ids[0] >= before["item_id"]
    assert cache.keys("item").to_pylist()[-1] == "newcomer"
    assert len(cache.keys("item")) == len(appended.keys("item")) + 1


def test_state_after_all_rows_is_that_of_the_whole_log(whole: Any, appended: EncodedCache) -> None:
    compared = 0
    for path in (whole.folder / "state" / "newest").glob("*.parquet"):
        ours, theirs = pq.read_table(appended.folder / "state" / path.name), pq.read_table(path)
        assert ours.schema.metadata == theirs.schema.metadata  # the prior
        key = ours.column_names[0]
        by_key = [{r[key]: r for r in t.to_pylist()} for t in (ours, theirs)]
        empty = [k for k, r in by_key[1].items() if r.get("items") == []]
        for k in empty:
            assert not by_key[0].pop(k, {"items": []})["items"]
            del by_key[1][k]
        assert by_key[0] == by_key[1]
        compared += len(by_key[1])
    assert compared > 50


def test_keys_ahead_are_those_of_the_whole_log(whole: Any, appended: EncodedCache) -> None:
    end = len(whole.cache.manifest["periods"])
    theirs, ours = whole.cache.ahead(end, daily=True), appended.ahead(end)
    rows = appended.ahead_row[ours]
    assert (np.diff(rows) >= 0).all()
    for codes in (appended.user, appended.item):
        # every key is there, each with its last row
        last = {int(c): k for k, c in enumerate(codes)}
        assert {int(c): int(r) for c, r in zip(codes[rows], rows, strict=True)} == last
    place = {int(r): p for p, r in zip(ours, rows, strict=True)}
    same = [place[int(r)] for r in whole.cache.ahead_row[theirs]]
    one, other = appended.take_ahead(np.array(same)), whole.cache.take_ahead(theirs)
    owned = [c for side in ("user", "item") for c in appended.layout.dense_columns(side)]
    np.testing.assert_allclose(one["dense"][:, owned], other["dense"][:, owned], atol=1e-6)
    assert one["bags"]["clicked"].splits.tolist() == other["bags"]["clicked"].splits.tolist()


def test_roles_move_on_and_the_manifest_counts_them(first: Any, appended: EncodedCache) -> None:
    old = np.asarray(first.cache.split)
    now = appended.split[: len(old)]
    assert (now[old == VALID] == TRAIN).all() and (now[old == TEST] == VALID).all()
    assert (appended.split[len(old) :] == TEST).all()
    assert appended.manifest["rows"] == {
        name: int((appended.split == code).sum())
        for name, code in (("train", TRAIN), ("valid", VALID), ("test", TEST))
    }
    assert appended.manifest["periods"] == [str(day) for day in range(8)]


def test_two_steps_give_what_one_gives(
    first: Any, appended: EncodedCache, ads_files: Callable[..., Path], tmp_path: Path
) -> None:
    def one_day(day: int) -> Callable[[Tables], None]:
        def change(tables: Tables) -> None:
            tables["log"] = [row for row in tables["log"] if row["day"] == day]

        return change

    cache, world = first.cache, first
    for day in (6, 7):
        path = ads_files(tmp_path / f"new{day}", one_day(day)) / "log.csv"
        rows = read_files(first.spec, cache, [path])
        cache = append(type(world)(first.spec, None, None, cache), rows, tmp_path / f"data{day}")
    rows_ = np.arange(appended.rows)
    ours, theirs = cache.take(rows_), appended.take(rows_)
    np.testing.assert_array_equal(ours["ids"], theirs["ids"])
    np.testing.assert_allclose(ours["dense"], theirs["dense"], atol=1e-6)
    for name, bag in theirs["bags"].items():
        np.testing.assert_array_equal(ours["bags"][name].splits, bag.splits)
        np.testing.assert_array_equal(ours["bags"][name].values, bag.values)


def test_a_folder_with_the_whole_log_gives_its_later_rows(
    first: Any, appended: EncodedCache, ads_files: Callable[..., Path], tmp_path: Path
) -> None:
    rows = read_folder(first.spec, first.cache, ads_files(tmp_path / "all", lambda tables: None))
    cache = append(first, rows, tmp_path / "data")
    np.testing.assert_array_equal(cache.column("ids"), appended.column("ids"))
    np.testing.assert_array_equal(cache.column("dense"), appended.column("dense"))


def test_rows_that_are_not_later_are_refused(
    first: Any, ads_files: Callable[..., Path], tmp_path: Path
) -> None:
    path = ads_files(tmp_path / "all", lambda tables: None) / "log.csv"
    with pytest.raises(UserError, match=r"not later than the run's[\s\S]*last is 5"):
        read_files(first.spec, first.cache, [path])
    old = ads_files(tmp_path / "old", first_days)
    with pytest.raises(UserError, match="There is no new row"):
        read_folder(first.spec, first.cache, old)


def test_files_of_new_rows_are_read_as_the_log_is_written(
    first: Any, ads_files: Callable[..., Path], tmp_path: Path
) -> None:
    log = ads_files(tmp_path / "new", later_days) / "log.csv"
    lines = log.read_text().splitlines()
    text = "\n".join([lines[0], *['"' + line for line in lines[1:]]]).replace(",", "\t")
    (tmp_path / "new.txt").write_text(text)
    (tmp_path / "empty.txt").touch()
    how = {"format": "csv", "delimiter": "\t", "quoting": "none"}
    spec = first.spec.model_copy(update={"log": first.spec.log.model_copy(update=how)})
    rows = read_files(spec, first.cache, [tmp_path / "empty.txt", tmp_path / "new.txt"])
    expected = read_files(first.spec, first.cache, [log])
    users = expected.columns["user_id"].to_pylist()
    assert rows.columns["user_id"].to_pylist() == [f'"{user}' for user in users]
    np.testing.assert_array_equal(rows.feedback, expected.feedback)
    bad = "\n".join([lines[0], lines[1][lines[1].index(",") :]])
    (tmp_path / "new.txt").write_text(bad.replace(",", "\t"))
    with pytest.raises(UserError, match=r"key column .* is empty in data row 1 of '.*new\.txt'"):
        read_files(spec, first.cache, [tmp_path / "empty.txt", tmp_path / "new.txt"])
