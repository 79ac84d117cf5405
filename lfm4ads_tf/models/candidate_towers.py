"""The towers of one user and many candidate items."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.interactions.repeated import repeated
from lfm4ads_tf.models.two_towers import TowerOutputs, TwoTowers, own_columns

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
        self._owners: dict[str, str] = {f.name: f.owner for f in layout.fields}
        sides = {owners: self._names(owners) for owners in (_USER, _CANDIDATES)}
        self._layouts = {owners: layout.only(names) for owners, names in sides.items()}
        tables = towers.embeddings.layout
        self._tables = {owners: tables.only(names) for owners, names in sides.items()}

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
        fields, inputs = self._side(_USER, user, gate)
        if any(part.shape[0] != 1 for part in inputs["user"]):  # a gate of N rows
            rows = tf.shape(gate)[0]
            inputs["user"] = [repeated(part, rows) for part in inputs["user"]]
        representation = self._towers.user_tower(tf.concat(inputs["user"], axis=-1))
        return TowerOutputs(representation, tf.zeros([0, 0]), None, fields)

    def of_candidates(
        self, candidates: EncodedBatch, gate: tf.Tensor | None = None
    ) -> TowerOutputs:
        """The candidates' part: `item`, `context` and `fields` of N rows."""
        fields, inputs = self._side(_CANDIDATES, candidates, gate)
        item = self._towers.item_tower(tf.concat(inputs["item"], axis=-1))
        context = tf.concat(inputs["context"], axis=-1) if inputs["context"] else None
        return TowerOutputs(tf.zeros([0, 0]), item, context, fields)

    @staticmethod
    def joined(user: TowerOutputs, candidates: TowerOutputs, rows: tf.Tensor) -> TowerOutputs:
        """Both parts as outputs of `rows` rows.

        The user's fields stay one row, as groups of their own before the candidates' of the same
        width, see `FM`.
        """
        pairs = zip(user.fields, candidates.fields, strict=True)
        fields = [group for pair in pairs for group in pair if group.shape[1]]
        return TowerOutputs(repeated(user.user, rows), candidates.item, candidates.context, fields)

    def _names(self, owners: Sequence[str]) -> list[str]:
        return [name for owner in owners for name in self.features[owner]]

    def _side(
        self, owners: _Owners, batch: EncodedBatch, gate: tf.Tensor | None
    ) -> tuple[list[tf.Tensor], dict[str, list[tf.Tensor]]]:
        """Field embeddings per width, and the parts of each owner's input.

        The rows of a user are of static size 1, which `repeated` goes by.
        """
        embeddings, layout = self._towers.embeddings, self._layouts[owners]
        ids = own_columns(batch["ids"], layout.id_columns)
        embedded = embeddings.lookup(self._tables[owners], ids, batch.get("bags"))
        size = 1 if owners == _USER else -1
        inputs: dict[str, list[tf.Tensor]] = {owner: [] for owner in owners}
        fields: list[tf.Tensor] = []
        start = 0
        for dim in embeddings.dims:
            width = embeddings.sets * dim
            # the layout names its features owner by owner, the user's first
            names = embeddings.fields(dim)
            own = [self._owners[name] for name in names]
            values = tf.reshape(
                embedded[dim], [size, sum(o in owners for o in own), width]
            )  # (1 or N, F, K w)
            if gate is not None:
                factor = gate[:, start : start + len(names) * width]  # (1 or N, F_w K w)
                factor = tf.reshape(
                    factor, [gate.shape[0] or -1, len(names), width]
                )  # (1 or N, F_w, K w)
                users = own.count("user")
                values *= factor[:, :users] if owners == _USER else factor[:, users:]
                start += len(names) * width
            fields.append(values)
            pieces = tf.split(values, [own.count(owner) for owner in owners], axis=1)
            for owner, piece in zip(owners, pieces, strict=True):
                if own.count(owner):
                    rows = piece.shape[0] or -1
                    flat = tf.reshape(piece, [rows, own.count(owner) * width])
                    inputs[owner].append(flat)  # (1 or N, F_o K w)
        numbers = own_columns(batch["dense"], layout.number_columns)  # (1 or N, N_d)
        for owner in owners:
            columns = layout.dense_columns(owner)
            if columns:
                part = numbers[:, columns[0] : columns[-1] + 1]  # (1 or N, N_o)
                inputs[owner].append(tf.ensure_shape(part, [size if size > 0 else None, None]))
        return fields, inputs
