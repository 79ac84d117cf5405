"""Exports of a whole upstream: `foundation`."""

from __future__ import annotations

from typing import ClassVar

from export.golden_rows import GoldenRows
from export.kinds.of_upstream import OfUpstream
from export.prediction_serving import PredictionServing
from export.subject import ExportSubject
from lfm4ads_tf.embeddings.config import ServedStorage


class Foundation(OfUpstream):
    """The probabilities of all tasks, in the scenario of the row."""

    reads_all: ClassVar[bool] = True
    predicts: ClassVar[bool] = True

    def serving(
        self, subject: ExportSubject, rows: GoldenRows, storage: ServedStorage
    ) -> PredictionServing:
        """See `ExportKind`."""
        model = subject.called_with(rows.batch)
        return PredictionServing(model, rows, rebuild=subject.rebuild, storage=storage)
