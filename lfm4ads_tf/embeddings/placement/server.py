"""Whether a variable lies on a parameter server."""

from __future__ import annotations

import tensorflow as tf

JOB = "ps"
"""TensorFlow's name of the job of the parameter servers."""


def on_server(variable: tf.Variable) -> bool:
    """Whether a variable lies on a parameter server, so that its rows travel over a network.

    Args:
        variable: A variable, not one that is made of several.

    Returns:
        False for every variable of a process that joined no cluster.
    """
    return bool(tf.DeviceSpec.from_string(variable.device).job == JOB)
