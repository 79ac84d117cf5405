"""torch-rechub's multi-task models trained by its own trainer.

{"do": "train", "network": {...}, "rows": FOLDER, "into": FILE, "seed": N, "batch": B, "epochs": N,
 "learning_rate": X, "weight_decay": X, "threads": N}
    -> {"about": TEXT, "seconds": S, "floats": N}

The folder holds `<part>_ids.npy` (M, F), `<part>_numbers.npy` (M, N) and `train_labels.npy` (M, T)
of the parts `train`, `valid` and `test`; the file gets the probabilities after each epoch of
`valid` and `test`, (epochs, M, T).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch_rechub.trainers import MTLTrainer

from benchmarks.peers.protocol import answer_lines
from benchmarks.peers.task_network import TaskNetwork
from benchmarks.peers.torch_common import use_threads
from benchmarks.peers.torch_rechub_models import inputs_of, model_of

_SCORED = 8192  # rows at once


class Epoch:
    """Batches of all training rows in a new order; what the trainer takes for a data loader.

    The library's own loader puts a batch together row by row, which takes longer than the steps.
    """

    def __init__(self, network: TaskNetwork, rows: Path, batch: int, seed: int) -> None:
        self._network = network
        names = ("ids", "numbers", "labels")
        self._ids, self._numbers, self._labels = (np.load(rows / f"train_{n}.npy") for n in names)
        self._batch = batch
        self._rng = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        order = self._rng.permutation(len(self._ids))
        for start in range(0, len(order), self._batch):
            rows = order[start : start + self._batch]
            inputs = inputs_of(self._network, self._ids[rows], self._numbers[rows])
            yield inputs, torch.from_numpy(self._labels[rows])

    def __len__(self) -> int:
        return -(-len(self._ids) // self._batch)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Carries out one request."""
    use_threads(request["threads"])
    torch.manual_seed(request["seed"])
    network, rows = TaskNetwork.from_json(request["network"]), Path(request["rows"])
    trainer = MTLTrainer(
        model_of(network),
        ["classification"] * network.tasks,
        optimizer_params={"lr": request["learning_rate"], "weight_decay": request["weight_decay"]},
    )
    epoch = Epoch(network, rows, request["batch"], request["seed"])
    found: dict[str, list[np.ndarray]] = {"valid": [], "test": []}
    seconds = 0.0
    for _ in range(request["epochs"]):
        began = time.perf_counter()
        trainer.train_one_epoch(epoch)
        seconds += time.perf_counter() - began
        for part, scores in found.items():
            scores.append(_scores(network, trainer.model, rows, part))
    np.savez(Path(request["into"]), **{part: np.stack(of) for part, of in found.items()})
    return {
        "about": f"torch {torch.__version__}, torch-rechub {version('torch-rechub')}",
        "seconds": seconds,
        "floats": sum(p.numel() for p in trainer.model.parameters()),
    }


def _scores(network: TaskNetwork, model: nn.Module, rows: Path, part: str) -> np.ndarray:
    """Probabilities (M, T) of a part's rows."""
    ids, numbers = (np.load(rows / f"{part}_{name}.npy") for name in ("ids", "numbers"))
    model.eval()
    with torch.no_grad():
        scores = [
            model(
                inputs_of(network, ids[start : start + _SCORED], numbers[start : start + _SCORED])
            )
            for start in range(0, len(ids), _SCORED)
        ]
    return torch.cat(scores).numpy()


if __name__ == "__main__":
    answer_lines(answer)
