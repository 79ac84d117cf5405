"""Raw test rows that are kept for exports, each with its row of the cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_FILE = "samples.parquet"
_ROW = "row"


def write_samples(folder: Path, rows: np.ndarray, columns: Mapping[str, Any]) -> None:
    """Writes samples into the folder of a cache.

    Args:
        folder: Where to write.
        rows: Rows of the cache (B,). They are the file's first column, under a name that no raw
            column has.
        columns: Raw column -> values (B,).
    """
    own = _ROW
    while own in columns:
        own += "_"
    table = pa.table({own: pa.array(rows, pa.int64()), **columns})
    pq.write_table(table, folder / _FILE)


def read_samples(folder: Path) -> pa.Table:
    """The samples of a cache, see `cache_rows`."""
    return pq.read_table(folder / _FILE)


def cache_rows(samples: pa.Table) -> np.ndarray:
    """Rows of the cache (B,) of some samples: their first column, whatever its name."""
    return np.asarray(samples.column(0).to_numpy())


def samples_among(samples: pa.Table, rows: np.ndarray) -> pa.Table:
    """Those of some samples that are among some rows of the cache (M,)."""
    return samples.filter(pa.array(np.isin(cache_rows(samples), rows)))
