"""What an interaction block reads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import tensorflow as tf

from lfm4ads_tf.interactions.field_group import FieldGroup
from lfm4ads_tf.interactions.repeated import repeated


@dataclass(frozen=True)
class BlockInputs:
    """What a block interacts.

    Attributes:
        user: UR, (B, d_u).
        item: IR, (B, d_i).
        context: Context embeddings and numbers, flat (B, d_c), or None.
        fields: Field embeddings by width, with the names and owners of the fields and all sets.
        extra: Further parts of the stream, such as adapted representations, each (B, d).
        gate: Factor of the stream, (B, d_u + d_i + d_c), or None.
        stream: [user; item; context] where the caller holds it as one tensor, else None.
        sequences: Feature -> embeddings of its values (B, L, K, D) in order, zeros behind the end,
            and which of them there are (B, L); those that a layer asks for.
        numbers: Owner -> its numbers (B, N_o), as the towers read them; one row of static size 1
            stands for B equal ones.
        multi_valued: Those of the fields that are pooled from a bag or sequence of values.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> import tensorflow as tf
        >>> inputs = lfm.BlockInputs(tf.ones([2, 3]), tf.ones([2, 2]), context=None, fields=[])
        >>> inputs.origin().shape
        TensorShape([2, 5])
    """

    user: tf.Tensor
    item: tf.Tensor
    context: tf.Tensor | None
    fields: Sequence[FieldGroup]
    extra: Sequence[tf.Tensor] = ()
    gate: tf.Tensor | None = None
    stream: tf.Tensor | None = None
    sequences: Mapping[str, tuple[tf.Tensor, tf.Tensor]] = field(default_factory=dict)
    numbers: Mapping[str, tf.Tensor] = field(default_factory=dict)
    multi_valued: Collection[str] = ()

    def origin(self) -> tf.Tensor:
        """x_0 = [user; item; context] (* gate) (; extra), (B, d)."""
        stream = self.stream
        if stream is None:
            parts = [self.user, self.item]
            if self.context is not None:
                parts.append(self.context)
            stream = tf.concat(parts, axis=-1)  # (B, d_u + d_i + d_c)
        if self.gate is not None:
            stream *= self.gate
        if self.extra:
            stream = tf.concat([stream, *self.extra], axis=-1)  # (B, d)
        return stream

    def of_dtype(self, dtype: str) -> BlockInputs:
        """The same with numbers of a dtype: Keras casts tensors that it sees, not these.

        Args:
            dtype: Of UR (B, d_u) and all other numbers; masks stay.
        """

        def cast(value: tf.Tensor | None) -> tf.Tensor | None:
            return None if value is None else tf.cast(value, dtype)

        return replace(
            self,
            user=cast(self.user),
            item=cast(self.item),
            context=cast(self.context),
            fields=[replace(group, values=cast(group.values)) for group in self.fields],
            extra=[cast(part) for part in self.extra],
            gate=cast(self.gate),
            stream=cast(self.stream),
            sequences={name: (cast(v), mask) for name, (v, mask) in self.sequences.items()},
            numbers={owner: cast(values) for owner, values in self.numbers.items()},
        )

    def set_by_set(self, sets: int) -> list[BlockInputs]:
        """What each set of the embeddings gives a block of its own.

        Args:
            sets: K. UR is [u^0; ...; u^(K-1)] with u^k of set k alone, IR and context likewise.

        Returns:
            K inputs: u^k (B, d_u / K), i^k, context of set k, fields (B, F, D), sequences
            (B, L, 1, D), and all numbers.

        Raises:
            ValueError: There is a gate or a further part of the stream, which are of no set.
        """
        if sets == 1:
            return [self]
        if self.gate is not None or self.extra:
            raise ValueError("A gate and what joins the stream belong to no set of embeddings.")

        def apart(value: tf.Tensor | None) -> list[tf.Tensor | None]:
            # a split's gradient is one concatenation, a slice's pads the whole tensor with zeros
            return [None] * sets if value is None else tf.split(value, sets, axis=-1)

        fields = [tf.unstack(group.per_set(), axis=2) for group in self.fields]  # K of (B, F, D)
        sequences = {
            name: (tf.split(v, sets, axis=2), m) for name, (v, m) in self.sequences.items()
        }
        towers = [apart(value) for value in (self.user, self.item, self.context)]
        return [
            BlockInputs(
                user,
                item,
                context,
                [
                    replace(group, values=values[k], sets=1)
                    for group, values in zip(self.fields, fields, strict=True)
                ],
                sequences={name: (values[k], mask) for name, (values, mask) in sequences.items()},
                numbers=self.numbers,
                multi_valued=self.multi_valued,
            )
            for k, (user, item, context) in enumerate(zip(*towers, strict=True))
        ]

    def whole(self, rows: tf.Tensor) -> BlockInputs:
        """The same as every caller's: one group of each width, all of `rows` rows.

        A user's fields may be one row that stands for all, apart from those of many items; stored
        representations stand for the fields of one side each.

        Args:
            rows: B, ().

        Returns:
            Groups of (B, F_w, K D) for each width and number of sets, sequences (B, L, K, D).
        """
        groups: dict[tuple[int, int], FieldGroup] = {}
        for group in self.fields:
            key = group.width, group.sets
            group = group.with_rows(rows)
            groups[key] = groups[key].joined(group) if key in groups else group
        return replace(
            self,
            fields=list(groups.values()),
            sequences={
                name: (repeated(values, rows), repeated(mask, rows))
                for name, (values, mask) in self.sequences.items()
            },
            numbers={owner: repeated(values, rows) for owner, values in self.numbers.items()},
        )
