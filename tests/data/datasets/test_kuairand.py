"""KuaiRand-Pure: the layouts of a given folder, the archive, and its safe unpacking."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from lfm4ads_tf.data.datasets import kuairand
from lfm4ads_tf.data.downloads import file_digest
from lfm4ads_tf.errors import UserError

LOG = b"user_id,video_id,tab\n1,2,0\n"
FILES = {
    "log_standard_4_08_to_4_21_pure.csv": LOG,
    "log_standard_4_22_to_5_08_pure.csv": LOG,
    "user_features_pure.csv": b"user_id,user_active_degree\n1,full_active\n",
    "video_features_basic_pure.csv": b"video_id,video_type\n2,AD\n",
}


def fill(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


def pack(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("KuaiRand-Pure/data/log_standard_9_99_pure.csv")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    return path


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    members = {f"KuaiRand-Pure/data/{name}": content for name, content in FILES.items()}
    members["KuaiRand-Pure/data/log_random_4_22_to_5_08_pure.csv"] = LOG
    members["KuaiRand-Pure/load_data_pure.py"] = b"raise RuntimeError"
    members["../../escaped/log_standard_evil_pure.csv"] = LOG
    path = pack(tmp_path / "given" / kuairand.ARCHIVE, members)
    monkeypatch.setattr(kuairand, "ARCHIVE_MD5", file_digest(path, "md5"))
    return path


@pytest.mark.parametrize("inside", ["", "data", "KuaiRand-Pure", "KuaiRand-Pure/data"])
def test_given_files_are_used_where_they_are(tmp_path: Path, inside: str) -> None:
    folder = fill(tmp_path / "given" / inside)
    assert kuairand.prepare(tmp_path / "given", tmp_path / "cache") == folder
    assert not (tmp_path / "cache").exists()
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def test_one_gzipped_log_is_enough(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    for name in list(FILES)[:2]:
        (folder / name).unlink()
    log = folder / "log_standard_4_25_to_5_05_pure.csv.gz"
    log.write_bytes(gzip.compress(LOG))
    assert kuairand.prepare(folder, tmp_path / "cache") == folder


@pytest.mark.parametrize("missing", ["log", "user_features", "video_features"])
def test_missing_files_are_listed(tmp_path: Path, missing: str) -> None:
    folder = fill(tmp_path / "given")
    for path in list(folder.iterdir()):
        if path.name.startswith(missing):
            path.unlink()
    with pytest.raises(UserError, match="does not hold the KuaiRand-Pure files") as error:
        kuairand.prepare(folder, tmp_path / "cache")
    text = str(error.value)
    for wanted in ("log_standard_*_pure.csv", *kuairand.TABLES, kuairand.ARCHIVE):
        assert wanted in text.split("Fix: ")[1]


def test_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        kuairand.prepare(tmp_path / "gone", tmp_path / "cache")


def test_log_both_plain_and_gzipped_is_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "given")
    (folder / "log_standard_4_08_to_4_21_pure.csv.gz").write_bytes(gzip.compress(LOG))
    with pytest.raises(UserError, match="log_standard_4_08_to_4_21_pure.csv twice"):
        kuairand.prepare(folder, tmp_path / "cache")


def test_archive_is_unpacked_safely(archive: Path, tmp_path: Path) -> None:
    cache = tmp_path / "deep" / "er" / "cache"
    folder = kuairand.prepare(archive.parent, cache)
    assert folder == cache / "kuairand"
    # The escaping member lands inside under its base name, the link and the rest stay out.
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*FILES, "log_standard_evil_pure.csv"]
    )
    assert (folder / "user_features_pure.csv").read_bytes() == FILES["user_features_pure.csv"]
    assert not list(tmp_path.rglob("escaped"))
    assert [path.name for path in cache.iterdir()] == ["kuairand"]
    assert [path.name for path in archive.parent.iterdir()] == [kuairand.ARCHIVE]
    assert kuairand.prepare(archive, cache) == folder
    assert kuairand.prepare(None, cache) == folder, "unpacked before: no network is needed"


def test_changed_archive_is_refused(archive: Path, tmp_path: Path) -> None:
    with archive.open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(UserError, match="does not have the published md5"):
        kuairand.prepare(archive.parent, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("cut", [None, 100])
def test_archive_without_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int | None
) -> None:
    path = pack(tmp_path / "given" / kuairand.ARCHIVE, {"README": b"nothing"})
    path.write_bytes(path.read_bytes()[:cut])
    monkeypatch.setattr(kuairand, "ARCHIVE_MD5", file_digest(path, "md5"))
    with pytest.raises(UserError, match="cannot be unpacked" if cut else "does not hold"):
        kuairand.prepare(path.parent, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_download(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kuairand, "ARCHIVE_URL", archive.as_uri())
    folder = kuairand.prepare(None, tmp_path / "cache", quiet=True)
    assert set(FILES) <= {path.name for path in folder.iterdir()}


def test_download_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(kuairand, "ARCHIVE_URL", "http://127.0.0.1:1/archive")
    with pytest.raises(UserError, match="Download of .* failed") as error:
        kuairand.prepare(None, tmp_path / "cache", quiet=True)
    assert "--data-dir" in str(error.value)
    assert "--spec synthetic" in str(error.value)
    assert not (tmp_path / "cache" / "kuairand").exists()
