"""A model with what its graph is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import tf_keras

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.export.merging import Rebuild
from lfm4ads_tf.export.representation_lookup import RepresentationLookup
from lfm4ads_tf.retrieval.index import Index


@dataclass(frozen=True)
class ExportSubject:
    """What is exported.

    Attributes:
        model: An upstream, a DownstreamModel or a retrieval model.
        rebuild: Makes the model with another number of shards or type of tables; needed when its
            tables are not whole float32 ones, or other ones are wanted.
        lookups: Representations that the export looks up by key; the samples hold the keys then.
        index: Of a retrieval model, the items.
    """

    model: tf_keras.Model
    rebuild: Rebuild | None = None
    lookups: Mapping[str, RepresentationLookup] = field(default_factory=dict)
    index: Index | None = None

    def called_with(self, batch: EncodedBatch) -> tf_keras.Model:
        """The model, with what is created by its first call."""
        self.model(batch, training=False)
        return self.model
