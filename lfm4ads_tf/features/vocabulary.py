"""A vocabulary that grows in time order, so that no later row changes an earlier id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Admitted values: id 1 + k is the k-th value, id 0 is out of vocabulary.

    Attributes:
        values: In the order of admission, (V,).
        admitted_at: Training ordinal of the row that admitted each value, (V,) int64, ascending.
    """

    values: list[str]
    admitted_at: np.ndarray

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Vocabulary)
            and self.values == other.values
            and np.array_equal(self.admitted_at, other.admitted_at)
        )

    def __hash__(self) -> int:
        return hash((len(self.values), *self.values[:8]))

    @classmethod
    def fit(cls, texts: pa.Array, ordinals: np.ndarray, min_count: int) -> Vocabulary:
        """Admits each value at its `min_count`-th occurrence.

        Args:
            texts: Values in time order, (M,) string; null and "" are missing.
            ordinals: Training ordinal of each value's row, (M,) int64, ascending.
            min_count: Occurrences that a value needs.
        """
        encoded = texts.dictionary_encode()
        codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)  # (M,)
        counts = np.bincount(codes[codes >= 0], minlength=len(encoded.dictionary))
        order = np.argsort(codes, kind="stable")  # occurrences of each value, in time order
        starts = np.count_nonzero(codes < 0) + np.cumsum(counts) - counts
        present = pc.not_equal(encoded.dictionary, "").to_numpy(zero_copy_only=False)
        admitted = np.flatnonzero((counts >= min_count) & present)
        position = order[starts[admitted] + min_count - 1]  # of the admitting occurrence
        by_time = np.argsort(position)
        return cls(
            values=encoded.dictionary.take(pa.array(admitted[by_time])).to_pylist(),
            admitted_at=np.asarray(ordinals, np.int64)[position[by_time]],
        )

    def save(self, path: Path) -> None:
        """Writes a Parquet file with the columns `value` and `admitted_at`."""
        pq.write_table(
            pa.table(
                {"value": pa.array(self.values, pa.string()), "admitted_at": self.admitted_at}
            ),
            path,
        )

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Reads what `save` wrote."""
        table = pq.read_table(path)
        return cls(table["value"].to_pylist(), table["admitted_at"].to_numpy().astype(np.int64))
