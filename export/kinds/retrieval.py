"""Exports of a retrieval model with an index of items: `retrieval_<index>`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lfm4ads_tf.embeddings.config import ServedStorage
from lfm4ads_tf.export.golden_rows import GoldenRows
from lfm4ads_tf.export.kinds.kind import ExportKind
from lfm4ads_tf.export.retrieval_serving import RetrievalServing
from lfm4ads_tf.export.subject import ExportSubject
from lfm4ads_tf.features.raw_types import RawType
from lfm4ads_tf.features.request_name import EXCLUDE
from lfm4ads_tf.transfer.retrieval.two_vector_model import TwoVectorModel


class Retrieval(ExportKind):
    """The best items of a user."""

    own_columns: ClassVar[Mapping[str, RawType]] = {EXCLUDE: RawType("texts")}

    def takes(self, model: Any) -> bool:
        """See `ExportKind`."""
        return isinstance(model, TwoVectorModel)

    def sources(self, model: TwoVectorModel) -> list[str]:
        """See `ExportKind`."""
        return [] if model.source is None else [model.source]

    def serving(
        self, subject: ExportSubject, rows: GoldenRows, storage: ServedStorage
    ) -> RetrievalServing:
        """See `ExportKind`."""
        if subject.index is None:
            raise ValueError("The export of a retrieval model needs an index of items.")
        return RetrievalServing(subject.model, subject.index, rows, storage)
