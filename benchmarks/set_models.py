"""STEM-Net's step against the same network made of separate tables and layers.

    python -m benchmarks.set_models --json FILE [--batch 4096] [--rounds 9] [--ids uniform|zipf]

Ours looks K sets up at once and multiplies all experts, gates and towers together; `separate` has
K tables for every feature, and a Keras layer for every layer of every expert, gate and tower, from
the same weights. `products` are the matrix products of our step alone, forward and both gradients.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from benchmarks.measure import interleave, summary
from benchmarks.peers.networks import Network
from benchmarks.peers.ours_worker import (
    batch_spec,
    dense_variables,
    layout_of,
    multiplications,
)
from benchmarks.peers.rows import Distribution, write_rows
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.embeddings.table import ShardedEmbedding
from lfm4ads_tf.losses.masked_bce import masked_bce
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.stem import STEM
from lfm4ads_tf.models.stem_config import STEMConfig
from lfm4ads_tf.models.two_towers import build_embeddings
from lfm4ads_tf.optim.model_optimizers import ModelOptimizers
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.optim.step import training_step
from lfm4ads_tf.training.config import OptimizerConfig

STEM_STEP, SEPARATE, PRODUCTS = "stem", "separate", "products"


@dataclass(frozen=True)
class Plan:
    """What is measured, and for how long.

    Attributes:
        features, rows, dim, tasks: Of the network, see `Network`; K is tasks + 1.
        units, tower: Hidden units of an expert and of a task's tower.
        batch: Rows of a step.
        log: Rows that the steps go through again and again.
        ids: Distribution of the ids over a feature's rows.
        rounds, warmup: Rounds that count, and those before them.
        steps: Steps of a turn.
    """

    features: int = 40
    rows: int = 25_000
    dim: int = 16
    tasks: int = 3
    units: tuple[int, ...] = (256, 128)
    tower: tuple[int, ...] = (64,)
    batch: int = 4096
    log: int = 65_536
    ids: Distribution = "uniform"
    rounds: int = 9
    warmup: int = 2
    steps: int = 4

    @property
    def network(self) -> Network:
        """Features and tasks, for layout and batches."""
        sizes = {"features": self.features, "rows": self.rows, "dim": self.dim}
        return Network("mmoe", **sizes, tasks=self.tasks)


class SeparateSTEM(tf_keras.Model):
    """The network of a STEM of one level without a set axis: a table and a layer for everything.

    Args:
        stem: Whose weights it starts with; its gates have no hidden units and its towers none.
    """

    def __init__(self, stem: STEM) -> None:
        super().__init__(name="separate")
        joint = stem.backbone.embeddings
        config = EmbeddingsConfig(dim=joint.dims[0])
        self.tables = [
            build_embeddings(stem.layout, config, seed=0, name=f"set_{k}")
            for k in range(joint.sets)
        ]
        for name in joint.layout.tables:
            values = joint.read_table(name)  # (rows + 1, K, D)
            for k, table in enumerate(self.tables):
                table.write_table(name, values[:, k : k + 1])
        bank, gates, heads = stem.experts.experts[0], stem.experts.gates[0], stem.heads
        pairs = [(bank.kernel, bank.bias), *bank.deeper]
        self.experts = [
            [_dense(k[e], b[e, 0], "relu", f"expert_{e}_{n}") for n, (k, b) in enumerate(pairs)]
            for e in range(bank.experts)
        ]
        self.gates = [
            _dense(gates.kernel[t], None, "softmax", f"gate_{t}") for t in range(heads.tasks)
        ]
        self.towers = [
            [
                *(
                    _dense(k[t], b[t, 0], "relu", f"tower_{t}_{n}")
                    for n, (k, b) in enumerate(heads.layers)
                ),
                _dense(heads.logit_kernel[t], heads.logit_bias[t, 0], None, f"logit_{t}"),
            ]
            for t in range(heads.tasks)
        ]

    def call(self, batch: Any, training: bool = False) -> tf.Tensor:
        """Logits (B, T)."""
        x = []
        for table in self.tables:
            ((_, values),) = table(batch["ids"], batch["bags"], training=training).items()
            x.append(tf.reshape(values, [-1, int(np.prod(values.shape[1:]))]))  # (B, F D)
        # an expert for each set, in their order
        outputs = [_through(layers, read) for layers, read in zip(self.experts, x, strict=True)]
        logits = []
        for t, (gate, tower) in enumerate(zip(self.gates, self.towers, strict=True)):
            weights = gate(x[t] + x[-1])  # (B, E)
            mixed = [
                weights[:, e, None] * (o if e in (t, len(x) - 1) else tf.stop_gradient(o))
                for e, o in enumerate(outputs)
            ]
            logits.append(_through(tower, tf.add_n(mixed)))
        return tf.concat(logits, axis=-1)


def run(plan: Plan) -> dict[str, Any]:
    """Measures a plan.

    Returns:
        `seconds` of a step and `spread` by contender; `separate_over_stem` and
        `stem_over_products`, medians of the rounds' ratios; `logits_apart`, the largest difference
        of the two networks' logits before training, over the largest logit.
    """
    network = plan.network
    sizes = STEMConfig(shared_experts=1, expert_units=list(plan.units), task_units=list(plan.tower))
    towers = NetworkConfig(user_tower=[], item_tower=[])
    tables = EmbeddingsConfig(dim=plan.dim, sets=plan.tasks + 1)
    stem = STEM(layout_of(network), towers, tables, sizes)
    batches = batches_of(plan)
    before = stem(batches[0])
    separate = SeparateSTEM(stem)
    apart = np.abs(separate(batches[0]) - before).max() / np.abs(before).max()
    shapes = [tuple(v.shape) for v in dense_variables(stem) if "kernel" in v.name]
    multiply = multiplications(shapes, plan.batch)
    steps = {
        STEM_STEP: _trained(stem, [stem.backbone.embeddings], network),
        SEPARATE: _trained(separate, separate.tables, network),
    }
    turns = {name: turn_of(step, batches, plan.steps) for name, step in steps.items()}
    turns[PRODUCTS] = turn_of(lambda _: multiply(), batches, plan.steps)
    found = interleave(turns, rounds=plan.rounds, warmup=plan.warmup)
    stem_s, separate_s, products_s = (np.array(found[n]) for n in (STEM_STEP, SEPARATE, PRODUCTS))
    return {
        "plan": asdict(plan),
        "seconds": {name: summary(values).median for name, values in found.items()},
        "spread": {name: summary(values).spread for name, values in found.items()},
        "separate_over_stem": float(np.median(separate_s / stem_s)),
        "stem_over_products": float(np.median(stem_s / products_s)),
        "logits_apart": float(apart),
    }


def main(arguments: list[str] | None = None) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    parser.add_argument("--batch", type=int, default=Plan.batch)
    parser.add_argument("--rounds", type=int, default=Plan.rounds)
    parser.add_argument("--ids", choices=("uniform", "zipf"), default="uniform")
    options = parser.parse_args(arguments)
    tf.config.threading.set_intra_op_parallelism_threads(2)
    result = run(Plan(batch=options.batch, rounds=options.rounds, ids=options.ids))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    for name, seconds in result["seconds"].items():
        print(f"{name}: {1000 * seconds:.1f} ms a step, spread {result['spread'][name]:.1%}")
    print(f"separate / stem: {result['separate_over_stem']:.2f}")
    print(f"stem / products: {result['stem_over_products']:.2f}")
    print(f"logits apart by {result['logits_apart']:.1e} of the largest")
    return 0


def _dense(
    kernel: tf.Tensor, bias: tf.Tensor | None, activation: str | None, name: str
) -> tf_keras.layers.Dense:
    """A layer that starts with given weights."""
    layer = tf_keras.layers.Dense(kernel.shape[1], activation, use_bias=bias is not None, name=name)
    with tf.name_scope(name):  # as in a model: optimizer slots are found by names
        layer.build([None, kernel.shape[0]])
    layer.set_weights([np.array(w) for w in (kernel, bias) if w is not None])
    return layer


def _through(layers: Sequence[tf_keras.layers.Layer], values: tf.Tensor) -> tf.Tensor:
    for layer in layers:
        values = layer(values)
    return values


def step_of(
    objective: Objective, optimizers: ModelOptimizers, network: Network
) -> Callable[[Any], Any]:
    """The trainer's step of an objective."""
    step = training_step(objective, optimizers, batch_spec(network), "float32")
    return lambda batch: float(step(batch).total)


