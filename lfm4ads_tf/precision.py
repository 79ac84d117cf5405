"""Matrix products of the dense layers in bfloat16, while a training step is traced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Literal

import numpy as np
import tensorflow as tf
import tf_keras

Precision = Literal["float32", "mixed_bfloat16"]

SMALLEST = 64
"""A kernel with a shorter side stays in float32: casts would cost what the product gains."""

_active: ContextVar[Precision] = ContextVar("precision", default="float32")


@contextmanager
def training_precision(precision: Precision) -> Iterator[None]:
    """Products of dense layers that are traced inside are of this precision.

    Nothing but a training step is traced inside, so that evaluation, extraction and exports of the
    same model and the same float32 variables compute in float32.
    """
    token = _active.set(precision)
    try:
        yield
    finally:
        _active.reset(token)


def in_bfloat16() -> bool:
    """Whether products of wide kernels that are traced now are rounded to bfloat16."""
    return _active.get() == "mixed_bfloat16"


def product(inputs: tf.Tensor, kernel: Any) -> tf.Tensor:
    """inputs @ kernel in the precision of the step.

    In mixed precision the operands of the product and of both its gradients are rounded to
    bfloat16 and sums are float32 inside the product; the results, rounded too, leave as float32.
    Where TensorFlow's own bfloat16 product rounds its partial sums, as it does on processors
    without instructions for it, the rounded operands are multiplied in float32.

    Args:
        inputs: (B, m) float32, or (E, B, m) for a stack of kernels.
        kernel: (m, n) float32 variable or tensor, or (E, m, n).

    Returns:
        (B, n) or (E, B, n) float32.
    """
    if not _rounds(inputs, kernel):
        return tf.matmul(inputs, kernel)

    multiply = _product if sums_in_float32() else _product_in_float32

    @tf.custom_gradient
    def rounded(x: tf.Tensor, w: tf.Tensor) -> tuple[tf.Tensor, Any]:
        x, w = tf.cast(x, tf.bfloat16), tf.cast(w, tf.bfloat16)

        def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            dy = tf.cast(upstream, tf.bfloat16)
            return multiply(dy, w, transpose_b=True), multiply(x, dy, transpose_a=True)

        return multiply(x, w), grad

    return rounded(inputs, tf.convert_to_tensor(kernel))


@cache
def sums_in_float32() -> bool:
    """Whether TensorFlow's product of bfloat16 matrices rounds nothing but its result here."""
    rng = np.random.default_rng(0)
    with tf.init_scope():  # computed now, also while a function is traced
        x, w = (tf.cast(rng.normal(size=s), tf.bfloat16) for s in ((64, 256), (256, 64)))
        found, exact = _product(x, w).numpy(), _product_in_float32(x, w).numpy()
    # the order of the sums seldom decides to which side the result is rounded
    return bool(np.mean(found == exact) > 0.95)


def _product(x: tf.Tensor, w: tf.Tensor, **transposed: bool) -> tf.Tensor:
    """x @ w of bfloat16 matrices, as float32."""
    return tf.cast(tf.matmul(x, w, **transposed), tf.float32)


def _product_in_float32(x: tf.Tensor, w: tf.Tensor, **transposed: bool) -> tf.Tensor:
    """The same with float32 sums on every processor."""
    wide = tf.matmul(tf.cast(x, tf.float32), tf.cast(w, tf.float32), **transposed)
    return tf.cast(tf.cast(wide, tf.bfloat16), tf.float32)


def dense(layer: tf_keras.layers.Dense, inputs: tf.Tensor) -> tf.Tensor:
    """layer(inputs), its product in the precision of the step.

    Args:
        layer: The layer.
        inputs: (B, m).

    Returns:
        (B, n).
    """
    if not layer.built or not _rounds(inputs, layer.kernel):
        return layer(inputs)
    values = product(inputs, layer.kernel)
    if layer.use_bias:
        values = tf.nn.bias_add(values, layer.bias)
    return layer.activation(values)


def _rounds(inputs: tf.Tensor, kernel: Any) -> bool:
    """Whether a product is one of bfloat16."""
    return (
        in_bfloat16()
        and inputs.dtype == kernel.dtype == tf.float32
        and len(inputs.shape) == len(kernel.shape)
        and min(kernel.shape[-2:]) >= SMALLEST
    )
