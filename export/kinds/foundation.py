"""Exports of a whole upstream: `foundation`."""

from __future__ import annotations

from typing import ClassVar

from lfm4ads_tf.embeddings.config import ServedStorage
from lfm4ads_tf.export.golden_rows import GoldenRows
from lfm4ads_tf.export.kinds.of_upstream import OfUpstream
from lfm4ads_tf.export.prediction_serving import PredictionServing
from lfm4ads_tf.export.subject import ExportSubject


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
