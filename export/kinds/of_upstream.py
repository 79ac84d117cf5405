"""What the kinds of exports of an upstream share."""

from __future__ import annotations

from typing import Any, ClassVar

from lfm4ads_tf.export.kinds.kind import ExportKind
from lfm4ads_tf.models.upstream import UpstreamModel


class OfUpstream(ExportKind):
    """A kind that takes every upstream, and reads no stored representation."""

    of_upstream: ClassVar[bool] = True

    def takes(self, model: Any) -> bool:
        """See `ExportKind`."""
        return isinstance(model, UpstreamModel)

    def sources(self, model: Any) -> list[str]:
        """See `ExportKind`."""
        return []
