"""An upstream that trains representations by their dot product."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol, runtime_checkable

from lfm4ads_tf.models.upstream_config import UpstreamConfig


@runtime_checkable
class DotProductUpstream(Protocol):
    """An `UpstreamModel` with a loss of <a, b> itself, a of the user and b of the item.

    Only then do equal coordinates of a and b mean the same. Two towers below an interaction block
    are not trained so, nor are a and b with projections of their own between them and the product.
    """

    @classmethod
    def dot_product_pairs(cls, config: UpstreamConfig) -> Collection[tuple[str, str]]:
        """Names of the representations a and b of each such loss, such as `("UR", "IR")`.

        Args:
            config: The upstream's configuration.
        """
