"""Experts, each over one of several sets of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from lfm4ads_tf.kernels.bias import biased_relu
from lfm4ads_tf.precision import product
from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.seeding import glorot


class ExpertBank(Rebuildable, tf_keras.layers.Layer):
    """f_e = relu(W_{e,n} ... relu(W_{e,1} x^{k(e)} + b_{e,1}) ... + b_{e,n}) for n experts.

    Expert e reads the set k(e) of its inputs. Where all read the same inputs, the first layers are
    one matrix product; with several sets they are one batched product over the sets, as a deeper
    layer is over the experts, and one more for each set that several experts read. Each W starts as
    a Glorot-uniform matrix of its own, whose values depend on seed, name and number of the expert:
    one more leaves the others' as they are.

    Args:
        reads: For each expert, the set that it reads, counted from 0; all 0 where there is one.
        units: Width of each layer of an expert, at least one; the last one is h.
        seed: Seed of the initial weights.

    Raises:
        ValueError: There is no expert or no layer, or a set is counted below 0.
    """

    def __init__(
        self, reads: Sequence[int], units: Sequence[int], *, seed: int = 0, name: str = "experts"
    ) -> None:
        super().__init__(name=name)
        if not units:
            raise ValueError("An expert needs at least one layer.")
        if not reads or min(reads) < 0:
            raise ValueError(f"Experts read sets that are counted from 0, not {list(reads)}.")
        self._reads = np.array(reads)  # no list: Keras would make it a part of checkpoints
        self.experts = len(reads)
        self.units = list(units)
        self.seed = seed

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the weights for the inputs' width.

        Raises:
            ValueError: An expert reads a set that the inputs do not have.
        """
        sets = int(input_shape[0]) if len(input_shape) == 3 else 1
        if self._reads.max() >= sets:
            raise ValueError(f"An expert reads set {self._reads.max()} of inputs that have {sets}.")
        width, first = int(input_shape[-1]), self.units[0]
        names = [f"{self.name}/expert_{e}" for e in range(self.experts)]
        if sets == 1:
            # (d, n h_1 + more): expert by expert
            initial = tf.concat(
                [glorot(self.seed, f"{n}/1")((width, first)) for n in names]
                + self.columns_beside(width),
                axis=-1,
            )
            bias: tuple[int, ...] = (self.experts * first,)
        else:
            initial = stacked_glorot(self.seed, [f"{n}/1" for n in names], (width, first))
            bias = (self.experts, 1, first)
        self.kernel = self.add_weight(
            name="kernel", shape=initial.shape, initializer=constant(initial)
        )
        self.bias = self.add_weight(name="bias", shape=bias, initializer="zeros")
        self.deeper: list[tuple[tf.Variable, tf.Variable]] = []
        pairs = zip(self.units[:-1], self.units[1:], strict=True)
        for k, (below, above) in enumerate(pairs, start=2):
            initial = stacked_glorot(self.seed, [f"{n}/{k}" for n in names], (below, above))
            kernel = self.add_weight(
                name=f"kernel_{k}", shape=initial.shape, initializer=constant(initial)
            )  # (n, h_{k-1}, h_k)
            layer_bias = self.add_weight(
                name=f"bias_{k}", shape=(self.experts, 1, above), initializer="zeros"
            )
            self.deeper.append((kernel, layer_bias))
        super().build(input_shape)

    def columns_beside(self, width: int) -> list[tf.Tensor]:
        """Initial values of further columns of the first product, each (d, .); here none.

        A layer that multiplies the same inputs by more, such as gates, has it done in the experts'
        product; `outputs_and_beside` gives what they make. Not called with several sets.

        Args:
            width: Width d of the inputs.
        """
        return []

    def outputs_and_beside(
        self, inputs: tf.Tensor, training: bool = False, columns: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """What the experts give, and the products of the columns beside them.

        Args:
            inputs: x, (B, d), or the sets (K, B, d).
            training: Whether compiled kernels may be used; an exported graph holds none.
            columns: With several sets, what each of them is multiplied by too, (K, d, c): the sets
                are read once for both.

        Returns:
            (B, n, h); and those of `columns_beside` (B, .), of `columns` (K, B, c), or None.
        """
        first, beside = self.experts * self.units[0], None
        if len(self.kernel.shape) == 2:
            stream = inputs[0] if len(inputs.shape) == 3 else inputs  # (B, d)
            hidden = product(stream, self.kernel)  # (B, n h_1 + more)
            more = self.kernel.shape[-1] - first
            if more:
                hidden, beside = tf.split(hidden, [first, more], axis=-1)
            hidden = biased_relu(hidden, self.bias, training=training)  # (B, n h_1)
            hidden = tf.reshape(hidden, [-1, self.experts, self.units[0]])  # (B, n, h_1)
            if not self.deeper:
                return hidden, beside
            hidden = tf.transpose(hidden, [1, 0, 2])  # (n, B, h_1)
        else:
            hidden, beside = self._of_sets(inputs, columns)  # (n, B, h_1), (K, B, c)
            hidden = biased_relu(hidden, self.bias, training=training)
        for kernel, bias in self.deeper:
            hidden = biased_relu(product(hidden, kernel), bias, training=training)  # (n, B, h_k)
        return tf.transpose(hidden, [1, 0, 2]), beside  # (B, n, h)

    def _of_sets(
        self, sets: tf.Tensor, columns: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """W_{e,1} x^{k(e)} of every expert, (n, B, h_1), and the columns' products (K, B, c)."""
        readers = [np.flatnonzero(self._reads == k).tolist() for k in range(sets.shape[0])]
        if not all(readers):
            read = tf.stack([sets[k] for k in self._reads])  # (n, B, d)
            return product(read, self.kernel), None if columns is None else product(sets, columns)
        again = {k: experts[1:] for k, experts in enumerate(readers) if len(experts) > 1}
        first, kernel = [experts[0] for experts in readers], self.kernel
        kernels: list[tf.Tensor] = []
        if first != list(range(self.experts)):
            kernels = tf.unstack(tf.convert_to_tensor(kernel))  # n of (d, h_1)
            kernel = tf.stack([kernels[e] for e in first])
        if columns is not None:
            kernel = tf.concat([kernel, columns], axis=-1)
        sets, *more = _with_copies(sets, list(again)) if again else [sets]
        hidden, beside = product(sets, kernel), None  # (K, B, h_1 + c)
        if columns is not None:
            hidden, beside = tf.split(hidden, [self.units[0], -1], axis=-1)
        if not kernels:
            return hidden, beside
        outputs = dict(zip(first, tf.unstack(hidden), strict=True))
        for experts, read in zip(again.values(), more, strict=True):
            wide = product(read, tf.concat([kernels[e] for e in experts], axis=-1))  # (B, m h_1)
            outputs |= zip(experts, tf.split(wide, len(experts), axis=-1), strict=True)
        return tf.stack([outputs[e] for e in range(self.experts)]), beside

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Runs the experts.

        Args:
            inputs: x, (B, d), or the sets (K, B, d).
            training: Whether compiled kernels may be used; an exported graph holds none.

        Returns:
            (B, n, h).
        """
        return self.outputs_and_beside(inputs, training)[0]


def _with_copies(sets: tf.Tensor, again: Sequence[int]) -> list[tf.Tensor]:
    """The sets, and some of them alone; a gradient of one is added to it and to no other."""

    @tf.custom_gradient
    def copied(x: tf.Tensor) -> tuple[list[tf.Tensor], Any]:
        def grad(of_all: tf.Tensor, *of_some: tf.Tensor) -> tf.Tensor:
            each = tf.unstack(of_all)
            for k, one in zip(again, of_some, strict=True):
                each[k] += one
            return tf.stack(each)

        return [tf.identity(x), *[x[k] for k in again]], grad

    found: list[tf.Tensor] = copied(sets)
    return found


def stacked_glorot(seed: int, names: Sequence[str], shape: tuple[int, int]) -> tf.Tensor:
    """One Glorot-uniform matrix per name, each of its own scale and values, (N, *shape)."""
    return tf.stack([glorot(seed, name)(shape) for name in names])


def constant(value: tf.Tensor) -> Any:
    """An initialiser that gives these values."""
    return lambda shape, dtype=None, **_: tf.cast(value, dtype or value.dtype)
