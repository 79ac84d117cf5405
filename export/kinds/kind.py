"""What a kind of export is: which models it takes, their graph, and what a spec asks of it."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lfm4ads_tf.embeddings.config import ServedStorage
from lfm4ads_tf.export.golden_rows import GoldenRows
from lfm4ads_tf.export.kinds.registry import KINDS
from lfm4ads_tf.export.serving_model import ServingModel
from lfm4ads_tf.export.subject import ExportSubject
from lfm4ads_tf.features.raw_types import RawType


@dataclass(frozen=True)
class ExportKind(abc.ABC):
    """A kind of export.

    Attributes:
        name: As `contract.json` holds it: the model's name, such as `ranker_feed`.
        of_upstream: Whether every run exports one model of this kind, made of its upstream.
        reads_all: Whether it asks for every column that the feature spec reads.
        predicts: Whether its outputs are the probabilities of the spec's tasks, under their names.
        own_columns: Columns that a request holds whatever the feature spec says.
    """

    name: str
    of_upstream: ClassVar[bool] = False
    reads_all: ClassVar[bool] = False
    predicts: ClassVar[bool] = False
    own_columns: ClassVar[Mapping[str, RawType]] = {}

    @abc.abstractmethod
    def takes(self, model: Any) -> bool:
        """Whether a model can be exported as this kind."""

    @abc.abstractmethod
    def sources(self, model: Any) -> list[str]:
        """Stored representations that the model's outputs are made of."""

    @abc.abstractmethod
    def serving(
        self, subject: ExportSubject, rows: GoldenRows, storage: ServedStorage
    ) -> ServingModel:
        """The graph of a model.

        Args:
            subject: The model.
            rows: Real rows.
            storage: Type of the tables.

        Raises:
            ExportRefused: A value of a table cannot be kept in this type.
            UserError: Two inputs cannot be told apart in a request.
            ValueError: The subject lacks a part that the graph needs.
        """


def kind_of(name: str) -> ExportKind:
    """The kind of a model's name.

    Raises:
        ValueError: There is none.
    """
    for known in KINDS:
        if name == known or (known.endswith("_") and name.startswith(known)):
            kind: ExportKind = KINDS[known](name)
            return kind
    raise ValueError(f"Unknown kind of export: {name!r}.")
