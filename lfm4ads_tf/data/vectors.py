"""The columns of vectors as the data settled them: found once, kept in the cache's manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lfm4ads_tf.data.raw import table_headers
from lfm4ads_tf.features.kinds import PretrainedFeature
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.vector_columns import (
    is_settled,
    settled_vectors,
    vectors_of,
    with_vectors,
)

_ENTRY = "vectors"


def settle(spec: FeatureSpec, folder: Path) -> FeatureSpec:
    """The spec with the columns of its vectors, as the headers of its tables have them.

    Args:
        spec: The feature spec.
        folder: Folder of the data files.

    Raises:
        UserError: A pattern matches no column, or a column that is no part of a vector.
    """
    if not any(isinstance(f, PretrainedFeature) and f.columns for f in spec.features.values()):
        return spec
    return with_vectors(spec, vectors_of(spec, table_headers(spec, folder)))


def vector_facts(spec: FeatureSpec) -> dict[str, Any]:
    """What the manifest of a cache says of vectors: feature -> columns; nothing without them."""
    vectors = settled_vectors(spec)
    return {_ENTRY: vectors} if vectors else {}


def settled_by(spec: FeatureSpec, data: Path) -> FeatureSpec | None:
    """The spec with the columns of its vectors as encoded data had them.

    Args:
        spec: The feature spec.
        data: `OUT/data`.

    Returns:
        The spec, None where a pattern is not settled because there are no data yet.
    """
    if is_settled(spec):
        return spec
    manifest = data / "manifest.json"
    if not manifest.exists():
        return None
    return with_vectors(spec, json.loads(manifest.read_text("utf-8"))[_ENTRY])
