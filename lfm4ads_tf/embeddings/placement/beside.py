"""Making a variable where another one lies."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import tensorflow as tf

from lfm4ads_tf.embeddings.placement.server import on_server


def beside(variable: tf.Variable) -> AbstractContextManager[Any]:
    """A scope whose new variables lie on the parameter server of another variable.

    A strategy deals variables to its servers in turn, so it would part a variable from its slots,
    and an op that moves both has no device to run on.

    Args:
        variable: The variable that the new ones accompany.

    Returns:
        The scope; one that changes nothing where the variable lies on no server.
    """
    if not on_server(variable):
        return nullcontext()
    if not tf.distribute.has_strategy():  # an optimizer that is built outside of the scope
        return tf.device(variable.device)
    scope: AbstractContextManager[Any] = tf.distribute.get_strategy().extended.colocate_vars_with(
        variable
    )
    return scope
