"""Losses by the name that a configuration gives them."""

from __future__ import annotations

from lfm4ads_tf.losses.loss import Loss
from lfm4ads_tf.registry import Registry

LOSSES: Registry[Loss] = Registry("loss", {"bce": "lfm4ads_tf.losses.masked_bce:masked_bce"})
"""Name -> `Loss`; a loss of one's own is added with `@LOSSES.register("name")`."""
