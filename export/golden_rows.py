"""Real rows with all that is needed to ask an export for them and to score them offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lfm4ads_tf.batch import EncodedBatch, batch_of
from lfm4ads_tf.features import raw_values
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.offline import encode_columns


@dataclass(frozen=True)
class GoldenRows:
    """B rows: real ones, and as the last one a row in which every value is missing.

    Attributes:
        encoder: The encoder of the training data.
        columns: Raw column -> values (B,), keys included.
        representations: Name -> (B, d + 1), the last column flagging presence.
        batch: The rows encoded as for training.
    """

    encoder: Encoder
    columns: Mapping[str, pa.Array]
    representations: Mapping[str, np.ndarray]
    batch: EncodedBatch

    @classmethod
    def of(
        cls,
        samples: pa.Table,
        encoder: Encoder,
        representations: Mapping[str, np.ndarray],
        keys: Sequence[str] = (),
    ) -> GoldenRows:
        """Real rows, and the row without values.

        Args:
            samples: B - 1 raw rows with every column of the encoder.
            encoder: The encoder of the training data.
            representations: Name -> (B - 1, d + 1).
            keys: Further columns to keep.

        Raises:
            UserError: A column is not there.
        """
        columns = with_missing_row(samples, encoder, keys)
        stored = {
            name: np.concatenate([values, np.zeros_like(values[:1])])  # (B, d + 1)
            for name, values in representations.items()
        }
        return cls(encoder, columns, stored, encoded_batch(encoder, columns, stored))

    def take(self, places: np.ndarray) -> GoldenRows:
        """Some of the rows, (B',) integer; a row may come twice."""
        index = pa.array(places)
        columns = {name: values.take(index) for name, values in self.columns.items()}
        stored = {name: values[places] for name, values in self.representations.items()}
        return GoldenRows(
            self.encoder, columns, stored, encoded_batch(self.encoder, columns, stored)
        )

    def candidates_of(
        self, row: int, user_columns: Sequence[str], user: Sequence[str]
    ) -> GoldenRows:
        """The same rows as candidates of one user.

        Args:
            row: Row of that user.
            user_columns: Columns that describe a user.
            user: Representations of users.
        """
        size = len(next(iter(self.columns.values())))
        same = pa.array([row] * size)
        columns = {n: v.take(same) if n in user_columns else v for n, v in self.columns.items()}
        stored = {
            name: np.repeat(values[row : row + 1], size, axis=0) if name in user else values
            for name, values in self.representations.items()
        }
        batch = encoded_batch(self.encoder, columns, stored)
        return GoldenRows(self.encoder, columns, stored, batch)


def with_missing_row(
    samples: pa.Table, encoder: Encoder, keys: Sequence[str] = ()
) -> dict[str, pa.Array]:
    """The encoder's columns of some rows, and one more row in which every value is missing.

    Raises:
        UserError: A column is not there.
    """
    held = {name: samples[name] for name in samples.column_names}
    columns = {}
    for name in dict.fromkeys([*encoder.raw_types, *keys]):
        array = raw_values.column_of(held, name)
        if array.type == pa.null():
            array = array.cast(pa.string())
        columns[name] = pa.concat_arrays([array, pa.nulls(1, array.type)])
    return columns


def encoded_batch(
    encoder: Encoder, columns: raw_values.Columns, representations: Mapping[str, np.ndarray]
) -> EncodedBatch:
    """Rows encoded as for training.

    Args:
        encoder: The encoder.
        columns: Raw column -> values (B,).
        representations: Name -> (B, d + 1).
    """
    encoded = encode_columns(encoder, columns)
    return batch_of(encoded, representations, 0, len(encoded["scenario"]))
