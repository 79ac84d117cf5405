"""A copy of a model whose tables are merged into one float32 variable per width."""

from __future__ import annotations

from collections.abc import Callable

import tf_keras

from lfm4ads_tf.embeddings.table import ShardedEmbedding
from lfm4ads_tf.embeddings.transplant import transplant
from lfm4ads_tf.models.batch import EncodedBatch
from lfm4ads_tf.models.model_parts import ModelParts

Rebuild = Callable[[int], tf_keras.Model]
"""Number of shards -> a new model of the same configuration, with tables for inference."""


def merged_model(
    model: tf_keras.Model, rebuild: Rebuild | None, batch: EncodedBatch
) -> tf_keras.Model:
    """Returns the model itself when its tables are whole, else a copy with merged tables.

    Tables are whole when each width is one float32 variable.

    Args:
        model: An upstream or DownstreamModel, already called once.
        rebuild: Makes the model anew with whole tables; needed when the model's are not.
        batch: Any batch; calling the copy with it creates its variables.

    Raises:
        ValueError: Tables are not whole and there is no `rebuild`, or it makes another model.
    """
    trained = ModelParts(model)
    split = [layer for layer in trained.embeddings.values() if not _is_whole(layer)]
    if not split:
        return model
    if rebuild is None:
        tables = f"{split[0].shards} shards of {', '.join(split[0].physical)}"
        raise ValueError(f"The tables are not whole ({tables}), so `rebuild` is needed.")
    copy = rebuild(1)
    copy(batch, training=False)
    merged = ModelParts(copy)
    for path, layer in merged.embeddings.items():
        transplant(trained.embeddings[path], layer)
    old, new = trained.dense, merged.dense
    # the trained model may hold more, such as its optimizer's slots
    other = [path for path, v in new.items() if path not in old or old[path].shape != v.shape]
    if other:
        raise ValueError(f"`rebuild` made a model with other variables: {', '.join(other)}.")
    for path, variable in new.items():
        variable.assign(old[path])
    return copy


def _is_whole(embeddings: ShardedEmbedding) -> bool:
    """Whether each width is one float32 variable."""
    fused = embeddings.layout.fused.values()
    return (
        embeddings.shards == 1
        and len(fused) == len(embeddings.dims)
        and all(table.storage == "float32" for table in fused)
    )
