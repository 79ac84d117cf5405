"""The towers of one user and many candidate items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.layout import EmbeddingLayout
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.field_group import FieldGroup
from lfm4ads_tf.interactions.repeated import repeated
from lfm4ads_tf.models.owned_fields import OwnedFields, OwnedInputs
from lfm4ads_tf.models.two_towers import TowerOutputs, TwoTowers, numbers_of, own_columns

_Owners = tuple[str, ...]
_USER: _Owners = ("user",)
_CANDIDATES: _Owners = ("item", "context")


class CandidateTowers:
    """What `TwoTowers.towers` gives for N rows of one user, from one row of the user.

        UR = UserTower(user fields of 1 row), repeated N times
        IR_n = ItemTower(item fields of row n)

    The user's fields are looked up once, and the user tower runs once, unless a gate of N rows
    multiplies its fields. Groups of fields are those of the user, of 1 row, and those of the
    candidates, of N rows.

    Args:
        towers: The towers.

    Attributes:
        features: Owner -> names of its features.
    """

    def __init__(self, towers: TwoTowers) -> None:
        self._towers = towers
        layout = towers.layout
        self.features: dict[str, list[str]] = {"user": [], "item": [], "context": []}
        for field in layout.fields:
            self.features[field.owner].append(field.name)
        for number in layout.dense:
            self.features[number.owner].append(number.name)
        tables = towers.embeddings
        self._parts: dict[_Owners, _Part] = {}
        for owners in (_USER, _CANDIDATES):
            names = [name for owner in owners for name in self.features[owner]]
            owners_layout = layout.only(names)
            columns = {dim: tables.fields(dim) for dim in tables.dims}
            owned = OwnedFields(owners_layout, columns, tables.sets)
            self._parts[owners] = _Part(owners_layout, tables.layout.only(names), owned)

    def __call__(
        self, user: EncodedBatch, candidates: EncodedBatch, *, gate: tf.Tensor | None = None
    ) -> TowerOutputs:
        """Looks up and runs both towers.

        Args:
            user: One row, of static size 1; only features of the user are read.
            candidates: N rows; only features of item and context are read.
            gate: As for `TwoTowers.towers`, of 1 or N rows.

        Returns:
            The outputs of N rows.
        """
        of_user, of_candidates = self.of_user(user, gate), self.of_candidates(candidates, gate)
        return self.joined(of_user, of_candidates, tf.shape(candidates["ids"])[0])

    def of_user(self, user: EncodedBatch, gate: tf.Tensor | None = None) -> TowerOutputs:
        """The user's part: `user` and `fields` of 1 row, of N rows under a gate of N rows."""
        groups, inputs = self._side(_USER, user, gate)
        of_user = inputs["user"].parts()
        if any(tensor.shape[0] != 1 for tensor in of_user):  # a gate of N rows
            rows = tf.shape(gate)[0]
            of_user = [repeated(tensor, rows) for tensor in of_user]
        representation = self._towers.user_tower(tf.concat(of_user, axis=-1))
        sequences = self._towers.sequences(user, _USER)
        return TowerOutputs(
            representation,
            tf.zeros([0, 0]),
            None,
            groups,
            sequences=_of_one(sequences),
            numbers=numbers_of(inputs),
        )

    def of_candidates(
        self, candidates: EncodedBatch, gate: tf.Tensor | None = None
    ) -> TowerOutputs:
        """The candidates' part: `item`, `context` and `fields` of N rows."""
        groups, inputs = self._side(_CANDIDATES, candidates, gate)
        item = self._towers.item_tower(inputs["item"].joined())
        context = inputs["context"].joined() if inputs["context"] else None
        sequences = self._towers.sequences(candidates, _CANDIDATES)
        return TowerOutputs(
            tf.zeros([0, 0]),
            item,
            context,
            groups,
            sequences=sequences,
            numbers=numbers_of(inputs),
        )

    @staticmethod
    def joined(user: TowerOutputs, candidates: TowerOutputs, rows: tf.Tensor) -> TowerOutputs:
        """Both parts as outputs of `rows` rows.

        The user's fields stay one row, as groups of their own before the candidates' of the same
        width, see `FM`.
        """
        pairs = zip(user.fields, candidates.fields, strict=True)
        fields = [group for pair in pairs for group in pair if group.names]
        return TowerOutputs(
            repeated(user.user, rows),
            candidates.item,
            candidates.context,
            fields,
            sequences={**user.sequences, **candidates.sequences},
            numbers={**user.numbers, **candidates.numbers},
        )

    def _side(
        self, owners: _Owners, batch: EncodedBatch, gate: tf.Tensor | None
    ) -> tuple[list[FieldGroup], dict[str, OwnedInputs]]:
        """Field embeddings per width, and each owner's inputs.

        The rows of a user are of static size 1, which `repeated` goes by.
        """
        side, towers = self._parts[owners], self._towers
        ids = own_columns(batch["ids"], side.layout.id_columns)
        embedded = towers.embeddings.lookup(side.tables, ids, batch.get("bags"))
        rows = 1 if owners == _USER else -1
        gates = None if gate is None else towers.owned.gates(gate, owners)
        groups = side.owned.groups(embedded, gates=gates, rows=rows)
        numbers = own_columns(batch["dense"], side.layout.number_columns)  # (1 or N, N_d)
        numbers = tf.ensure_shape(numbers, [rows if rows > 0 else None, None])
        return groups, side.owned.split(groups, numbers, owners)


@dataclass(frozen=True)
class _Part:
    """What one look-up reads."""

    layout: FeatureLayout
    tables: EmbeddingLayout
    owned: OwnedFields


def _of_one(
    sequences: Mapping[str, tuple[tf.Tensor, tf.Tensor]],
) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
    """Sequences of one row, of static size 1."""
    return {
        name: (tf.ensure_shape(values, [1, None, None, None]), tf.ensure_shape(mask, [1, None]))
        for name, (values, mask) in sequences.items()
    }
