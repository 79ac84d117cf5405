"""Sets of rows by the values of a raw column: which samples are ads, and named segments."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from pydantic import Field, field_validator

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.value_texts import value_text
from lfm4ads_tf.strict import StrictModel
from lfm4ads_tf.written import Written, text_of

SegmentName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]


class RowSet(StrictModel):
    """The rows whose raw column holds one of some values.

    A value is compared as a text, and where it is a number as a number too: `1` and `"1"` are the
    same, and both equal a `1.0` of the data. A missing value is in no set.

    Attributes:
        by: Raw column of the log or of a side table.
        values: The values.
    """

    by: str = Field(min_length=1)
    values: list[bool | int | float | str] = Field(min_length=1)

    @field_validator("values", mode="before")
    @classmethod
    def _written(cls, values: Any) -> Any:
        """`NO`, `010` and `16:9` are texts; `true` in any case is a truth value."""
        return [_value(value) for value in values] if isinstance(values, list) else values

    @property
    def texts(self) -> list[str]:
        """Every text that one of the values is written as."""
        return list(dict.fromkeys(text for value in self.values for text in _forms(value)))

    @property
    def numbers(self) -> list[float]:
        """The values that are numbers."""
        numbers = [number_of(str(float(v)) if isinstance(v, bool) else str(v)) for v in self.values]
        return list(dict.fromkeys(n for n in numbers if n is not None))

    @property
    def integers(self) -> list[int]:
        """The values that are integers, exactly."""
        integers = [_integer(v) for v in self.values]
        return list(dict.fromkeys(n for n in integers if n is not None))

    def rows(self, column: pa.Array) -> np.ndarray:
        """Whether each row of a raw column is in the set, (N,) bool.

        Raises:
            UserError: The column holds lists.
        """
        if pa.types.is_nested(column.type):
            raise UserError(
                f"Rows cannot be chosen by '{self.by}', which holds lists.",
                fix="name a column with one text or number per row",
            )
        if pa.types.is_integer(column.type):
            # Not as floats, which would merge integers beyond 2^53.
            kept = [n for n in self.integers if _holds(column.type, n)]
            in_set = pc.is_in(column, value_set=pa.array(kept, column.type))
            return np.asarray(in_set.to_numpy(zero_copy_only=False), bool)
        if pa.types.is_floating(column.type):
            values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
            return np.isin(values, np.array(self.numbers, np.float64))
        texts = pc.fill_null(column.cast(pa.string()), "")
        in_set = pc.is_in(texts, value_set=pa.array(self.texts, pa.string()))
        return np.asarray(in_set.to_numpy(zero_copy_only=False), bool)

    def holds_number(self, column: tf.Tensor) -> tf.Tensor:
        """Whether each number of a batch is in the set.

        Args:
            column: (B,) float32, or int64 with a negative number where the value is missing.

        Returns:
            (B,) bool.
        """
        # what float32 cannot hold is in no batch
        known: list[float] = [n for n in self.numbers if abs(n) <= float(column.dtype.max)]
        if column.dtype.is_integer:
            known = [n for n in self.integers if 0 <= n < 2**63]
        return tf.reduce_any(
            tf.equal(column[:, tf.newaxis], tf.constant(known, column.dtype)),  # (B, V)
            axis=1,
        )


def _value(value: Any) -> Any:
    """A value as it was written."""
    if isinstance(value, Written):
        if value.value is None:
            raise ValueError(f"a missing value is in no set; quote the text '{value}'")
        truth = isinstance(value.value, bool) and value.lower() in ("true", "false")
        return value.value if truth else str(value)
    return value if isinstance(value, bool | int | float) else text_of(value)


def _forms(value: bool | int | float | str) -> list[str]:
    """The texts of one value."""
    if isinstance(value, bool):
        return [str(value).lower(), str(value), str(value).upper(), *_forms(int(value))]
    if isinstance(value, str) and value_text(value) != value:
        return [value, value_text(value)]  # the files' texts have been read likewise
    number = number_of(str(value))
    if number is None:
        return [str(value)]
    whole = [str(int(number))] if number == int(number) else []
    # a code such as 007 is no number: it equals itself alone
    written = [*whole, repr(number)]
    return [str(value), *written] if str(value) in written else [str(value)]


def _integer(value: bool | int | float | str) -> int | None:
    """An integer, None if the value is something else."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str) and value.isascii() and value.removeprefix("-").isdigit():
        return int(value)
    number = number_of(str(value))
    return int(number) if number is not None and number == int(number) else None


def _holds(kind: pa.DataType, number: int) -> bool:
    """Whether an integer type has a number."""
    if pa.types.is_unsigned_integer(kind):
        return 0 <= number < 2**kind.bit_width
    return -(2 ** (kind.bit_width - 1)) <= number < 2 ** (kind.bit_width - 1)


def number_of(text: str) -> float | None:
    """A finite number, None if the text is something else."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None
