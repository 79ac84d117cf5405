"""Exports of a scenario's downstream model: `ranker_<scenario>`."""

from __future__ import annotations

from typing import Any, ClassVar

from lfm4ads_tf.embeddings.config import ServedStorage
from lfm4ads_tf.export.golden_rows import GoldenRows
from lfm4ads_tf.export.kinds.kind import ExportKind
from lfm4ads_tf.export.prediction_serving import PredictionServing, representation_sources
from lfm4ads_tf.export.subject import ExportSubject
from lfm4ads_tf.transfer.downstream import DownstreamModel


class Ranker(ExportKind):
    """The probabilities of all tasks in one scenario."""

    predicts: ClassVar[bool] = True

    def takes(self, model: Any) -> bool:
        """See `ExportKind`."""
        return isinstance(model, DownstreamModel)

    def sources(self, model: Any) -> list[str]:
        """See `ExportKind`."""
        return representation_sources(model)

    def serving(
        self, subject: ExportSubject, rows: GoldenRows, storage: ServedStorage
    ) -> PredictionServing:
        """See `ExportKind`."""
        return PredictionServing(
            subject.called_with(rows.batch),
            rows,
            rebuild=subject.rebuild,
            storage=storage,
            lookups=subject.lookups,
        )
