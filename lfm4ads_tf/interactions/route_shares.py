"""How many experts the routes of tokens use."""

from __future__ import annotations

import tensorflow as tf


def route_shares(routes: tf.Tensor) -> dict[str, tf.Tensor]:
    """Which of the routes G of a network are above 0.

        active  share of a row's routes that are
        passed  share of a row's tokens of which none is: they pass by the residual alone
        silent  share of the experts that no row of the batch uses, alike for each of its rows

    The mean of `silent` over batches is at least the share of the experts that are dead on all of
    their rows together.

    Args:
        routes: G, (N, B, e).

    Returns:
        Name -> (B,) of the routes' type.
    """
    fires = routes > 0.0
    silent = tf.cast(~tf.reduce_any(fires, axis=1), routes.dtype)  # (N, e)
    return {
        "active": tf.reduce_mean(tf.cast(fires, routes.dtype), axis=[0, 2]),
        "passed": tf.reduce_mean(
            tf.cast(~tf.reduce_any(fires, axis=2), routes.dtype),
            axis=0,
        ),
        "silent": tf.fill(tf.shape(routes)[1:2], tf.reduce_mean(silent)),
    }
