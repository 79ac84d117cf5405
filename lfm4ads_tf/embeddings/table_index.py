"""The description of stored tables, `tables.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from lfm4ads_tf.embeddings.stored_rows import StoredRows
from lfm4ads_tf.embeddings.table_config import TableConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.files import write_json

INDEX = "tables.json"


class TableIndex:
    """The content of `tables.json`.

    Args:
        folder: Where it is.

    Attributes:
        files: Table -> "weights" or name of the slot -> its rows.
        tables: Table -> its configuration.
        sets: Sets of the layer.
        rule: What tells the slots of a rule from those of another; None without slots.

    Raises:
        UserError: It is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / INDEX
        known = {field.name for field in fields(TableConfig)}
        try:
            index = json.loads(path.read_text("utf-8"))
            self.files = {
                name: {key: StoredRows.from_json(stored) for key, stored in files.items()}
                for name, files in index["files"].items()
            }
            self.tables = {
                name: TableConfig.from_json({k: v for k, v in table.items() if k in known})
                for name, table in index["layer"]["tables"].items()
            }
            self.sets = int(index["layer"]["sets"])
            self.rule: dict[str, Any] | None = index["rule"]
        except FileNotFoundError as error:
            raise UserError(f"There are no embedding tables in '{folder}'.") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(path, error) from error
        if self.files.keys() != self.tables.keys():
            raise damaged(path, "a table without file, or a file without table")


def write_index(
    folder: Path,
    layer: Mapping[str, Any],
    rule: Mapping[str, Any] | None,
    files: Mapping[str, Mapping[str, StoredRows]],
) -> None:
    """Writes what `TableIndex` reads; it comes after the files.

    Args:
        folder: Where to write.
        layer: Manifest of the layer.
        rule, files: See `TableIndex`.
    """
    entries = {
        name: {key: stored.to_json() for key, stored in kept.items()}
        for name, kept in files.items()
    }
    write_json(folder / INDEX, {"layer": layer, "rule": rule, "files": entries})


def damaged(path: Path, reason: object) -> UserError:
    """The error of a file that is not what it should be."""
    return UserError(
        f"'{path}' is missing or damaged.",
        received=reason,
        fix="Restore the file from a copy, or remove its folder and train again.",
    )
