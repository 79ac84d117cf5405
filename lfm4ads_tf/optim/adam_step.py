"""Adam on dense variables: one compiled op a device where the kernels are built, else one each."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from lfm4ads_tf.embeddings.placement.server import on_server
from lfm4ads_tf.kernels.library import library


def adam_step(
    variables: Sequence[tf.Variable],
    first_moments: Sequence[tf.Variable],
    second_moments: Sequence[tf.Variable],
    gradients: Sequence[tf.Tensor],
    learning_rates: Sequence[tf.Tensor],
    decays: Sequence[float],
    *,
    step: tf.Tensor,
    beta_1: float,
    beta_2: float,
    epsilon: float,
) -> None:
    """w <- w - lr decay w, then Adam's step with epsilon outside the bias correction, in place.

    Args:
        variables, first_moments, second_moments: w, m and v, alike in shape.
        gradients: g, shaped like w.
        learning_rates: One () float32 per variable.
        decays: Decoupled weight decay of each variable.
        step: t, () float32, counted from 1.
        beta_1, beta_2, epsilon: Adam's constants.
    """
    ops = library()
    if ops is not None and all(v.dtype == tf.float32 for v in variables):
        correction = tf.sqrt(1.0 - tf.pow(beta_2, step)) / (1.0 - tf.pow(beta_1, step))
        homes: dict[str, list[int]] = {}
        for i, variable in enumerate(variables):
            homes.setdefault(variable.device, []).append(i)
        for mine in homes.values():  # an op runs where its variables lie
            ops.lfm4ads_adam_step(
                variables=[variables[i].handle for i in mine],
                first_moments=[first_moments[i].handle for i in mine],
                second_moments=[second_moments[i].handle for i in mine],
                gradients=[gradients[i] for i in mine],
                learning_rates=tf.stack([learning_rates[i] for i in mine]),
                correction=correction,
                decays=[decays[i] for i in mine],
                beta_1=beta_1,
                beta_2=beta_2,
                epsilon=epsilon,
            )
        return
    for w, m, v, gradient, rate, decay in zip(
        variables, first_moments, second_moments, gradients, learning_rates, decays, strict=True
    ):
        if decay:
            w.assign_sub(rate * decay * w)
        tf.raw_ops.ResourceApplyAdam(
            var=w.handle,
            m=m.handle,
            v=v.handle,
            beta1_power=tf.pow(beta_1, step),
            beta2_power=tf.pow(beta_2, step),
            lr=rate,
            beta1=beta_1,
            beta2=beta_2,
            epsilon=epsilon,
            grad=gradient,
            use_locking=on_server(w),  # several workers move it at once
        )
