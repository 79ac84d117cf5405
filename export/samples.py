"""Rows that an export is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

GOLDEN_ROWS = 512
"""Of a model of all scenarios; each signature is asked for them."""


@dataclass(frozen=True)
class ExportSamples:
    """Raw rows with what offline code knows of them.

    Attributes:
        rows: B >= 1 raw rows with every column of the encoder, statistics and lists included.
        representations: Name -> (B, d + 1) float32, the last column flagging presence; those that
            the model reads must be there.
        evaluated: Task -> scores (B,) in the run's evaluation, NaN where a row was not evaluated;
            None where there was none.

    Raises:
        ValueError: There is no row.
    """

    rows: pa.Table
    representations: Mapping[str, np.ndarray] = field(default_factory=dict)
    evaluated: Mapping[str, np.ndarray] | None = None

    def __post_init__(self) -> None:
        if not self.rows.num_rows:
            raise ValueError("An export needs at least one sample.")

    def stored(self, names: list[str]) -> dict[str, np.ndarray]:
        """Some of the representations, as float32.

        Raises:
            ValueError: One is not there, or has not one value per row.
        """
        count = self.rows.num_rows
        for name in names:
            if name not in self.representations or len(self.representations[name]) != count:
                raise ValueError(
                    f"The model reads {name!r}: its values for {count} rows are needed."
                )
        return {name: np.asarray(self.representations[name], np.float32) for name in names}


def spread(samples: pa.Table) -> pa.Table:
    """At most `GOLDEN_ROWS` of the samples, of all scenarios alike."""
    count = min(len(samples), GOLDEN_ROWS)
    return samples.take(pa.array(np.linspace(0, len(samples) - 1, count).astype(np.int64)))