def _trained(
    model: tf_keras.Model, tables: Sequence[ShardedEmbedding], network: Network
) -> Callable[[Any], Any]:
    """The step of a model with the default optimizer."""
    weights = tf.ones([network.tasks])

    def losses(batch: Any) -> dict[str, tf.Tensor]:
        return {"tasks": masked_bce(batch["labels"], model(batch, training=True), weights)}

    objective = Objective.of(losses, OptimizerConfig())
    return step_of(objective, ModelOptimizers(objective, model, list(tables)), network)


def batches_of(plan: Plan) -> list[dict[str, Any]]:
    """Batches of the log, one after the other."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = {"features": plan.features, "rows": plan.rows, "tasks": plan.tasks}
        write_rows(folder, plan.log, **sizes, ids=plan.ids)
        ids, labels = np.load(folder / "ids.npy"), np.load(folder / "labels.npy")
    return [
        {
            "ids": tf.constant(ids[at : at + plan.batch]),
            "bags": {},
            "dense": tf.zeros([plan.batch, 0]),
            "scenario": tf.zeros([plan.batch], tf.int64),
            "item": tf.zeros([plan.batch], tf.int64),
            "labels": tf.constant(labels[at : at + plan.batch]),
            "representations": {},
        }
        for at in range(0, plan.log - plan.batch + 1, plan.batch)
    ]


def turn_of(step: Callable[[Any], Any], batches: Sequence[Any], steps: int) -> Callable[[], float]:
    """Seconds of a step, averaged over a turn; later turns go on with later batches."""
    place = 0

    def turn() -> float:
        nonlocal place
        began = time.perf_counter()
        for _ in range(steps):
            step(batches[place % len(batches)])
            place += 1
        return (time.perf_counter() - began) / steps

    return turn


if __name__ == "__main__":
    sys.exit(main())
