"""Embeddings of the fields of one width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import tensorflow as tf

from lfm4ads_tf.interactions.repeated import repeated


@dataclass(frozen=True)
class FieldGroup:
    """Embeddings of the fields of one width, side by side.

    Attributes:
        values: (B, F, K D): the sets of a field lie side by side. A group of one row, of static
            size 1, stands for B equal ones.
        names: The fields, F of them.
        owners: `user`, `item`, `context`, or `representation` for an adapted one, F of them.
        sets: K.
    """

    values: tf.Tensor
    names: Sequence[str]
    owners: Sequence[str]
    sets: int = 1

    @property
    def width(self) -> int:
        """K D."""
        return int(self.values.shape[-1])

    def per_set(self) -> tf.Tensor:
        """The sets apart, (B, F, K, D)."""
        shape = tf.shape(self.values)
        sizes = [shape[0], len(self.names), self.sets, self.width // self.sets]
        return tf.reshape(self.values, sizes)  # (B, F, K, D)

    def of(self, owner: str) -> tf.Tensor:
        """The embeddings of one owner's fields, (B, F_o, K D)."""
        places = [i for i, each in enumerate(self.owners) if each == owner]
        return tf.gather(self.values, tf.constant(places, tf.int32, [len(places)]), axis=1)

    def named(self, name: str) -> tf.Tensor:
        """The embeddings of one field, (B, K D).

        Raises:
            ValueError: The group has no such field.
        """
        return self.values[:, list(self.names).index(name)]

    def with_rows(self, rows: tf.Tensor) -> FieldGroup:
        """The group with its one row, if it has one, repeated."""
        return replace(self, values=repeated(self.values, rows))

    def joined(self, rest: FieldGroup) -> FieldGroup:
        """This group and another one of its width as one group, both of B rows."""
        return FieldGroup(
            tf.concat([self.values, rest.values], axis=1),  # (B, F, K D)
            [*self.names, *rest.names],
            [*self.owners, *rest.owners],
            self.sets,
        )
