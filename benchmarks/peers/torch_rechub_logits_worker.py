"""torch-rechub's multi-task models with random weights: their state and their logits.

{"do": "logits", "network": {...}, "ids": FILE, "numbers": FILE, "seed": N, "into": FILE}
    -> {"about": TEXT}; the file holds `state/<name>`, `logits` (N, T) and `scores` (N, outputs).
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.peers.protocol import answer_lines
from benchmarks.peers.task_network import TaskNetwork, random_state
from benchmarks.peers.torch_rechub_models import inputs_of, model_of, towers_of


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Carries out one request."""
    network = TaskNetwork.from_json(request["network"])
    model = model_of(network).double()
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    state = random_state(shapes, request["seed"])
    model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    model.eval()
    towers = towers_of(network, model)
    logits: dict[nn.Module, torch.Tensor] = {}
    for tower in towers:
        tower.register_forward_hook(lambda module, _, output: logits.update({module: output}))
    with torch.no_grad():
        ids, numbers = np.load(request["ids"]), np.load(request["numbers"])
        scores = model(inputs_of(network, ids, numbers))
    every = torch.cat([logits[tower] for tower in towers], dim=1)  # (N, T)
    found = {"logits": every.numpy(), "scores": scores.numpy()}
    np.savez(Path(request["into"]), **found, **{f"state/{k}": v for k, v in state.items()})
    return {"about": f"torch {torch.__version__}, torch-rechub {version('torch-rechub')}"}


if __name__ == "__main__":
    answer_lines(answer)
