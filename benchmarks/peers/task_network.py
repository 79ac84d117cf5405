"""Multi-task networks that torch-rechub has and we have too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

Model = Literal["shared_bottom", "mmoe", "ple", "aitm", "esmm"]
MODELS: tuple[Model, ...] = get_args(Model)


@dataclass(frozen=True)
class TaskNetwork:
    """One multi-task network over single-valued categorical features and numbers.

    Attributes:
        model: Kind of network, named as our upstream.
        fields: Name, owner (user, item, context in this order) and rows of each feature; ids are in
            [-1, rows), -1 being a missing one with an embedding of its own.
        numbers: Name and owner of each number; esmm reads none.
        dim: Width of an embedding.
        tasks: Binary tasks; esmm's are a funnel of two.
        units: Hidden units of the bottom or of each expert.
        tower: Hidden units of each task's tower.
        experts: Experts of mmoe.
        levels: Levels of ple.
        own: Experts of each task in a level of ple.
        shared: Shared experts in a level of ple.
    """

    model: Model
    fields: tuple[tuple[str, str, int], ...]
    numbers: tuple[tuple[str, str], ...] = ()
    dim: int = 4
    tasks: int = 2
    units: tuple[int, ...] = (16,)
    tower: tuple[int, ...] = (8,)
    experts: int = 4
    levels: int = 1
    own: int = 1
    shared: int = 1

    @property
    def columns(self) -> list[tuple[str, int]]:
        """What each input of torch-rechub's network is: all embeddings, then all numbers."""
        embedded = [(name, j) for name, _, _ in self.fields for j in range(self.dim)]
        return embedded + [(name, 0) for name, _ in self.numbers]

    def to_json(self) -> dict[str, Any]:
        """Plain values, read back by `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TaskNetwork:
        """Rebuilds what `to_json` gave."""
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        for key in ("fields", "numbers"):
            values[key] = tuple(tuple(entry) for entry in values[key])
        return cls(**values)


def random_state(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Random values for a torch module: weights, biases, and batch norm's statistics and affines.

    Args:
        shapes: Name in the module's state -> shape.
        seed: Seed of the values.

    Returns:
        Name -> float64 values; a counter stays 0. Nothing is 0 or 1 as it is when a module is made.
        Weights are large enough, and what is added small enough, for rows to differ after many
        layers.
    """
    rng = np.random.default_rng(seed)
    state: dict[str, np.ndarray] = {}
    for name, shape in shapes.items():
        if name.endswith("running_var"):
            state[name] = rng.uniform(0.3, 2.0, shape)
        elif name.endswith("num_batches_tracked"):
            state[name] = np.zeros(shape)
        elif "embed_dict" in name:
            state[name] = rng.normal(0.0, 1.0, shape)
        elif len(shape) == 2:
            state[name] = rng.normal(0.0, shape[1] ** -0.5, shape)
        elif name.endswith(".weight"):  # batch norm's factors, of both signs
            state[name] = rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)
        else:  # biases and means
            state[name] = rng.normal(0.0, 0.3, shape)
    return state
