"""What the columns of an activation mean, and kernels that are carried over by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tf_keras

Label = tuple[str, int]
"""A column of an activation: what it comes from, and its position in that."""

Columns = tuple[list[Label], list[Label]]
"""Labels of an activation's columns, in the model that weights come from and in the other one."""


@dataclass
class Carried:
    """What was carried over from one model to another.

    Attributes:
        layers: Part (`towers`, an activation, `gates`, `heads`) -> layers that hold its weights.
    """

    layers: dict[str, list[tf_keras.layers.Layer]] = field(default_factory=dict)

    def add(self, part: str, layer: tf_keras.layers.Layer) -> None:
        """Notes a layer."""
        self.layers.setdefault(part, []).append(layer)

    def freeze(self) -> None:
        """Takes the carried weights outside of tables out of training."""
        for layers in self.layers.values():
            for layer in layers:
                layer.trainable = False

    def rates(self, rates: Mapping[str, float]) -> dict[str, float]:
        """Path of each carried variable -> factor of its learning rate, where there is one.

        Args:
            rates: Part -> factor; `block` is for the block's parts that are not named.
        """
        by_path: dict[str, float] = {}
        for part, layers in self.layers.items():
            of_block = rates.get("block") if part not in ("towers", "heads") else None
            rate = rates.get(part, of_block)
            if rate is not None:
                for layer in layers:
                    by_path |= {v.name.split(":")[0]: rate for v in layer.trainable_variables}
        return by_path


def same_columns(name: str, width: int) -> Columns:
    """Columns of an output of `width` that mean the same in both models."""
    labels = [(name, j) for j in range(width)]
    return labels, labels


def joined_columns(*parts: Columns) -> Columns:
    """Columns of outputs side by side."""
    return [x for old, _ in parts for x in old], [x for _, new in parts for x in new]


def shared_columns(columns: Columns) -> tuple[list[int], list[int]]:
    """Positions of the labels that both models have, in each."""
    position = {label: i for i, label in enumerate(columns[0])}
    shared = [(position[label], j) for j, label in enumerate(columns[1]) if label in position]
    return [i for i, _ in shared], [j for _, j in shared]


def carry_kernel(source: Any, target: Any, rows: Columns, columns: Columns) -> None:
    """Copies a kernel (inputs, outputs) by the labels of both; other inputs get zeros.

        W'[r, c] = W[r, c] for the shared inputs r and outputs c; W'[r', c] = 0 for other inputs r'

    Args:
        source: A matrix or variable.
        target: The variable that is assigned; outputs that only it has keep their weights.
        rows: Columns of the input.
        columns: Columns of the output.
    """
    old_rows, new_rows = shared_columns(rows)
    old_columns, new_columns = shared_columns(columns)
    values = np.array(target)
    values[:, new_columns] = 0.0
    values[np.ix_(new_rows, new_columns)] = np.array(source)[np.ix_(old_rows, old_columns)]
    target.assign(values)


def carry_bias(source: Any, target: Any, columns: Columns) -> None:
    """Copies a bias (outputs,) by the labels of the output."""
    before, behind = shared_columns(columns)
    values = np.array(target)
    values[behind] = np.array(source)[before]
    target.assign(values)


def carry_dense(source: Any, target: Any, rows: Columns, columns: Columns) -> None:
    """Copies a `Dense` layer, see `carry_kernel`."""
    carry_kernel(source.kernel, target.kernel, rows, columns)
    if source.use_bias:
        carry_bias(source.bias, target.bias, columns)
