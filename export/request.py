"""What is exported, from which rows, and where it goes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lfm4ads_tf.config import ExportConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.kinds.kind import ExportKind, kind_of
from lfm4ads_tf.export.samples import ExportSamples
from lfm4ads_tf.export.subject import ExportSubject
from lfm4ads_tf.features.encoder import Encoder


@dataclass(frozen=True)
class ExportRequest:
    """One export that is to be made.

    Attributes:
        name: Name under which the model is served.
        subject: What is exported.
        encoder: The encoder of the feature spec.
        samples: Rows that warm the model up, and that it is held against.
        out: Folder of all exports.
        kind: Name of its kind, such as `foundation` or `ranker_<scenario>`; `name` when absent.
        config: Type of the tables, number of warm-up requests and of versions that are kept.
        version: A positive integer above those in use; the next one when absent.
        source: What the model is, recorded in `blessing.json`.
        note: What a log line tells of it.

    Raises:
        UserError: The name or version cannot be used.
        ValueError: The kind is unknown, or model, kind and samples do not fit together.
    """

    name: str
    subject: ExportSubject
    encoder: Encoder
    samples: ExportSamples
    out: Path
    kind: str = ""
    config: ExportConfig = ExportConfig()
    version: int | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[^./\\\s][^/\\]*", self.name):
            raise UserError(
                "An export's name must be a plain folder name.", received=repr(self.name)
            )
        if self.version is not None and self.version < 1:
            raise UserError("An export's version is a positive integer.", received=self.version)
        if not self.kind:
            object.__setattr__(self, "kind", self.name)
        kind, model = self.made_as, self.subject.model
        if not kind.takes(model):
            raise ValueError(f"A {type(model).__name__} cannot be exported as {self.kind!r}.")
        self.samples.stored(kind.sources(model))

    @property
    def made_as(self) -> ExportKind:
        """The kind itself."""
        return kind_of(self.kind)

    @property
    def folder(self) -> Path:
        """The model's folder."""
        return self.out / self.name
