"""Readers of raw tables: CSV, Parquet and TFRecord files of `tf.train.Example`."""

from __future__ import annotations

from lfm4ads_tf.data.sources.table import ColumnType, Format, read_table

__all__ = ["ColumnType", "Format", "read_table"]
