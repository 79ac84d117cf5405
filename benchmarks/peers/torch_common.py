"""What the PyTorch workers share."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from benchmarks.peers.networks import Kernel


def use_threads(count: int) -> None:
    """Sets the threads of one operation; the backward pass runs on the calling thread."""
    torch.set_num_threads(count)
    if torch.get_num_interop_threads() != 1:  # can be set once, before anything runs in parallel
        torch.set_num_interop_threads(1)


def kernels_of(parameters: Iterable[nn.Parameter]) -> list[Kernel]:
    """(inputs, outputs) of the matrices among a module's dense parameters."""
    return [(p.shape[1], p.shape[0]) for p in parameters if p.dim() == 2]
