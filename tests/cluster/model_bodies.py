"""What is run on a cluster about whole models."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import tensorflow as tf

from lfm4ads_tf.interactions.config import BlockConfig
from lfm4ads_tf.kernels.library import stock_ops
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.optim.loss_sums import LossSums
from lfm4ads_tf.optim.model_optimizers import ModelOptimizers
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.optim.step import step_of
from lfm4ads_tf.strict import parse
from lfm4ads_tf.training.config import OptimizerConfig
from tests.layers.cases import MODELS
from tests.small_models import EMBEDDINGS, LAYOUT, NETWORK, random_batch

CONFIG = OptimizerConfig(table_learning_rate=0.05, dense_learning_rate=0.01)
STEPS = 3
"""Steps that are compared with one machine's."""
MORE = 8
"""Steps of both workers after them."""
_DROPPING = [
    {"type": "fm", "dim": 4},
    {"type": "cross", "depth": 1},
    {"type": "dnn", "units": [5, 4], "dropout": 0.3},
]
_MIXING = [
    {"type": "mixer", "tokens": 3, "head_dim": 2, "depth": 1, "experts": 2, "experts_l1": 0.01}
]


def foundation(layers: Sequence[Any], shards: int) -> Any:
    """A foundation model of some interaction layers."""
    block = parse(BlockConfig, {"layers": layers}, source="block")
    towers = {} if layers[-1]["type"] != "mixer" else {"user_tower": [], "item_tower": []}
    network = NETWORK.model_copy(update={"block": block, **towers})
    return FoundationModel(LAYOUT, network, EMBEDDINGS.model_copy(update={"shards": shards}))


OWN: dict[str, Callable[[], Any]] = {
    "foundation with dropout": lambda: foundation(_DROPPING, 2),
    "foundation with dropout, whole tables": lambda: foundation(_DROPPING, 1),
    "foundation with a mixer": lambda: foundation(_MIXING, 2),
}
CASES = {**OWN, **{case.name: case.make for case in MODELS}}


def _inputs(name: str) -> Any:
    found = [case.inputs for case in MODELS if case.name == name]
    return found[0](12) if found else random_batch(12)


class _Training:
    """A model, its optimizers and a step on one batch."""

    def __init__(self, name: str, config: OptimizerConfig) -> None:
        self.model = CASES[name]()
        batch = _inputs(name)
        self.model.loss_terms(batch)  # makes all variables
        objective = Objective(self.model.loss_terms, self.model.optimizers(config))
        self.optimizers = ModelOptimizers(objective, self.model, self.model.all_embeddings)
        self.sums = LossSums()
        step = step_of(objective, self.optimizers, sums=self.sums)

        def body() -> tf.Tensor:
            return step(batch).total

        self.step = tf.function(body, autograph=False)

    def weights(self) -> list[np.ndarray]:
        """Dense weights, then the stored rows of all tables."""
        layers = self.model.all_embeddings
        parts = {id(part) for layer in layers for part in layer.all_parts()}
        dense = [v.numpy() for v in self.model.trainable_variables if id(v) not in parts]
        return dense + [layer.read_table(t) for layer in layers for t in layer.layout.tables]


def trained(
    strategy: Any,
    coordinator: Any,
    names: Sequence[str],
    forms: Sequence[bool],
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Losses and weights of some models against one machine's, then some steps of all workers."""
    config = CONFIG.model_copy(update=options or {})
    report = {}
    for name in names:
        for compiled in forms:
            started = time.time()
            try:
                with nullcontext() if compiled else stock_ops():
                    found = _one(strategy, coordinator, name, config)
            except Exception:
                found = {"error": traceback.format_exc()[-2500:]}
            report[f"{name} {compiled}"] = {**found, "seconds": time.time() - started}
    return report


def _one(strategy: Any, coordinator: Any, name: str, config: OptimizerConfig) -> dict[str, Any]:
    alone = _Training(name, config)
    with strategy.scope():
        spread = _Training(name, config)
    start = spread.weights()
    same = all(a.tobytes() == b.tobytes() for a, b in zip(alone.weights(), start, strict=True))
    losses = []
    for _ in range(STEPS):
        losses.append((float(alone.step()), float(coordinator.schedule(spread.step).fetch())))
    apart = max(
        float(np.abs(a - b).max(initial=0.0))
        for a, b in zip(alone.weights(), spread.weights(), strict=True)
    )
    moved = max(
        float(np.abs(a - b).max(initial=0.0)) for a, b in zip(start, spread.weights(), strict=True)
    )
    values = [coordinator.schedule(spread.step) for _ in range(MORE)]
    coordinator.join()
    for optimizer in spread.optimizers.optimizers.values():
        assert int(optimizer.iterations.numpy()) == STEPS + MORE
    total = sum(spread.sums.values().values())
    expected = sum(loss for _, loss in losses) + sum(float(v.fetch()) for v in values)
    return {
        "same_start": same,
        "losses": max(abs(a - b) for a, b in losses),
        "weights": apart,
        "moved": moved,
        "after": float(values[-1].fetch()),
        "sums": abs(total - expected) / abs(expected),
        "finite": all(bool(np.isfinite(w).all()) for w in spread.weights()),
    }
