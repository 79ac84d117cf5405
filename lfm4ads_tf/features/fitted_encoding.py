"""What the training rows settle once: vocabularies, boundaries, standardisation, scenarios."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lfm4ads_tf.features.vocabulary import Vocabulary

ALL = "all"
"""The scenario of a data set without a scenario key."""


@dataclass(frozen=True)
class FittedEncoding:
    """Everything that an encoder needs beside the spec.

    Attributes:
        vocabularies: Table -> vocabulary.
        boundaries: Bucketised feature -> increasing boundaries, float32 values.
        standardize: Dense numeric feature -> (mean, deviation) after its transform.
        bounds: Dense numeric feature -> largest absolute encoded value; none where it is not
            named, as in what an earlier version fitted.
        scenarios: Scenario values in the order of their first training row, auxiliary last.
    """

    vocabularies: Mapping[str, Vocabulary] = field(default_factory=dict)
    boundaries: Mapping[str, list[float]] = field(default_factory=dict)
    standardize: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    scenarios: list[str] = field(default_factory=lambda: [ALL])
    bounds: Mapping[str, float] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Hexadecimal digest of everything that decides what a raw value becomes."""
        plain: dict[str, Any] = {
            "vocabularies": {t: list(v.values) for t, v in self.vocabularies.items()},
            "boundaries": dict(self.boundaries),
            "standardize": {k: list(v) for k, v in self.standardize.items()},
            "scenarios": self.scenarios,
        }
        if self.bounds:  # an encoding without them keeps the digest that exports know
            plain["bounds"] = dict(self.bounds)
        text = json.dumps(plain, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def save(self, folder: Path) -> None:
        """Writes `encoding.json` and one Parquet file per vocabulary."""
        folder.mkdir(parents=True, exist_ok=True)
        files = {t: f"vocabulary_{i}.parquet" for i, t in enumerate(self.vocabularies)}
        for table, file in files.items():
            self.vocabularies[table].save(folder / file)
        document = {
            "vocabularies": files,
            "boundaries": dict(self.boundaries),
            "standardize": {k: list(v) for k, v in self.standardize.items()},
            "scenarios": self.scenarios,
            "bounds": dict(self.bounds),
        }
        text = json.dumps(document, indent=2, ensure_ascii=False)
        (folder / "encoding.json").write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> FittedEncoding:
        """Reads what `save` wrote."""
        document = json.loads((folder / "encoding.json").read_text(encoding="utf-8"))
        return cls(
            vocabularies={
                t: Vocabulary.load(folder / f) for t, f in document["vocabularies"].items()
            },
            boundaries=document["boundaries"],
            standardize={k: (v[0], v[1]) for k, v in document["standardize"].items()},
            scenarios=document["scenarios"],
            bounds=document.get("bounds", {}),
        )
