"""Adding a bias, alone or below an activation, with fewer passes over memory in training."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from lfm4ads_tf.kernels.library import library


def add_bias(values: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """values + bias.

    Args:
        values: (B, d).
        bias: (d,).

    Returns:
        (B, d).
    """
    ops = library()
    if ops is None or values.dtype != tf.float32 or len(values.shape) != 2:
        return tf.nn.bias_add(values, bias)

    @tf.custom_gradient
    def add(x: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return upstream, ops.lfm4ads_column_sums(x=upstream)

        return tf.nn.bias_add(x, b), grad

    return add(values, tf.convert_to_tensor(bias))


def biased_relu(values: tf.Tensor, bias: tf.Tensor, *, training: bool = False) -> tf.Tensor:
    """max(values + bias, 0), in training one pass over memory and one for both gradients.

    Args:
        values: (B, d), or (n, B, d) of a stack of products.
        bias: (d,), or (n, 1, d).
        training: Whether the compiled kernel may be used; an exported graph holds none.

    Returns:
        The shape of the values.
    """
    ops = library() if training else None
    if ops is None or values.dtype != tf.float32:
        return tf.nn.relu(_biased(values, bias))

    @tf.custom_gradient
    def activated(x: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, Any]:
        y = ops.lfm4ads_bias_relu(x=x, b=b)

        def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            dx, db = ops.lfm4ads_bias_relu_grad(dy=upstream, y=y)
            return dx, db

        return y, grad

    return activated(values, tf.convert_to_tensor(bias))


def biased_gelu(values: tf.Tensor, bias: tf.Tensor, *, training: bool = False) -> tf.Tensor:
    """h P(h) with h = values + bias and P the normal distribution's function.

    In training one pass over memory and one for both gradients. P is then off by at most 1.5e-7:
    as many digits as a float32 has near 1, not the same bits as TensorFlow's.

    Args:
        values: (B, d), or (n, B, d) of a stack of products.
        bias: (d,), or (n, 1, d).
        training: Whether the compiled kernel may be used; an exported graph holds none.

    Returns:
        The shape of the values.

    Source: Hendrycks and Gimpel, Gaussian Error Linear Units (2016), the exact form.
    """
    ops = library() if training else None
    if ops is None or values.dtype != tf.float32:
        return _gelu(_biased(values, bias))

    @tf.custom_gradient
    def activated(x: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            dx, db = ops.lfm4ads_bias_gelu_grad(dy=upstream, x=x, b=b)
            return dx, db

        return ops.lfm4ads_bias_gelu(x=x, b=b), grad

    return activated(values, tf.convert_to_tensor(bias))


def _gelu(values: tf.Tensor) -> tf.Tensor:
    """h P(h) = h/2 + h/2 erf(h / sqrt 2); TensorFlow's own is by erfc, which takes twice as long.

    Where P nears 0 a term cancels the other one, to within the rounding of h.
    """
    half = 0.5 * values
    return half + half * tf.math.erf(math.sqrt(0.5) * values)


def _biased(values: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """values + bias by TensorFlow's own ops."""
    return tf.nn.bias_add(values, bias) if len(values.shape) == 2 else values + bias
