"""The networks that are compared, and the floating-point operations of a training step of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Kernel = tuple[int, int]
"""(inputs, outputs) of one matrix of weights."""


@dataclass(frozen=True)
class Network:
    """One network over single-valued categorical features.

    dcnv2: x_0 = [e_1 ... e_F]; x_{l+1} = x_0 * (U V x_l + b) + x_l (or a full matrix); an MLP on
    x_L (stacked), or on x_0 with its output beside x_L (parallel); one logit per task.
    mmoe: expert MLPs on x_0; per task a softmax gate on x_0, a tower, one logit.
    ple: levels of expert MLPs, some of each task and some shared; per level and task a softmax gate
    over the task's own and the shared ones, and below the last level a shared one over all; per
    task a tower and one logit.

    Attributes:
        model: Kind of network.
        features: Categorical features F.
        rows: Rows of each feature's table.
        dim: Width of an embedding.
        tasks: Binary tasks.
        units: Hidden units of the MLP, or of each expert.
        cross_depth: Cross layers.
        cross_rank: Rank of a cross layer's matrix; None for a full one.
        structure: Where the MLP stands.
        experts: Number of experts of mmoe.
        tower: Hidden units of each task's tower.
        levels: Levels of ple.
        own: Experts of each task in a level of ple.
        shared: Shared experts in a level of ple.
    """

    model: Literal["dcnv2", "mmoe", "ple"]
    features: int = 40
    rows: int = 25_000
    dim: int = 16
    tasks: int = 3
    units: tuple[int, ...] = (256, 128)
    cross_depth: int = 2
    cross_rank: int | None = 64
    structure: Literal["stacked", "parallel"] = "stacked"
    experts: int = 4
    tower: tuple[int, ...] = (64,)
    levels: int = 2
    own: int = 1
    shared: int = 2

    @property
    def width(self) -> int:
        """Width of x_0."""
        return self.features * self.dim

    def kernels(self) -> list[Kernel]:
        """Every matrix of weights that a row is multiplied with."""
        tower = _chain(self.units[-1], (*self.tower, 1))
        if self.model == "mmoe":
            gate = (self.width, self.experts)
            return self.experts * _chain(self.width, self.units) + self.tasks * [gate, *tower]
        if self.model == "ple":
            kernels = self.tasks * tower
            for level in range(self.levels):
                below = self.units[-1] if level else self.width
                every = self.tasks * self.own + self.shared
                kernels += every * _chain(below, self.units)
                kernels += self.tasks * [(below, self.own + self.shared)]
                if level < self.levels - 1:
                    kernels.append((below, every))
            return kernels
        rank = self.cross_rank
        cross = [(self.width, self.width)] if rank is None else []
        cross = cross if rank is None else [(self.width, rank), (rank, self.width)]
        deep = self.units[-1] + (self.width if self.structure == "parallel" else 0)
        return self.cross_depth * cross + _chain(self.width, self.units) + [(deep, self.tasks)]

    def to_json(self) -> dict[str, Any]:
        """Plain values, read back by `from_json`; also by that of a checkout without ple."""
        of_ple = ("levels", "own", "shared")
        return {k: v for k, v in asdict(self).items() if self.model == "ple" or k not in of_ple}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Network:
        """Rebuilds what `to_json` gave."""
        return cls(**{**data, "units": tuple(data["units"]), "tower": tuple(data["tower"])})


def flops(kernels: Iterable[Kernel]) -> int:
    """Operations per example of one training step: sum over the kernels of 3 * 2 * m * n.

    A product with an (m, n) kernel costs m * n multiplications and as many additions, three times:
    forward, gradient of its input, gradient of the kernel. Look-ups, element-wise work, the
    experts' mixture and the optimizers are not counted.
    """
    return sum(6 * m * n for m, n in kernels)


def _chain(inputs: int, units: tuple[int, ...]) -> list[Kernel]:
    widths = (inputs, *units)
    return list(zip(widths[:-1], widths[1:], strict=True))


REFERENCE = {"DCNv2": Network("dcnv2"), "MMoE": Network("mmoe"), "PLE": Network("ple")}
"""Model -> the network that `ours` is measured on, and `matmul_share` with it."""

_FULL = replace(REFERENCE["DCNv2"], cross_rank=None, structure="parallel", tasks=1)

NETWORKS: dict[str, dict[str, Network | str]] = {
    "DCNv2": {
        "torchrec": REFERENCE["DCNv2"],
        "tfrs": REFERENCE["DCNv2"],
        "keras_rs": REFERENCE["DCNv2"],
        "deepctr": _FULL,
        "torch_rechub": _FULL,
    },
    "MMoE": {
        "torchrec": "TorchRec has no multi-gate mixture of experts",
        "tfrs": "TensorFlow Recommenders has no multi-gate mixture of experts",
        "keras_rs": "keras-rs has no multi-gate mixture of experts",
        "deepctr": REFERENCE["MMoE"],
        "torch_rechub": REFERENCE["MMoE"],
    },
    "PLE": {
        "torchrec": "TorchRec has no progressive layered extraction",
        "tfrs": "TensorFlow Recommenders has no progressive layered extraction",
        "keras_rs": "keras-rs has no progressive layered extraction",
        "deepctr": REFERENCE["PLE"],
        "torch_rechub": REFERENCE["PLE"],
    },
}
"""Model -> peer -> the network that the peer's own model is, or why it has none."""
