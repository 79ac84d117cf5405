"""A training whose loss is no number any more."""

from __future__ import annotations

from lfm4ads_tf.errors import UserError


class Divergence(UserError):
    """A loss that is not finite: told apart where other learning rates are tried anyway."""
