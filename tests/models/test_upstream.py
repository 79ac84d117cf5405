"""What every upstream model must say of itself."""

from __future__ import annotations

import pytest
import tensorflow as tf

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.models.foundation import FoundationModel


def test_probabilities_of_ones_own_are_no_sigmoids() -> None:
    """What an export may differ by is told in logits where they are."""

    def product(self: FoundationModel, logits: tf.Tensor) -> tf.Tensor:
        return tf.math.cumprod(tf.sigmoid(logits), axis=1)

    with pytest.raises(UserError, match=r"set Product.sigmoid = False"):
        type("Product", (FoundationModel,), {"probabilities": product})
    told = type("Product", (FoundationModel,), {"probabilities": product, "sigmoid": False})
    further = type("Further", (told,), {})
    assert not further.sigmoid
    assert type("Same", (FoundationModel,), {}).sigmoid
