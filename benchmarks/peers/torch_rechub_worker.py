"""torch-rechub: its DCNv2 (parallel, full matrices, one task), its MMOE and its PLE."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import torch
from torch import nn
from torch_rechub.basic.features import SparseFeature
from torch_rechub.models.multi_task import MMOE, PLE
from torch_rechub.models.ranking import DCNv2

from benchmarks.peers.networks import Kernel, Network
from benchmarks.peers.protocol import serve
from benchmarks.peers.torch_common import kernels_of, use_threads


class TorchRechub:
    """Its tables' gradients are dense as it makes them; here they are sparse, which is faster."""

    def __init__(self, network: Network, threads: int) -> None:
        use_threads(threads)
        torch.manual_seed(0)
        self.names = [f"f{k}" for k in range(network.features)]
        features = [SparseFeature(n, network.rows, embed_dim=network.dim) for n in self.names]
        layers = {"dims": list(network.units), "activation": "relu", "dropout": 0}
        self.model: nn.Module
        kinds = ["classification"] * network.tasks
        towers = [{"dims": list(network.tower), "activation": "relu", "dropout": 0}] * network.tasks
        if network.model == "mmoe":
            self.model = MMOE(features, kinds, network.experts, layers, towers)
        elif network.model == "ple":
            sizes = network.levels, network.own, network.shared
            self.model = PLE(features, kinds, *sizes, layers, towers)
        else:
            self.model = DCNv2(
                features,
                network.cross_depth,
                layers,
                model_structure=network.structure,
                use_low_rank_mixture=False,
            )
        tables = [m for m in self.model.modules() if isinstance(m, nn.Embedding)]
        for table in tables:
            table.sparse = True
        weights = {id(table.weight) for table in tables}
        self.dense = [p for p in self.model.parameters() if id(p) not in weights]
        self.loss = nn.BCELoss()
        self.sparse_optimizer = torch.optim.Adagrad(
            [table.weight for table in tables], lr=0.05, initial_accumulator_value=0.1
        )
        self.optimizer = torch.optim.Adam(self.dense, lr=1e-3, fused=True)
        self.model.train()
        self.about = (
            f"torch {torch.__version__}, torch-rechub {version('torch-rechub')}; sparse gradients "
            "with Adagrad, fused Adam, batch normalisation in every MLP"
        )

    def kernels(self) -> list[Kernel]:
        """See `Contender`."""
        return kernels_of(self.dense)

    def step(self, ids: np.ndarray, labels: np.ndarray) -> torch.Tensor:
        """See `Contender`."""
        columns = torch.from_numpy(ids).t().contiguous()  # (F, B)
        scores = self.model(dict(zip(self.names, columns, strict=True)))
        loss = self.loss(scores, torch.from_numpy(labels).reshape(scores.shape))
        self.optimizer.zero_grad(set_to_none=True)
        self.sparse_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.sparse_optimizer.step()
        return loss.detach()


if __name__ == "__main__":
    serve(TorchRechub)
