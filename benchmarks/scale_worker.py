"""One process of `benchmarks.scale`: training steps and their sparse part on tables of some size.

    python -m benchmarks.scale_worker THREADS

One JSON object a line on standard input, one answer a line on its output:

{"do": "wake"} -> {}, once the libraries are loaded
{"do": "prepare", "name": N, "case": {...}} -> what `Steps.about` says
{"do": "steps", "name": N, "what": "step|sparse", "ids": "zipf|uniform", "n": M} -> {"seconds"}
{"do": "forget", "name": N} -> {}
{"do": "save", "name": N, "folder": PATH} -> what `Steps.save_and_restore` says
{"do": "write_input", "folder": PATH, "rows": R} -> {}
{"do": "read_input"} -> {"examples_per_s", "cpu_share"}
{"do": "encode", "features": F, "repeats": R} -> what `benchmarks.encoding.measure` says

An answer {"error": TEXT} says that a request failed. A worker ends with its input.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

import lfm4ads_tf  # noqa: F401 - sets Keras 2
from benchmarks import encoding, input_rate
from benchmarks.peers.networks import Network
from benchmarks.peers.ours_worker import config_of, layout_of
from benchmarks.peers.protocol import answer_lines
from benchmarks.peers.rows import ZIPF
from benchmarks.peers.tensorflow_common import use_threads
from lfm4ads_tf.data.input import batches
from lfm4ads_tf.embeddings.storage import read_tables, write_tables
from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig
from lfm4ads_tf.losses.masked_bce import masked_bce
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.optim.model_optimizers import ModelOptimizers, table_rule
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.optim.step import training_step
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.training.config import OptimizerConfig
from lfm4ads_tf.training.schedule import Phase

Ids = Literal["zipf", "uniform"]
_KINDS: tuple[Ids, ...] = ("zipf", "uniform")
_OPTIMIZER = OptimizerConfig(rule="rowwise_adagrad")
_SAMPLE_ROWS = 4096  # rows compared before and after a restore
_GB = 1e9


@dataclass(frozen=True)
class Case:
    """Tables and the ids that are looked up in them.

    Every table is made of `parts` stretches of rows // parts rows, and each stretch has ids of its
    own. Cases of one batch * features, one features * parts and one features * rows read the same
    rows the same number of times, however the rows are dealt to features.

    Attributes:
        features: Features F, one table each.
        rows: Rows of each table; a multiple of `parts`.
        batch: Rows B of a step.
        batches: Different batches, gone through again and again.
        ranks: Rows that the Zipf ids of a stretch lie on, at most rows // parts.
        parts: Stretches P of a table. B is a multiple of it, unless `bags`.
        bags: Whether a feature has P values per row, which are summed, instead of one.
        dim: Width of an embedding.
        sets: Sets K per row.
        layers: Layers of such tables, all looked up and updated with the same ids.
        network: Whether there is a network to train; else the layers alone.
        units, rank: The network: its MLP, and the rank of its two cross layers.
    """

    features: int
    rows: int
    batch: int
    batches: int
    ranks: int
    parts: int = 1
    bags: bool = False
    dim: int = 16
    sets: int = 1
    layers: int = 1
    network: bool = True
    units: tuple[int, ...] = (256, 128)
    rank: int = 64


def stride_of(rows: int) -> int:
    """A stride coprime to `rows`, so that `rank * stride mod rows` differs for all ranks < rows.

    It is near rows * (sqrt(2) - 1), which lays the first ranks all over the range.
    """
    stride = max(1, int(rows * (math.sqrt(2.0) - 1.0)))
    while math.gcd(stride, rows) != 1:
        stride -= 1  # ends at 1 at the latest
    return stride


def draw_ids(case: Case, ids: Ids, seed: int = 0) -> np.ndarray:
    """The ids of a case.

    zipf: the ranks have p(k) ~ k^-1.2, k <= `ranks`, and depend on seed, ranks, features * parts
    and the number of draws alone: tables of any size have the same number of distinct ids in every
    batch. A rank's row is (rank * stride + a shift of the stretch) mod the stretch's rows.
    uniform: over all rows.

    Args:
        case: The case.
        ids: Ids.
        seed: Seed of the draws.

    Returns:
        (batches, B, F) int32, or with `bags` (batches, B, F, P).
    """
    rows, stretches = case.rows // case.parts, case.features * case.parts
    each = case.batch if case.bags else case.batch // case.parts
    draws, shifts = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    weights = np.arange(1, case.ranks + 1) ** -ZIPF
    cumulative = np.cumsum(weights / weights.sum())
    stride = stride_of(rows)
    found = np.empty((stretches, case.batches, each), np.int32)
    for column in found:
        if ids == "uniform":
            column[:] = draws.integers(0, rows, column.shape)
            continue
        ranks = np.searchsorted(cumulative, draws.random(column.shape)).astype(np.int64)
        ranks = np.minimum(ranks, case.ranks - 1)
        column[:] = (ranks * stride + shifts.integers(rows)) % rows
    dealt = found.reshape(case.features, case.parts, case.batches, each)
    dealt += (np.arange(case.parts, dtype=np.int32) * rows)[:, np.newaxis, np.newaxis]
    if case.bags:
        return np.ascontiguousarray(dealt.transpose(2, 3, 0, 1))  # (batches, B, F, P)
    single = np.ascontiguousarray(dealt.transpose(2, 1, 3, 0))  # (batches, P, B // P, F)
    return single.reshape(case.batches, case.batch, case.features)


def unique_ids(case: Case, ids: np.ndarray) -> float:
    """Distinct rows of a batch, the mean of the first five batches."""
    first = np.arange(case.features, dtype=np.int64) * case.rows
    first = first[:, np.newaxis] if case.bags else first
    return float(np.mean([len(np.unique(batch + first)) for batch in ids[:5]]))


class Steps:
    """The tables of a case, its network if it has one, and what is timed of them."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._ids = {kind: draw_ids(case, kind) for kind in _KINDS}
        began = time.perf_counter()
        names = [f"f{k}" for k in range(case.features)]
        self._names = names
        model = None
        if case.network:
            network = Network(
                "dcnv2",
                features=case.features,
                rows=case.rows,
                dim=case.dim,
                units=case.units,
                cross_rank=case.rank,
            )
            model = build.upstream(layout_of(network), config_of(network), seed=0)
            self._layers = [model.backbone.embeddings]
            self._objective = self._make_objective(model)
            self._optimizers = ModelOptimizers(self._objective, model, self._layers)
            (self._optimizer,) = self._optimizers.optimizers.values()
        else:
            combiner: Literal["sum"] | None = "sum" if case.bags else None
            tables = [TableConfig(name, case.rows, case.dim) for name in names]
            features = [EmbeddedFeature(name, name, combiner) for name in names]
            self._layers = [
                ShardedEmbedding(tables, features, sets=case.sets, name=f"layer_{k}")
                for k in range(case.layers)
            ]
            rates = _OPTIMIZER.table_learning_rate, _OPTIMIZER.dense_learning_rate
            self._optimizer = HybridOptimizer(*rates, rule=table_rule(_OPTIMIZER))
            self._optimizer.build(self._layers, [])
        self._start_s = time.perf_counter() - began
        self._start_peak = _peak_gb()
        self._position = 0
        self._sparse = self._make_sparse()
        self._step = None if model is None else self._make_step(model)
        self._bags = {kind: list(self._ragged(kind)) if case.bags else [] for kind in _KINDS}

    def about(self) -> dict[str, float]:
        """Seconds and peak of the construction, size of tables and slots, distinct ids a batch."""
        return {
            "start_s": self._start_s,
            "start_peak_gb": self._start_peak,
            "table_gb": _gb(part for layer in self._layers for part in layer.all_parts()),
            "slots_gb": _gb(self._optimizer.table_slots.values()),
            "unique_ids": unique_ids(self.case, self._ids["zipf"]),
            "uniform_unique_ids": unique_ids(self.case, self._ids["uniform"]),
        }

    def run(self, what: str, kind: Ids, count: int) -> float:
        """Seconds of some steps, after one that is not timed."""
        one = self._one_step if what == "step" else self._one_sparse
        float(one(kind))  # others had the caches in between
        began = time.perf_counter()
        for _ in range(count):
            last = one(kind)
        float(last)  # the steps change the same tables, so the last one waits for all
        return time.perf_counter() - began

    def save_and_restore(self, folder: Path) -> dict[str, float]:
        """Writes tables and slots, trains on, reads them back.

        Returns:
            `save_s`, `restore_s`, `save_peak_gb` and `peak_gb`, peaks since the process began, and
            before it `steps_peak_gb`.

        Raises:
            RuntimeError: What was read back is not what was written.
        """
        (layer,) = self._layers
        table, stop = self._names[0], min(_SAMPLE_ROWS, self.case.rows)
        before = layer.read_rows(table, 0, stop)
        found = {"steps_peak_gb": _peak_gb()}
        began = time.perf_counter()
        write_tables(folder, layer, self._optimizer)
        found["save_s"] = time.perf_counter() - began
        found["save_peak_gb"] = _peak_gb()
        self._one_sparse("uniform")
        began = time.perf_counter()
        read_tables(folder, layer, self._optimizer)
        found["restore_s"] = time.perf_counter() - began
        if not np.array_equal(before, layer.read_rows(table, 0, stop)):
            raise RuntimeError("the restored rows are not those that were saved")
        found["peak_gb"] = _peak_gb()
        return found

    def _make_step(self, model: Any) -> Callable[[Any], tf.Tensor]:
        tasks = len(model.layout.tasks)
        spec = {
            "ids": tf.TensorSpec([None, self.case.features], tf.int64),
            "bags": {},
            "dense": tf.TensorSpec([None, 0], tf.float32),
            "scenario": tf.TensorSpec([None], tf.int64),
            "item": tf.TensorSpec([None], tf.int64),
            "labels": tf.TensorSpec([None, tasks], tf.float32),
            "representations": {},
        }
        rng = np.random.default_rng(2)
        rows = self.case.batch
        self._rest = {
            "bags": {},
            "dense": tf.zeros([rows, 0]),
            "scenario": tf.zeros([rows], tf.int64),
            "item": tf.zeros([rows], tf.int64),
            "labels": tf.constant(rng.integers(0, 2, (rows, tasks)), tf.float32),
            "representations": {},
        }

        step = training_step(self._objective, self._optimizers, spec)
        return lambda batch: step(batch).total

    def _make_objective(self, model: Any) -> Objective:
        """The tasks' loss, minimised by one optimizer."""
        weights = tf.ones([len(model.layout.tasks)])

        @tf.autograph.experimental.do_not_convert  # the same graph, traced sooner
        def losses(batch: Any) -> dict[str, tf.Tensor]:
            return {"tasks": masked_bce(batch["labels"], model(batch, training=True), weights)}

        return Objective.of(losses, _OPTIMIZER)

    def _make_sparse(self) -> Any:
        """Look-up, gradient and update, with an upstream gradient that is made before."""
        case = self.case
        shape = (case.batch, case.features, case.sets, case.dim)
        upstream = tf.random.stateless_normal(shape, [0, 0]) * 1e-3
        single = 0 if case.bags else case.features
        signature: list[Any] = [tf.TensorSpec([None, single], tf.int64)]
        if case.bags:
            signature += [[tf.RaggedTensorSpec([None, None], tf.int64)] * case.features]

        def sparse(ids: tf.Tensor, values: Any = ()) -> tf.Tensor:
            bags = {name: (bag, None) for name, bag in zip(self._names, values, strict=False)}
            parts = [part for layer in self._layers for part in layer.all_parts()]
            with tf.GradientTape() as tape:
                fields = [layer(ids, bags)[case.dim] for layer in self._layers]
            gradients = tape.gradient(fields, parts, output_gradients=[upstream] * len(fields))
            self._optimizer.apply_gradients(zip(gradients, parts, strict=True))
            return tf.add_n([field[0, 0, 0, 0] for field in fields])

        return tf.function(sparse, input_signature=signature, autograph=False)

    def _one_step(self, kind: Ids) -> tf.Tensor:
        if self._step is None:
            raise RuntimeError("this case has no network")
        return self._step({"ids": tf.constant(self._next(kind), tf.int64), **self._rest})

    def _one_sparse(self, kind: Ids) -> tf.Tensor:
        if not self.case.bags:
            return self._sparse(tf.constant(self._next(kind), tf.int64))
        self._position += 1
        bags = self._bags[kind]
        return self._sparse(
            tf.zeros([self.case.batch, 0], tf.int64), bags[self._position % len(bags)]
        )

    def _next(self, kind: Ids) -> np.ndarray:
        self._position += 1
        return self._ids[kind][self._position % self.case.batches].astype(np.int64)

    def _ragged(self, kind: Ids) -> Iterator[list[tf.RaggedTensor]]:
        """The bags of each batch, feature by feature."""
        splits = tf.range(0, self.case.batch * self.case.parts + 1, self.case.parts, tf.int64)
        for batch in self._ids[kind]:  # (B, F, P)
            columns = batch.astype(np.int64).transpose(1, 0, 2).reshape(self.case.features, -1)
            yield [
                tf.RaggedTensor.from_row_splits(column, splits, validate=False)
                for column in columns
            ]


