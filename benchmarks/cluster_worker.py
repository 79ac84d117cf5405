"""A process of `benchmarks/cluster.py`: one alone, or one of a cluster by TF_CONFIG.

A server or worker serves. The chief, or the process alone, answers one JSON object per line, by the
key `do`: `train` makes the upstream of a run folder and `steps` makes steps of it; `join` joins the
cluster without a model, `tables` makes one table, `look-ups` trains it, `save` and `restore` are of
its files.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from lfm4ads_tf.cluster.cluster_config import ENVIRONMENT, VARIABLE
from lfm4ads_tf.cluster.config import ClusterSettings
from lfm4ads_tf.cluster.parameter_servers import ParameterServers
from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.data.execution import Execution
from lfm4ads_tf.data.input import batches
from lfm4ads_tf.embeddings.storage import read_tables, write_tables
from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.optim.loss_sums import LossSums
from lfm4ads_tf.optim.step import step_of
from lfm4ads_tf.pipeline.cluster_task import ClusterTask
from lfm4ads_tf.pipeline.pretrain import Pretraining
from lfm4ads_tf.pipeline.run import Run, open_run

_COUNTED = 20  # batches in which distinct rows are counted
_COMPARED = 1000  # rows that are compared after a restore


class Training:
    """The upstream of a run folder and its steps over shuffled training rows.

    Args:
        out: Run folder with encoded data; files of the training are written to it.
        execute: Who trains, of the run's configuration.
    """

    def __init__(self, out: Path, execute: Callable[[RunConfig], Execution]) -> None:
        resolved = open_run(out).resolved
        self._execution = execute(resolved.config)
        self._run = Run(out, resolved, execution=self._execution)
        self._training = self._run.config.upstream.training
        with self._execution.scope():
            self._trainer = trainer = Pretraining(self._run, 0, "benchmark").trainer()
            self._step = step_of(
                trainer.objective, trainer.optimizers, self._training.precision, LossSums()
            )
        self._draw = np.random.default_rng(0)
        self._compiled: Any = None

    def about(self) -> dict[str, Any]:
        """Batch size, and what a step must send at least, see `docs/benchmarks.md`."""
        model, cache = self._trainer.model, self._run.cache
        (layer,) = model.all_embeddings
        tables = {id(part) for part in layer.all_parts()}
        dense = [v for v in model.trainable_variables if id(v) not in tables]
        weights = sum(int(np.prod(v.shape)) for v in dense)
        size = self._training.batch_size
        order = self._draw.permutation(cache.train_rows)[: _COUNTED * size]
        counts = [
            distinct_rows(layer, cache, order[i : i + size]) for i in range(0, len(order), size)
        ]
        rows, sent = {}, 8.0 * weights
        for fused in layer.layout.fused.values():
            rows[fused.name] = float(np.mean([count[fused.name] for count in counts]))
            sent += 2 * rows[fused.name] * (4 * layer.sets * fused.dim + 8)
        return {"batch": size, "dense": weights, "distinct_rows": rows, "least_bytes": sent}

    def steps(self, count: int) -> None:
        """Makes steps, and returns when all are made."""
        rows, size = self._run.cache.train_rows, self._training.batch_size
        passes = -(-count * size // len(rows))
        order = np.concatenate([self._draw.permutation(rows) for _ in range(passes)])
        data = batches(self._run.cache, order[: count * size], size)
        with self._execution.scope():
            if self._compiled is None:
                self._compiled = self._execution.compiled(self._step, data)
            for _ in self._execution.steps(self._compiled, data).take(count):
                pass
            self._execution.wait()


class LargeTable:
    """One table with row-wise Adagrad on the servers, and steps that look rows up.

    Args:
        execution: The cluster.
        rows, dim: Of the table.
    """

    def __init__(self, execution: ParameterServers, rows: int, dim: int) -> None:
        self._execution, self._dim = execution, dim
        with execution.scope():
            self._layer = ShardedEmbedding(
                [TableConfig("item", rows, dim)],
                [EmbeddedFeature("item", "item")],
                shards=execution.shards,
                name="tables",
            )
            self._optimizer = HybridOptimizer(0.1, rule="rowwise_adagrad")
            self._optimizer.build([self._layer], [])
            self._step = tf.function(
                self._one_step, input_signature=[tf.TensorSpec([None, 1], tf.int64)]
            )
        self._draw = np.random.default_rng(0)
        self._rows = rows
        self._before: tuple[np.ndarray, ...] = ()

    def steps(self, count: int, batch: int) -> None:
        """Steps whose rows nobody else of a batch reads."""

        def calls() -> Iterator[tuple[tf.Tensor, ...]]:
            for _ in range(count):
                yield (tf.constant(self._draw.integers(0, self._rows, (batch, 1))),)

        with self._execution.scope():
            for _ in self._execution.finished(self._step, calls()):
                pass
            self._execution.wait()

    def save(self, folder: Path) -> None:
        """Writes weights and slots."""
        with self._execution.scope():
            self._before = self._sample()
            write_tables(folder, self._layer, self._optimizer)

    def restore(self, folder: Path) -> bool:
        """Reads what was written after more steps; whether a stretch is as it was."""
        with self._execution.scope():
            moved = self._sample()
            read_tables(folder, self._layer, self._optimizer)
            after = self._sample()
        return not np.array_equal(moved[0], self._before[0]) and all(
            np.array_equal(one, other) for one, other in zip(self._before, after, strict=True)
        )

    def _sample(self) -> tuple[np.ndarray, ...]:
        physical = self._layer.layout.home("item").name
        slots = [
            self._optimizer.slot(self._layer, physical, s.name) for s in self._optimizer.rule.slots
        ]
        return tuple(self._layer.read_rows("item", 0, _COMPARED, v) for v in (None, *slots))

    def _one_step(self, ids: tf.Tensor) -> tf.Tensor:
        # the rows that are compared are among those of every step
        ids = tf.concat([tf.range(_COMPARED, dtype=tf.int64)[:, tf.newaxis], ids], axis=0)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(self._layer(ids, training=True)[self._dim] ** 2)
        variables = self._layer.trainable_variables
        self._optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss


class Answers:
    """What a chief, or a process alone, does for each request."""

    def __init__(self, member: ClusterTask | None) -> None:
        self._member = member
        self._training: Training | None = None
        self._servers: ParameterServers | None = None
        self._table: LargeTable | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Does what a request says."""
        do = request["do"]
        if do == "join" and self._member is not None:
            self._servers = ParameterServers(self._member.config, ClusterSettings())
            self._servers.wait()
            return {}
        if do == "train":
            self._training = Training(Path(request["out"]), self._execute)
            self._training.steps(request["warmup"])
            return self._training.about()
        if do == "steps" and self._training is not None:
            self._training.steps(request["count"])
            return {}
        if do == "tables" and self._servers is not None:
            self._table = LargeTable(self._servers, request["rows"], request["dim"])
            return {}
        if self._table is None:
            raise ValueError(f"{do} needs something that was not made")
        if do == "look-ups":
            self._table.steps(request["count"], request["batch"])
            return {}
        if do == "save":
            self._table.save(Path(request["folder"]))
            return {}
        if do == "restore":
            return {"equal": self._table.restore(Path(request["folder"]))}
        raise ValueError(f"unknown request {do}")

    def _execute(self, config: RunConfig) -> Execution:
        return Execution() if self._member is None else self._member.execute(config)


