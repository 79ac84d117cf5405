"""Encodes a log for the models."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.spec_file import load_spec
from lfm4ads_tf.file_names import file_name
from lfm4ads_tf.front.encoded_log import EncodedLog
from lfm4ads_tf.front.new_folder import new_folder
from lfm4ads_tf.front.tables import write_table
from lfm4ads_tf.pipeline.one_class import warn_one_class
from lfm4ads_tf.pipeline.prepare import encode_files, source_folder
from lfm4ads_tf.pipeline.run import fingerprint

_AUXILIARY = "auxiliary"
_IN_MEMORY = {"format": "parquet", "columns": None}


def encode(
    spec: FeatureSpec | Path | str,
    log: Any = None,
    tables: Mapping[str, Any] | None = None,
    *,
    folder: Path | str | None = None,
) -> EncodedLog:
    """Encodes a log: split, vocabularies, and features that know of earlier periods alone.

    It makes what `train.py prepare` makes of the same rows in files.

    Args:
        spec: The feature spec, its YAML file, or the name of one that comes with the package.
        log: The log's N rows: a `pyarrow.Table`, a data frame or a mapping column -> values (N,);
            or the folder that holds the spec's files. None fetches or generates the spec's own
            data set.
        tables: Name of a side table of the spec -> its rows; `auxiliary` for the auxiliary rows.
            Only with rows in memory: a folder holds them all.
        folder: Where the encoded data go; a temporary folder when absent, which is removed with
            the result.

    Returns:
        The encoded log.

    Raises:
        UserError: Rows or columns are missing or wrong, or the folder holds something already.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> log = lfm.encode(lfm.load_spec("synthetic", {"dataset_options": {"rows": 2000}}))
        >>> log
        EncodedLog(synthetic: 1,428 train, 286 valid, 286 test rows)
    """
    declared = spec if isinstance(spec, FeatureSpec) else load_spec(spec)
    with new_folder(folder, "the encoded data", "EncodedLog(spec, folder)") as target:
        if log is None or isinstance(log, (str, Path)):
            _refuse_tables(tables, log)
            data_dir = None if log is None else Path(log)
            encode_files(declared, source_folder(declared, data_dir, quiet=True), target.path)
        else:
            with tempfile.TemporaryDirectory(prefix="lfm4ads_tf_") as source:
                _encode_tables(declared, Path(source), log, tables or {}, target.path)
        encoded = EncodedLog(declared, target.path)
    target.belongs_to(encoded)
    warn_one_class(encoded.cache, min_rows=1)
    return encoded


def _encode_tables(
    spec: FeatureSpec, source: Path, log: Any, tables: Mapping[str, Any], target: Path
) -> None:
    """Encodes tables in memory by way of files, which no message names."""
    written = _written(spec, source, log, tables)
    contents = {}
    for path in sorted(source.iterdir()):
        with path.open("rb") as opened:
            contents[path.name] = hashlib.file_digest(opened, "sha256").hexdigest()
    digest = fingerprint([spec.model_dump(mode="json", exclude={"run"}), contents])
    try:
        encode_files(written, source, target, digest)
    except UserError as error:
        text = str(error)
        for file, name in {
            "log.parquet": "the log",
            f"{_AUXILIARY}.parquet": "the auxiliary rows",
            **{f"{file_name(f'table_{n}')}.parquet": f"the table '{n}'" for n in spec.tables},
        }.items():
            text = text.replace(f"'{source / file}'", name).replace(str(source / file), name)
        raise UserError(text) from None


def _refuse_tables(tables: Mapping[str, Any] | None, log: Any) -> None:
    if tables:
        raise UserError(
            "Side tables are given in memory, but the log is not.",
            received=f"tables {', '.join(tables)}, log {log!r}",
            fix="give the log as a table too, or a folder that holds all files",
        )


def _written(spec: FeatureSpec, folder: Path, log: Any, tables: Mapping[str, Any]) -> FeatureSpec:
    """Writes tables as files, and says in the spec where they are."""
    wanted = [*spec.tables, *([_AUXILIARY] if spec.auxiliary is not None else [])]
    optional = {_AUXILIARY} if spec.auxiliary is not None and spec.auxiliary.optional else set()
    for name in tables:
        if name not in wanted:
            raise UserError(
                f"The feature spec has no side table '{name}'.{nearest(name, wanted)}",
                fix=f"use {', '.join(wanted)}" if wanted else "leave out `tables`",
            )
    for name in wanted:
        if name not in tables and name not in optional:
            raise UserError(
                f"The feature spec joins the table '{name}', which was not given.",
                received=f"tables {', '.join(tables) or 'none'}",
                fix=f"encode(spec, log, {{'{name}': ...}})",
            )

    def write(name: str, rows: Any, what: str) -> dict[str, Any]:
        file = f"{file_name(name)}.parquet"
        write_table(rows, folder / file, what)
        return {"files": [file], **_IN_MEMORY}

    changes: dict[str, Any] = {
        "dataset": None,
        "dataset_options": {},
        "log": spec.log.model_copy(update=write("log", log, "The log")),
        "tables": {
            name: table.model_copy(update=write(f"table_{name}", tables[name], f"Table '{name}'"))
            for name, table in spec.tables.items()
        },
    }
    if spec.auxiliary is not None:
        given = tables.get(_AUXILIARY)
        changes["auxiliary"] = (
            None
            if given is None
            else spec.auxiliary.model_copy(update=write(_AUXILIARY, given, "The auxiliary rows"))
        )
    return spec.model_copy(update=changes)
