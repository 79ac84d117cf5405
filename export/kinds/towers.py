"""Exports of one side of an upstream: `user_tower` and `item_tower`."""

from __future__ import annotations

from typing import ClassVar, Literal

from export.golden_rows import GoldenRows
from export.kinds.of_upstream import OfUpstream
from export.subject import ExportSubject
from export.tower_serving import TowerServing
from lfm4ads_tf.embeddings.config import ServedStorage


class UserTower(OfUpstream):
    """UR."""

    side: ClassVar[Literal["user", "item"]] = "user"

    def serving(
        self, subject: ExportSubject, rows: GoldenRows, storage: ServedStorage
    ) -> TowerServing:
        """See `ExportKind`."""
        return TowerServing(subject.called_with(rows.batch), self.side, rows, storage)


class ItemTower(UserTower):
    """IR."""

    side: ClassVar[Literal["user", "item"]] = "item"
