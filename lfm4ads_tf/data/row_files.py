"""Files of rows like those of a run's log: new ones, rows to score, logged requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from lfm4ads_tf.data.log_files import row_names
from lfm4ads_tf.data.made_columns import made_of_log, read_made
from lfm4ads_tf.data.sources.convert import ColumnType
from lfm4ads_tf.data.sources.table import first_column_names, format_of_rows
from lfm4ads_tf.features.missing_values import MissingValues
from lfm4ads_tf.features.spec import FeatureSpec


class RowFiles:
    """Files that are read as the log's files are, whoever reads them.

    A joined key or a vector of columns may be there as it is or in its parts.

    Args:
        spec: The feature spec: its log says how files are written.
        paths: The files, at least one.

    Attributes:
        present: Columns that they have, those that are made of others too.

    Raises:
        UserError: A file cannot be read.
    """

    def __init__(self, spec: FeatureSpec, paths: Sequence[Path]) -> None:
        self._spec, self._paths = spec, list(paths)
        of = spec.log
        self._format = format_of_rows(self._paths[0], of.format)
        held = first_column_names(
            self._paths,
            format=self._format,
            delimiter=of.delimiter,
            text=of,
            names=row_names(spec),
        )
        self._made = made_of_log(spec).beside(held)
        self.present = self._made.extended(held)

    def told(self, column: str) -> str:
        """What a column that is not there can be made of, for a message; empty if it cannot."""
        return self._made.told(column)

    def read(
        self,
        columns: Mapping[str, ColumnType],
        *,
        times: Mapping[str, bool] | None = None,
        complete: bool = False,
        markers: bool = True,
    ) -> pa.Table:
        """Reads typed columns, see `read_table`.

        Args:
            columns: Column -> type; all of them present.
            times: See `read_table`.
            complete: Whether a row that lacks a part of its key is refused.
            markers: Whether the spec's markers of missing values are taken out.
        """
        log = self._spec.log
        return read_made(
            self._made,
            self._paths,
            columns,
            complete=complete,
            times=times,
            missing=MissingValues(self._spec) if markers else None,
            format=self._format,
            delimiter=log.delimiter,
            list_separator=log.list_separator,
            text=log,
            names=row_names(self._spec),
        )
