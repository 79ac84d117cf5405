"""A copy of a model whose tables are merged into one variable per width, of a type for serving."""

from __future__ import annotations

from collections.abc import Callable

import tf_keras

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import ServedStorage
from lfm4ads_tf.embeddings.table import ShardedEmbedding
from lfm4ads_tf.embeddings.transplant import transplant
from lfm4ads_tf.errors import ExportRefused, UserError
from lfm4ads_tf.models.model_parts import ModelParts

Rebuild = Callable[[int, ServedStorage], tf_keras.Model]
"""Shards, storage -> a new model of the same configuration, with tables for inference."""

TOLERANCES: dict[ServedStorage, float] = {"float32": 0.0, "float16": 5e-4, "int8": 2e-2}
"""Type of the tables -> what they may change in an export's outputs, rounding apart: a probability
by that much, other numbers by that share of their magnitude, see `Evaluation`."""


def merged_model(
    model: tf_keras.Model,
    rebuild: Rebuild | None,
    batch: EncodedBatch,
    storage: ServedStorage = "float32",
) -> tf_keras.Model:
    """Returns the model itself when its tables are whole, else a copy with merged tables.

    Tables are whole when each width is one variable of the wanted type. All other variables of a
    copy equal the model's.

    Args:
        model: An upstream or DownstreamModel, already called once.
        rebuild: Makes the model anew with whole tables; needed when the model's are not.
        batch: Any batch; calling the copy with it creates its variables.
        storage: Type of the tables.

    Raises:
        ExportRefused: A value of a table cannot be kept in this type.
        ValueError: Tables are not whole and there is no `rebuild`, or it makes another model.
    """
    trained = ModelParts(model)
    split = [layer for layer in trained.embeddings.values() if not _is_whole(layer, storage)]
    if not split:
        return model
    if rebuild is None:
        tables = f"{split[0].shards} shards of {', '.join(split[0].physical)}"
        raise ValueError(f"The tables are not whole ({tables}), so `rebuild` is needed.")
    copy = rebuild(1, storage)
    copy(batch, training=False)
    merged = ModelParts(copy)
    for path, layer in merged.embeddings.items():
        if not _is_whole(layer, storage):
            raise ValueError(f"`rebuild` made a model whose tables are not whole {storage} ones.")
        copy_tables(trained.embeddings[path], layer)
    old, new = trained.dense, merged.dense
    # the trained model may hold more, such as its optimizer's slots
    other = [path for path, v in new.items() if path not in old or old[path].shape != v.shape]
    if other:
        raise ValueError(f"`rebuild` made a model with other variables: {', '.join(other)}.")
    for path, variable in new.items():
        variable.assign(old[path])
    return copy


def copy_tables(source: ShardedEmbedding, target: ShardedEmbedding) -> None:
    """Copies trained tables into those of an export, slice by slice.

    Raises:
        ExportRefused: A value cannot be kept in the type of the export's tables.
    """
    try:
        transplant(source, target)
    except UserError as error:
        reason = "; ".join(str(error).splitlines())
        raise ExportRefused(f"its embedding tables cannot be copied: {reason}") from error


def _is_whole(embeddings: ShardedEmbedding, storage: ServedStorage) -> bool:
    """Whether each width is one variable of this type."""
    fused = embeddings.layout.fused.values()
    return (
        embeddings.shards == 1
        and len(fused) == len(embeddings.dims)
        and all(table.storage == storage for table in fused)
    )