class _Session:
    """One worker's cases and its input."""

    def __init__(self) -> None:
        self._cases: dict[str, Steps] = {}
        self._input: tuple[Any, int] | None = None
        self._passes = 0

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carries out one request."""
        do = request["do"]
        if do == "wake":
            return {}
        if do == "prepare":
            options = request["case"]
            case = Case(**{**options, "units": tuple(options.get("units", Case.units))})
            self._cases[request["name"]] = Steps(case)
            return self._cases[request["name"]].about()
        if do == "steps":
            steps = self._cases[request["name"]]
            return {"seconds": steps.run(request["what"], request["ids"], request["n"])}
        if do == "forget":
            del self._cases[request["name"]]
            return {}
        if do == "save":
            return self._cases[request["name"]].save_and_restore(Path(request["folder"]))
        if do == "write_input":
            folder, rows = Path(request["folder"]), request["rows"]
            self._input = input_rate.write_random_cache(folder, rows), rows
            return {}
        if do == "read_input":
            return self._read_input()
        return encoding.measure(request["features"], request["repeats"])

    def _read_input(self) -> dict[str, float]:
        if self._input is None:
            raise RuntimeError("the input was read before it was written")
        cache, rows = self._input
        self._passes += 1
        order = Phase("epoch", np.arange(rows)).order(self._passes, True)
        return input_rate.rate(batches(cache, order, input_rate.BATCH), rows)


def _gb(variables: Any) -> float:
    """Size of variables, GB."""
    sizes = [int(np.prod(v.shape)) * tf.as_dtype(v.dtype).size for v in variables]
    return sum(sizes) / _GB


def _peak_gb() -> float:
    """Largest resident memory of this process so far, GB."""
    status = Path("/proc/self/status")
    if status.exists():  # the other counter begins with what the parent had
        (line,) = [s for s in status.read_text("ascii").splitlines() if s.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024 / _GB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GB


def main() -> None:
    """Answers requests until the input ends."""
    use_threads(int(sys.argv[1]))
    answer_lines(_Session().answer)


if __name__ == "__main__":
    main()
