"""KuaiRand-Pure: short-video impressions of 15 scenarios with 12 feedback signals.

Source: Gao et al., "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed
Videos", CIKM 2022; Zenodo record 10439422, CC BY-SA 4.0.
"""

from __future__ import annotations

import gzip
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from lfm4ads_tf.data.datasets.staging import check_data_dir
from lfm4ads_tf.data.downloads import check_digest, fetch
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.files import staged_folder

ARCHIVE = "KuaiRand-Pure.tar.gz"
ARCHIVE_MD5 = "0820331067a3784d9691136f772b35a7"
ARCHIVE_URL = f"https://zenodo.org/records/10439422/files/{ARCHIVE}?download=1"

LOG = re.compile(r"log_standard_.*_pure\.csv(\.gz)?")
TABLES = ("user_features_pure.csv", "video_features_basic_pure.csv")
HISTORY = "history_before_4_25.csv.gz"
_SUBFOLDERS = ("", "data", "KuaiRand-Pure", "KuaiRand-Pure/data")
_LOOKED_FOR = (
    "at least one log_standard_*_pure.csv or .csv.gz, with " + " and ".join(TABLES) + " beside it "
    f"(in the folder itself, data/ or KuaiRand-Pure/data/), or the official archive {ARCHIVE}"
)


def prepare(data_dir: Path | None, cache_dir: Path, *, quiet: bool = False) -> Path:
    """Finds, or downloads and unpacks, the official files of KuaiRand-Pure.

    Args:
        data_dir: A folder with the official files (any subset of the standard logs, gzipped or
            not, with both feature tables; `history_before_4_25.csv.gz` is optional) or with the
            official archive, or the archive itself. It is only read. None downloads the archive.
        cache_dir: Where the archive is kept and unpacked.
        quiet: Whether to hide progress displays.

    Returns:
        The folder that holds the logs and both feature tables.

    Raises:
        UserError: `data_dir` lacks files, the archive is not the official one, or the network
            failed.
    """
    unpacked = cache_dir / "kuairand"
    if data_dir is None:
        if _is_complete(unpacked):
            return unpacked
        archive = fetch(
            ARCHIVE_URL,
            cache_dir / "downloads" / ARCHIVE,
            md5=ARCHIVE_MD5,
            advice=f"download {ARCHIVE} of Zenodo record 10439422 by hand and give its folder with "
            "`--data-dir DIR`;",
            quiet=quiet,
        )
        return _unpack(archive, unpacked)
    check_data_dir(data_dir)
    if data_dir.is_file():
        return _unpack_checked(data_dir, unpacked)
    for name in _SUBFOLDERS:
        if _is_complete(data_dir / name):
            _refuse_twins(data_dir / name)
            return data_dir / name
    if (data_dir / ARCHIVE).is_file():
        return _unpack_checked(data_dir / ARCHIVE, unpacked)
    raise UserError(
        f"'{data_dir}' does not hold the KuaiRand-Pure files.",
        received="the folder holds " + _listing(data_dir),
        fix=f"give a folder that holds {_LOOKED_FOR}; or leave --data-dir out to download it.",
    )


def _is_complete(folder: Path) -> bool:
    """Whether a folder holds at least one standard log and both feature tables."""
    return all((folder / name).is_file() for name in TABLES) and bool(_logs(folder))


def _logs(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if LOG.fullmatch(path.name))


def _refuse_twins(folder: Path) -> None:
    """Refuses a log that lies there both plain and gzipped: its rows would count twice."""
    logs = _logs(folder)
    for name in logs:
        if f"{name}.gz" in logs:
            raise UserError(
                f"'{folder}' holds the log {name} twice.",
                received=f"{name} and {name}.gz",
                fix="move one of the two to another folder.",
            )


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return (", ".join(names[:10]) + more) or "nothing"


def _unpack_checked(archive: Path, target: Path) -> Path:
    check_digest(
        archive,
        "md5",
        ARCHIVE_MD5,
        fix=f"give the unchanged {ARCHIVE} of Zenodo record 10439422, or its unpacked folder.",
    )
    return target if _is_complete(target) else _unpack(archive, target)


def _wanted(members: Iterable[tarfile.TarInfo]) -> Iterable[tuple[str, tarfile.TarInfo]]:
    for member in members:
        name = PurePosixPath(member.name).name
        if member.isfile() and (name in (*TABLES, HISTORY) or LOG.fullmatch(name)):
            yield name, member


def _unpack(archive: Path, target: Path) -> Path:
    """Writes the needed members under their base names: no path of the archive is followed."""
    with staged_folder(target) as staging:
        try:
            with tarfile.open(archive, "r:gz") as tar:
                for name, member in _wanted(tar):
                    source = tar.extractfile(member)
                    if source is not None:
                        with source, (staging / name).open("wb") as out:
                            shutil.copyfileobj(source, out, 1 << 20)
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(
                f"The archive '{archive}' cannot be unpacked.",
                received=error,
                fix="delete it and run again, or unpack it by hand and give its folder.",
            ) from error
        if not _is_complete(staging):
            raise UserError(
                f"The archive '{archive}' does not hold the KuaiRand-Pure files.",
                received="it holds " + _listing(staging),
                fix=f"give a folder that holds {_LOOKED_FOR}.",
            )
    return target
