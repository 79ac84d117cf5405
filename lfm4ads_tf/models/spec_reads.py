"""What a model's interaction block will read of a feature spec."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.tables import embedded_features, is_bag
from lfm4ads_tf.interactions.block_reads import BlockReads


def block_reads(spec: FeatureSpec, sets: int, omit: Sequence[str] = ()) -> BlockReads:
    """Fields, which of them are multi-valued, numbers, sets and tasks.

    Args:
        spec: The feature spec.
        sets: Sets of the embeddings.
        omit: Names or patterns of features that the model does not read.
    """
    read = [n for n in spec.features if not any(fnmatchcase(n, pattern) for pattern in omit)]
    embedded = set(embedded_features(spec))
    fields = [name for name in read if name in embedded]
    return BlockReads(
        fields,
        numbers=len(fields) < len(read),
        sets=sets,
        tasks=spec.task_names,
        multi_valued=[name for name in fields if is_bag(spec.features[name])],
    )