def distinct_rows(layer: ShardedEmbedding, cache: Any, rows: np.ndarray) -> dict[str, int]:
    """Distinct rows of each physical table that a batch reads; none may have several hashes.

    Args:
        layer: The tables.
        cache: The encoded cache.
        rows: The batch, (B,).
    """
    batch = cache.take(rows, "frozen")
    found = {}
    for fused in layer.layout.fused.values():
        offsets, sizes = fused.limits(fused.single)
        ids = np.asarray(batch["ids"])[:, fused.columns]
        seen = [(np.where(ids < 0, sizes, ids) + offsets).ravel()]
        offsets, _ = fused.limits(fused.pooled)
        for feature, offset in zip(fused.pooled, offsets, strict=True):
            seen.append(np.maximum(batch["bags"][feature.name].values, 0) + offset)
        found[fused.name] = len(np.unique(np.concatenate(seen)))
    return found


def main() -> None:
    """Serves, or answers until standard input ends."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what libraries print
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
    logging.getLogger("lfm4ads_tf").setLevel(logging.INFO)  # who waits reads the serving line
    member = ClusterTask(ENVIRONMENT, None) if os.environ.get(VARIABLE) else None
    if member is not None and not member.runs_stages:
        member.serve()
    process = Answers(member)
    for line in sys.stdin:
        try:
            answer = process.answer(json.loads(line))
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    os._exit(0)  # the coordinator's threads would keep the process


if __name__ == "__main__":
    main()
