"""Losses by the name that a configuration gives them."""

from __future__ import annotations

from typing import Any

from lfm4ads_tf.registry import Registry

LOSSES: Registry[Any] = Registry("loss", {"bce": "lfm4ads_tf.losses.masked_bce:masked_bce"})
"""Name -> `Loss`; a loss of one's own is added with `@LOSSES.register("name")`."""
