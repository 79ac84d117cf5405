"""PyTorch's default initial values, which decide much of the public experiment's result."""

from __future__ import annotations

import numpy as np


def embedding_values(draw: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    """N(0, 1), the default of an embedding table.

    Args:
        draw: Source of random numbers.
        rows, dim: Size of the table.

    Returns:
        (rows, dim) float32.
    """
    return draw.standard_normal((rows, dim), np.float32)


def linear_values(
    draw: np.random.Generator, inputs: int, outputs: int
) -> tuple[np.ndarray, np.ndarray]:
    """U(-1 / sqrt(inputs), 1 / sqrt(inputs)) for weights and bias, the default of a linear layer.

    It is the Kaiming-uniform rule with a slope of sqrt(5).

    Args:
        draw: Source of random numbers.
        inputs, outputs: Widths of the layer.

    Returns:
        Kernel (inputs, outputs) and bias (outputs,), float32.
    """
    bound = 1.0 / np.sqrt(inputs)
    kernel = draw.uniform(-bound, bound, (inputs, outputs)).astype(np.float32)
    return kernel, draw.uniform(-bound, bound, outputs).astype(np.float32)
