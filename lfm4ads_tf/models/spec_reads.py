"""What a model's interaction block will read of a feature spec, or of an encoded batch."""

from __future__ import annotations

from collections.abc import Sequence

from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.tables import embedded_features, is_bag
from lfm4ads_tf.interactions.block_reads import BlockReads


def block_reads(spec: FeatureSpec, sets: int = 1, omit: Sequence[str] = ()) -> BlockReads:
    """Fields, which of them are multi-valued, numbers, sets and tasks.

    Args:
        spec: The feature spec.
        sets: Sets of the embeddings.
        omit: Names or patterns of features that the model does not read.
    """
    embedded = embedded_features(spec)
    return BlockReads(
        embedded,
        numbers=[name for name in spec.features if name not in embedded],
        sets=sets,
        tasks=spec.task_names,
        multi_valued=[name for name in embedded if is_bag(spec.features[name])],
        owners={name: feature.owner for name, feature in spec.features.items()},
    ).without(omit)


def layout_reads(layout: FeatureLayout) -> BlockReads:
    """The same of a layout, of one set."""
    return BlockReads(
        [field.name for field in layout.fields],
        numbers=[dense.name for dense in layout.dense],
        tasks=layout.tasks,
        multi_valued=[field.name for field in layout.bags],
        owners={f.name: f.owner for f in layout.fields} | {d.name: d.owner for d in layout.dense},
    )
