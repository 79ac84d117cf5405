"""Looked-up fields and numbers, by the side that owns them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf

from lfm4ads_tf.features.layout import OWNERS, FeatureLayout
from lfm4ads_tf.interactions.columns import Label
from lfm4ads_tf.interactions.field_group import FieldGroup


@dataclass(frozen=True)
class OwnedInputs:
    """The inputs of one owner: embeddings width by width, then numbers.

    Attributes:
        groups: Embeddings of the owner's fields by width, each (B, F_o, K D); no empty ones.
        numbers: (B, N_o), or None.
        sets: K, also where there are no embeddings.
    """

    groups: Sequence[FieldGroup]
    numbers: tf.Tensor | None
    sets: int = 1

    def __bool__(self) -> bool:
        """Whether there is any input."""
        return bool(self.groups) or self.numbers is not None

    def parts(self) -> list[tf.Tensor]:
        """The embeddings of each width, flat (B, F_o K D), and the numbers."""
        flat = [
            tf.reshape(g.values, [g.values.shape[0] or -1, len(g.names) * g.width])
            for g in self.groups
        ]
        return flat if self.numbers is None else [*flat, self.numbers]

    def joined(self) -> tf.Tensor:
        """All of them side by side, (B, d); the sets of a field lie side by side."""
        return tf.concat(self.parts(), axis=-1)

    def per_set(self) -> tf.Tensor:
        """One view for each set, (K, B, d'): its embeddings of all fields, and the numbers.

        With K = 1 the one view is `joined`.
        """
        views: list[tf.Tensor] = []
        sets = self.groups[0].sets if self.groups else self.sets
        for group in self.groups:
            apart = tf.transpose(group.per_set(), [2, 0, 1, 3])  # (K, B, F_o, D)
            flat = len(group.names) * group.width // sets
            views.append(tf.reshape(apart, [sets, tf.shape(apart)[1], flat]))  # (K, B, F_o D)
        if self.numbers is not None:
            views.append(tf.tile(self.numbers[tf.newaxis], [sets, 1, 1]))  # (K, B, N_o)
        return tf.concat(views, axis=-1)

    def per_group(self, sizes: Sequence[int]) -> list[tf.Tensor]:
        """One view for each group of m sets: its embeddings of all fields, and the numbers.

        A group is what one set of width m D would be: the sets of a field lie side by side.

        Args:
            sizes: Number of sets m of each group, K in all; groups are in the order of the sets.

        Returns:
            Per group (B, d_m).
        """
        views: list[list[tf.Tensor]] = [[] for _ in sizes]
        for group in self.groups:
            pieces = tf.split(group.per_set(), list(sizes), axis=2)  # each (B, F_o, m, D)
            for view, piece in zip(views, pieces, strict=True):
                width = piece.shape[1] * piece.shape[2] * piece.shape[3]
                view.append(tf.reshape(piece, [-1, width]))  # (B, F_o m D)
        if self.numbers is not None:
            views = [[*view, self.numbers] for view in views]
        return [tf.concat(view, axis=-1) for view in views]


class OwnedFields:
    """Splits what a batch's fields and numbers give by owner and width; nothing else does.

    Args:
        layout: The features that are read, owner by owner.
        names: Width -> its fields in the order of the tables' columns, the widths in the order in
            which towers join them; fields that the layout does not have are passed over.
        sets: K.

    Attributes:
        names: Width -> fields that are read.
        sets: K.
    """

    def __init__(
        self,
        layout: FeatureLayout,
        names: Mapping[int, Sequence[str]],
        sets: int = 1,
    ) -> None:
        owner_of = {field.name: field.owner for field in layout.fields}
        self.sets = sets
        self.names = {
            dim: [name for name in fields if name in owner_of] for dim, fields in names.items()
        }
        self._owners = {dim: [owner_of[n] for n in fields] for dim, fields in self.names.items()}
        self._dense = layout.dense
        self._columns: dict[str, list[int]] = {o: layout.dense_columns(o) for o in OWNERS}

    @property
    def width(self) -> int:
        """Columns of all field embeddings together."""
        return sum(len(fields) * self.sets * dim for dim, fields in self.names.items())

    def gates(self, gate: tf.Tensor, owners: Sequence[str] = OWNERS) -> dict[int, tf.Tensor]:
        """Width -> factors of its fields, or of those of some owners next to each other.

        Args:
            gate: Factor of all field embeddings, (B, `width`).
            owners: The owners.

        Returns:
            Each (B, F_w of the owners, K D).
        """
        factors: dict[int, tf.Tensor] = {}
        start = 0
        for dim, fields in self.names.items():
            width = self.sets * dim
            flat = gate[:, start : start + len(fields) * width]  # (B, F_w K D)
            factor = tf.reshape(flat, [gate.shape[0] or -1, len(fields), width])  # (B, F_w, K D)
            places = [i for i, owner in enumerate(self._owners[dim]) if owner in owners]
            if len(places) < len(fields):
                first = places[0] if places else 0
                factor = factor[:, first : first + len(places)]
            factors[dim] = factor
            start += len(fields) * width
        return factors

    def groups(
        self,
        embedded: Mapping[int, tf.Tensor],
        *,
        gates: Mapping[int, tf.Tensor] | None = None,
        rows: int = -1,
    ) -> list[FieldGroup]:
        """The field embeddings of each width, in the order of the widths.

        Args:
            embedded: Width -> (B, F, K, D), fields in the order of `names`.
            gates: Their factors, see `gates`, or None.
            rows: B where it is static.
        """
        groups: list[FieldGroup] = []
        for dim, fields in self.names.items():
            if dim not in embedded:  # tables that hold nothing of these fields
                continue
            values = tf.reshape(embedded[dim], [rows, len(fields), self.sets * dim])
            if gates is not None:
                values *= gates[dim]  # (B, F_w, K D)
            groups.append(FieldGroup(values, fields, self._owners[dim], self.sets))
        return groups

    def split(
        self, groups: Sequence[FieldGroup], numbers: tf.Tensor, owners: Sequence[str] = OWNERS
    ) -> dict[str, OwnedInputs]:
        """The inputs of each owner.

        Args:
            groups: What `groups` gave, or the same of some owners' fields alone.
            numbers: (B, N).
            owners: The owners, in the layout's order, that the groups' fields have.
        """
        mine: dict[str, list[FieldGroup]] = {owner: [] for owner in owners}
        for group in groups:
            counts = [sum(each == owner for each in group.owners) for owner in owners]
            # a split's gradient is one concatenation, a slice's pads the whole tensor with zeros
            pieces = tf.split(group.values, counts, axis=1)
            for owner, piece in zip(owners, pieces, strict=True):
                names = [n for n, o in zip(group.names, group.owners, strict=True) if o == owner]
                if names:
                    owned = FieldGroup(piece, names, [owner] * len(names), group.sets)
                    mine[owner].append(owned)
        return {
            owner: OwnedInputs(parts, self._numbers(owner, numbers), self.sets)
            for owner, parts in mine.items()
        }

    def fields_of(self, owner: str) -> dict[int, list[str]]:
        """Width -> the owner's fields, where there are some."""
        mine = {
            dim: [
                n
                for n, field_owner in zip(fields, self._owners[dim], strict=True)
                if field_owner == owner
            ]
            for dim, fields in self.names.items()
        }
        return {dim: fields for dim, fields in mine.items() if fields}

    def labels(self, owner: str) -> list[Label]:
        """What each column of an owner's joined input is: a feature and a position in it."""
        labels: list[Label] = []
        for dim, fields in self.fields_of(owner).items():
            for name in fields:
                labels += [(name, j) for j in range(self.sets * dim)]
        for field in self._dense:
            if field.owner == owner:
                labels += [(field.name, j) for j in range(field.width)]
        return labels

    def _numbers(self, owner: str, numbers: tf.Tensor) -> tf.Tensor | None:
        columns = self._columns[owner]
        return numbers[:, columns[0] : columns[-1] + 1] if columns else None  # (B, N_o)
