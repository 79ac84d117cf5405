"""This library: the upstream models and the trainer's step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

import lfm4ads_tf
from benchmarks.peers.networks import Kernel, Network
from benchmarks.peers.protocol import serve
from benchmarks.peers.tensorflow_common import use_threads
from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.features.layout import FeatureLayout, IdField, TableField
from lfm4ads_tf.losses.masked_bce import masked_bce
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.optim.model_optimizers import ModelOptimizers
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.optim.step import training_step
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.precision import Precision


def layout_of(network: Network) -> FeatureLayout:
    """Single-valued features, half of them the user's, one table each; no scenarios."""
    names = [f"f{k}" for k in range(network.features)]
    half = network.features // 2
    return FeatureLayout(
        fields=tuple(
            IdField(name, "user" if k < half else "item", table=name)
            for k, name in enumerate(names)
        ),
        dense=(),
        tables=tuple(TableField(name, network.rows, network.dim) for name in names),
        scenarios=(),
        tasks=tuple(f"task_{k}" for k in range(network.tasks)),
    )


def config_of(network: Network) -> RunConfig:
    """The run configuration whose upstream is the network."""
    upstream: dict[str, Any] = {"embeddings": {"dim": network.dim}}
    sizes = {"expert_units": list(network.units), "task_units": list(network.tower)}
    if network.model == "mmoe":
        upstream |= {"model": "mmoe", "mmoe": {"experts": network.experts, **sizes}}
    elif network.model == "ple":
        experts = {"task_experts": network.own, "shared_experts": network.shared}
        upstream |= {"model": "ple", "ple": {"levels": network.levels, **experts, **sizes}}
    else:
        layers = [
            {"type": "cross", "depth": network.cross_depth, "rank": network.cross_rank},
            {"type": "dnn", "units": list(network.units)},
        ]
        block = {"structure": network.structure, "layers": layers}
        upstream["network"] = {"block": block}
    return RunConfig.model_validate({"upstream": upstream})


def batch_spec(network: Network) -> dict[str, Any]:
    """Types of an encoded batch without bags, dense columns and representations."""
    return {
        "ids": tf.TensorSpec([None, network.features], tf.int64),
        "bags": {},
        "dense": tf.TensorSpec([None, 0], tf.float32),
        "scenario": tf.TensorSpec([None], tf.int64),
        "item": tf.TensorSpec([None], tf.int64),
        "labels": tf.TensorSpec([None, network.tasks], tf.float32),
        "representations": {},
    }


def compiled_step(
    model: UpstreamModel, config: RunConfig, network: Network, precision: Precision = "float32"
) -> Callable[[Any], Any]:
    """The trainer's step with the configured optimizer: encoded batch -> loss."""
    weights = tf.ones([network.tasks])

    def losses(batch: Any) -> dict[str, tf.Tensor]:
        return {"tasks": masked_bce(batch["labels"], model(batch, training=True), weights)}

    objective = Objective.of(losses, config.upstream.training.optimizer)
    optimizers = ModelOptimizers(objective, model, [model.backbone.embeddings])
    step = training_step(objective, optimizers, batch_spec(network), precision)
    return lambda batch: step(batch).total


def dense_variables(model: UpstreamModel) -> list[tf.Variable]:
    """What is trained beside the tables."""
    tables = {id(v) for v in model.backbone.embeddings.trainable_variables}
    return [v for v in model.trainable_variables if id(v) not in tables]


def multiplications(shapes: Sequence[tuple[int, ...]], batch: int) -> Callable[[], None]:
    """The products of a step with matrices of some shapes, forward and both gradients.

    The operands that differ in the step differ here too, or the graph would compute equal products
    once; one element of each is summed, or the graph would drop them.
    """
    inputs: dict[tuple[int, ...], tf.Tensor] = {}
    cases: list[tuple[tf.Tensor, tf.Tensor, tf.Tensor]] = []
    for *stack, m, n in shapes:
        shape = (*stack, batch, m)
        if shape not in inputs:
            inputs[shape] = tf.random.normal(shape)
        cases.append(
            (
                inputs[shape],
                tf.random.normal((*stack, m, n)),
                tf.random.normal((*stack, batch, n)),
            )
        )

    @tf.function
    def multiply() -> tf.Tensor:
        results: list[tf.Tensor] = []
        for x, kernel, upper in cases:
            results.append(tf.matmul(x, kernel))
            results.append(tf.matmul(upper, kernel, transpose_b=True))
            results.append(tf.matmul(x, upper, transpose_a=True))
        return tf.add_n([product[(0,) * product.shape.rank] for product in results])

    def run() -> None:
        float(multiply())

    return run


class Ours:
    """An upstream model, its training step, and the step's matrix products alone."""

    def __init__(self, network: Network, threads: int, precision: Precision = "float32") -> None:
        use_threads(threads)
        config = config_of(network)
        self.model = build.upstream(layout_of(network), config, seed=0)
        self._step = compiled_step(self.model, config, network, precision)
        self._empty: dict[int, dict[str, Any]] = {}
        self._shapes = [
            tuple(v.shape)
            for v in dense_variables(self.model)
            if "kernel" in v.name.rpartition("/")[2]
        ]
        self.about = f"tensorflow {tf.__version__}, lfm4ads_tf {lfm4ads_tf.__version__}"
        self.about += "" if precision == "float32" else f", {precision}"

    def kernels(self) -> list[Kernel]:
        """See `Contender`; a stack of kernels counts one by one."""
        every: list[Kernel] = []
        for *stack, inputs, outputs in self._shapes:
            every += int(np.prod(stack, dtype=int)) * [(inputs, outputs)]
        return every

    def step(self, ids: np.ndarray, labels: np.ndarray) -> tf.Tensor:
        """See `Contender`."""
        rows = len(ids)
        if rows not in self._empty:
            self._empty[rows] = {
                "bags": {},
                "dense": tf.zeros([rows, 0]),
                "scenario": tf.zeros([rows], tf.int64),
                "item": tf.zeros([rows], tf.int64),
                "representations": {},
            }
        columns = {"ids": tf.convert_to_tensor(ids), "labels": tf.convert_to_tensor(labels)}
        return self._step({**self._empty[rows], **columns})

    def products(self, batch: int) -> Callable[[], None]:
        """See `MultipliesAlone`."""
        return multiplications(self._shapes, batch)


if __name__ == "__main__":
    serve(Ours)
