"""What interaction layers add to the loss of a batch."""

from __future__ import annotations

import tensorflow as tf


class Penalties:
    """Takes what layers add to the loss in one forward pass, row by row.

    A term is the mean over the rows of the batch, of all branches and sets together:

        P = 1/B sum_b p_b

    so that neither the batch's size nor a branch without rows changes what a row adds. Rows are not
    weighted: a row's weight says what its labels count, and p_b is of no label.

    Whoever wants the terms makes one of these for a forward pass and hands it down; a pass that is
    given none, such as of an evaluation or an export, computes no penalty.

    Example:
        >>> from lfm4ads_tf.interactions.penalties import Penalties
        >>> import tensorflow as tf
        >>> penalties = Penalties()
        >>> penalties.add("mixer/decorrelation", tf.constant([1.0, 3.0]))
        >>> {name: float(value) for name, value in penalties.means(2).items()}
        {'mixer/decorrelation': 2.0}
    """

    def __init__(self) -> None:
        self._sums: dict[str, tf.Tensor] = {}
        self._before = ""

    def within(self, part: str) -> Penalties:
        """The same, which puts `<part>/` before the names that it is given."""
        inner = Penalties()
        inner._sums, inner._before = self._sums, f"{self._before}{part}/"
        return inner

    def add(self, name: str, rows: tf.Tensor) -> None:
        """Adds a penalty to what stands under its name.

        Args:
            name: Its name among the loss terms.
            rows: p, what each row adds (B,).
        """
        name, total = f"{self._before}{name}", tf.reduce_sum(rows)
        self._sums[name] = self._sums[name] + total if name in self._sums else total

    def means(self, rows: int | tf.Tensor) -> dict[str, tf.Tensor]:
        """The terms.

        Args:
            rows: B, of all branches together.

        Returns:
            Name -> P, ().
        """
        return {name: total / tf.cast(rows, total.dtype) for name, total in self._sums.items()}
