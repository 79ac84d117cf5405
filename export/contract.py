"""`contract.json`: what an export promises to those who ask it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lfm4ads_tf.embeddings.config import ServedStorage
from lfm4ads_tf.export.archive import described_signatures
from lfm4ads_tf.export.merging import TOLERANCES
from lfm4ads_tf.export.rounding import Rounding
from lfm4ads_tf.export.serving_model import ServingModel
from lfm4ads_tf.export.verify_child import SCHEMA, variables_digest, vocabulary_sha256
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.files import write_json

CONTRACT_FILE = Path("assets.extra") / "contract.json"
"""Inside a version folder."""


def write_contract(
    folder: Path,
    kind: str,
    graph: ServingModel,
    encoder: Encoder,
    tables: ServedStorage,
    roundings: Mapping[str, Rounding],
) -> dict[str, Any]:
    """Writes the contract of a version folder that holds a SavedModel.

    Args:
        folder: The version folder.
        kind: Kind of the export.
        graph: What was written.
        encoder: The encoder of the training data.
        tables: Type of the tables.
        roundings: Output -> what rounding allows.

    Returns:
        `kind`, `tables`, `tolerance` (what smaller tables may change in a probability; 0 for
        float32), `rounding` (output -> `of`, `bound`: what another processor may change, see
        `Rounding`), `variables_sha256` (see `variables_digest`), `encoding` (digest of the fitted
        encoding), `columns` (raw column -> type), `representations` (name ->
        width), `user_columns`, `item_columns`, `tasks` (those that it answers),
        `auxiliary_tasks` (those that it was trained for beside them), `signatures` (see
        `described_signatures`), `vocabulary_sha256` where there is a vocabulary, and
        `field_groups` (layer -> name -> fields) where weights read several fields together.
    """
    sides: Mapping[str, str] = graph.sides
    contract: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": kind,
        "tables": tables,
        "tolerance": TOLERANCES[tables],
        "rounding": {
            name: {"of": rounding.of, "bound": rounding.bound}
            for name, rounding in roundings.items()
        },
        "variables_sha256": variables_digest(folder),
        "encoding": encoder.digest,
        "columns": {column: raw_type.kind for column, raw_type in graph.schema.columns.items()},
        "representations": dict(graph.schema.representations),
        "user_columns": [name for name, side in sides.items() if side == "user"],
        "item_columns": [name for name, side in sides.items() if side == "item"],
        "tasks": graph.tasks,
        "auxiliary_tasks": graph.auxiliary_tasks,
        "signatures": described_signatures(folder),
    }
    keys, ids = graph.vocabulary
    if keys:
        contract["vocabulary_sha256"] = vocabulary_sha256((key.encode() for key in keys), ids)
    if graph.field_groups:
        contract["field_groups"] = graph.field_groups
    path = folder / CONTRACT_FILE
    path.parent.mkdir(exist_ok=True)
    write_json(path, contract)
    return contract
