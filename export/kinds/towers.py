"""Exports of one side of an upstream: `user_tower` and `item_tower`."""

from __future__ import annotations

from typing import ClassVar, Literal

from lfm4ads_tf.embeddings.config import ServedStorage
from lfm4ads_tf.export.golden_rows import GoldenRows
from lfm4ads_tf.export.kinds.of_upstream import OfUpstream
from lfm4ads_tf.export.subject import ExportSubject
from lfm4ads_tf.export.tower_serving import TowerServing


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
