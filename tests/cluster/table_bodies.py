"""What is run on a cluster about tables and their optimizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np
import tensorflow as tf

from lfm4ads_tf.embeddings import table_shards
from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig
from lfm4ads_tf.embeddings.table_shards import parts_of
from lfm4ads_tf.kernels import memory
from lfm4ads_tf.kernels.library import stock_ops
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.optim.row_update import update_rows
from lfm4ads_tf.optim.rules.adagrad import Adagrad
from lfm4ads_tf.optim.rules.row_rule import row_rule
from lfm4ads_tf.optim.rules.sgd import Sgd

SETS, DIM = 2, 4
ROWS = {"user": 40, "item": 25}


def tables(shards: int, storage: str = "float32") -> ShardedEmbedding:
    """Two tables of one width with a single feature each and two bags of items."""
    return ShardedEmbedding(
        [TableConfig(name, rows, DIM, 0.5, storage=storage) for name, rows in ROWS.items()],
        [
            EmbeddedFeature("user", "user"),
            EmbeddedFeature("item", "item"),
            EmbeddedFeature("history", "item", "mean"),
            EmbeddedFeature("best", "item", "max"),
        ],
        shards=shards,
        sets=SETS,
        seed=3,
        name=f"tables_{storage}_{shards}",
    )


def all_rows(layer: ShardedEmbedding, variable: Any = None) -> np.ndarray:
    """The stored rows of all logical tables."""
    return np.concatenate([layer.read_rows(n, 0, r + 1, variable) for n, r in ROWS.items()])


def task_of(variable: Any) -> int:
    """The server of a variable."""
    place = tf.DeviceSpec.from_string(variable.device)
    assert place.job == "ps", variable.device
    return int(place.task)


def compiled(function: Callable[..., Any], *arguments: Any, loops: bool = False) -> Any:
    """A function of nothing, for a closure."""

    def body() -> Any:
        return function(*arguments)

    return tf.function(body, autograph=loops)


def placement(strategy: Any, coordinator: Any) -> dict[str, Any]:
    """The servers of the parts, of their slots, of dense variables and of their moments."""
    filled, places = memory.filled, set()

    def watched(*arguments: Any) -> tf.Tensor:
        value = filled(*arguments)
        places.add(tf.DeviceSpec.from_string(value.device).job)
        return value

    with strategy.scope(), patch.object(table_shards, "filled", watched):
        layer = tables(3)
        dense = [tf.Variable(tf.ones([3]), name=f"dense_{i}") for i in range(5)]
        optimizer = HybridOptimizer(rule="adam")
        optimizer.build([layer], dense)
    outside = HybridOptimizer(rule="adam", name="outside")  # built without the scope
    outside.build([layer], dense)
    physical = layer.physical[0]
    return {
        "filled_on": sorted(places),
        "parts": [task_of(part) for part in layer.parts(physical)],
        "slots": [
            [task_of(part) for part in parts_of(slot)]
            for built in (optimizer, outside)
            for slot in built.table_slots.values()
        ],
        "dense": [task_of(variable) for variable in dense],
        "moments": [
            [task_of(moment) for moment in moments.values()]
            for built in (optimizer, outside)
            for moments in (built.first_moments, built.second_moments)
        ],
    }


def initial_values(strategy: Any, coordinator: Any, shards: Sequence[int]) -> list[bool]:
    """Whether tables in so many shards start as those of one machine, bit by bit."""
    expected = all_rows(tables(1))
    same = []
    for count in shards:
        with strategy.scope():
            layer = tables(count)
        assert {task_of(part) for part in layer.all_parts()} <= set(range(max(shards)))
        same.append(all_rows(layer).tobytes() == expected.tobytes())
    return same


def lookups(strategy: Any, coordinator: Any, storages: Sequence[str]) -> dict[str, Any]:
    """Look-ups and gradients against one machine's, per storage and number of shards."""
    rng = np.random.default_rng(0)
    ids = np.stack([rng.integers(-1, rows, 50) for rows in ROWS.values()], axis=1)
    bag = tf.RaggedTensor.from_row_lengths(rng.integers(-1, ROWS["item"], 60), [1, 2, 0, 1, 2] * 10)
    weight = tf.constant(rng.normal(size=(50, 4, SETS, DIM)), tf.float32)

    def taken(layer: ShardedEmbedding) -> Any:
        """Fields, and per part the rows and values of the gradient."""
        parts = layer.all_parts()
        with tf.GradientTape() as tape:
            fields = layer(tf.constant(ids), {"history": (bag, None), "best": (bag, None)}, True)
            loss = tf.reduce_sum(fields[DIM] * weight)
        gradients = tape.gradient(loss, parts)
        return fields[DIM], [(g.indices, g.values) for g in gradients]

    def dense(layer: ShardedEmbedding, gradients: Any) -> np.ndarray:
        sums = [np.zeros(part.shape.as_list(), np.float32) for part in layer.all_parts()]
        for total, (rows, values) in zip(sums, gradients, strict=True):
            np.add.at(total, np.asarray(rows), np.asarray(values))
        return np.concatenate(sums)

    # the single features, the mean and the maximum read for themselves
    single, pooled = np.where(ids < 0, [*ROWS.values()], ids), bag.flat_values.numpy()
    reads = [
        len({*zip(single.T.ravel().tolist(), np.repeat([0, 1], 50).tolist(), strict=True)}),
        len({*np.maximum(pooled, 0).tolist()}),
        len({*pooled[pooled >= 0].tolist()}),
    ]
    report: dict[str, Any] = {"expected_rows": sum(reads)}
    for storage in storages:
        alone = tables(1, storage)
        fields, gradients = taken(alone)
        for shards in (1, 2):
            for kernels in (True, False):
                with strategy.scope():
                    layer = tables(shards, storage)
                with nullcontext() if kernels else stock_ops():
                    result = coordinator.schedule(compiled(taken, layer))
                    found, slices = result.fetch()
                difference = dense(alone, gradients) - dense(layer, slices)
                report[f"{storage} {shards} {kernels}"] = {
                    "same": bool((np.asarray(found) == fields.numpy()).all()),
                    "gradient": float(np.abs(difference).max()),
                    "rows": sum(len(np.asarray(rows)) for rows, _ in slices),
                }
    return report


def sent_rows(strategy: Any, coordinator: Any) -> dict[str, Any]:
    """Rows of a table that reach the compiled update, of a gradient that names them twice."""
    with strategy.scope():
        layer = tables(1)
    part = layer.all_parts()[0]

    def body() -> None:
        rows = tf.constant([4, 7, 4, 9, 7], tf.int64)
        update_rows(
            Sgd(), part, [], tf.IndexedSlices(tf.ones([5, SETS * DIM]), rows),
            tf.constant(0.5), sets=SETS,
        )  # fmt: skip

    before = part.numpy()
    traced = compiled(body)
    coordinator.schedule(traced)
    coordinator.join()
    graph = traced.get_concrete_function().graph
    updates = [op for op in graph.get_operations() if op.type == "Lfm4adsUpdateRows"]
    moved = before - part.numpy()
    return {
        "sources": [op.inputs[1].op.type for op in updates],
        "moved": [float(moved[row, 0]) for row in (4, 7, 9)],
        "others": float(np.abs(np.delete(moved, [4, 7, 9], axis=0)).max()),
    }


def concurrent_updates(strategy: Any, coordinator: Any, adding: Sequence[str]) -> dict[str, Any]:
    """1,000 updates of two rows by both workers: weights and accumulators of rules that add up."""
    report = {}
    rules = {"sgd": Sgd(), "adagrad": Adagrad(initial=1.0), "row_wise": Adagrad(1.0, row_wise=True)}
    for kernels in (True, False):
        for name in adding:
            rule = rules[name]
            with strategy.scope():
                layer = tables(2)
                layer.write_table("item", np.zeros((ROWS["item"] + 1, SETS, DIM), np.float32))
                optimizer = HybridOptimizer(1.0, rule=rule, name=f"{name}_{kernels}")
                optimizer.build([layer], [])
            part = layer.all_parts()[0]
            slots = [parts_of(slot)[0] for slot in optimizer.table_slots.values()]
            part.assign(tf.zeros_like(part))

            def many(rule: Any, part: Any, slots: Any) -> None:
                rows = tf.constant([5, 8], tf.int64)
                for _ in tf.range(50):
                    gradient = tf.IndexedSlices(tf.ones([2, SETS * DIM]), rows)
                    update_rows(rule, part, slots, gradient, tf.constant(1.0), sets=SETS)

            traced = compiled(many, rule, part, slots, loops=True)
            with nullcontext() if kernels else stock_ops():
                for _ in range(20):
                    coordinator.schedule(traced)
            coordinator.join()
            counted = part if name == "sgd" else slots[0]
            rows = counted.numpy()
            report[f"{name} {kernels}"] = {
                "lowest": float(rows[[5, 8]].min()),
                "highest": float(rows[[5, 8]].max()),
                "others": [float(v) for v in np.unique(np.delete(rows, [5, 8], axis=0))],
                "finite": bool(np.isfinite(part.numpy()).all()),
            }
    return report


def every_rule(
    strategy: Any, coordinator: Any, rules: Sequence[str], storages: Sequence[str]
) -> dict[str, Any]:
    """Largest difference from one machine after some steps of one worker, per rule and storage."""
    rng = np.random.default_rng(1)
    steps = [
        (rng.integers(0, 20, 15), rng.normal(size=(15, SETS * DIM)).astype(np.float32))
        for _ in range(4)
    ]
    for _, values in steps:
        values[::3, :DIM] = 0.0  # some sets without a gradient

    def train(layer: ShardedEmbedding, optimizer: HybridOptimizer) -> None:
        parts = layer.all_parts()
        for rows, values in steps:
            slices = tf.IndexedSlices(tf.constant(values), tf.constant(rows, tf.int64))
            optimizer.apply_gradients([(slices, parts[0])])

    report = {}
    for name in rules:
        for storage in storages:
            for kernels in (True, False):
                found = []
                for scope in (strategy.scope(), nullcontext()):
                    with scope:
                        layer = tables(1, storage)
                        signed = layer.read_table("user")
                        signed[:3] = -0.0
                        layer.write_table("user", signed)
                        optimizer = HybridOptimizer(0.1, rule=row_rule(name))
                        optimizer.build([layer], [])
                    start = layer.all_parts()[0].numpy().astype(np.float32)
                    traced = compiled(train, layer, optimizer)
                    run_once(traced, None if found else coordinator, kernels=kernels)
                    slots = [p for slot in optimizer.table_slots.values() for p in parts_of(slot)]
                    end = [v.numpy().astype(np.float32) for v in (layer.all_parts()[0], *slots)]
                    still = np.delete(np.arange(len(start)), np.concatenate([r for r, _ in steps]))
                    kept = end[0][still].tobytes() == start[still].tobytes()
                    found.append((end, kept, float(np.abs(end[0] - start).max())))
                report[f"{name} {storage} {kernels}"] = {
                    "difference": max(
                        float(np.abs(a - b).max())
                        for a, b in zip(found[0][0], found[1][0], strict=True)
                    ),
                    "kept": found[0][1],
                    "moved": found[0][2],
                }
    return report


def run_once(traced: Any, coordinator: Any | None, *, kernels: bool) -> None:
    """Runs a traced function on a worker, or in this process where there is no coordinator."""
    with nullcontext() if kernels else stock_ops():
        if coordinator is None:
            traced()
        else:
            coordinator.schedule(traced)
            coordinator.join()


def moments(strategy: Any, coordinator: Any) -> dict[str, float]:
    """Largest difference of dense variables from one machine's after steps of one worker."""
    rng = np.random.default_rng(2)
    shapes = [(3, 4), (5,), (2, 2), (6,), ()]
    starts = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    gradients = [[rng.normal(size=shape).astype(np.float32) for shape in shapes] for _ in range(3)]
    report = {}
    for kernels in (True, False):
        found = []
        for scope in (strategy.scope(), nullcontext()):
            with scope:
                variables = [tf.Variable(v, name=f"v_{i}") for i, v in enumerate(starts)]
                optimizer = HybridOptimizer(0.1, 0.05, weight_decay=0.1)
                optimizer.build([], variables)

            def train(its: Any, variables: Any) -> None:
                for step in gradients:
                    its.apply_gradients(zip(map(tf.constant, step), variables, strict=True))

            traced = compiled(train, optimizer, variables)
            run_once(traced, None if found else coordinator, kernels=kernels)
            found.append([v.numpy() for v in variables])
        report[str(kernels)] = max(float(np.abs(a - b).max()) for a, b in zip(*found, strict=True))
    return report


def all_of(
    strategy: Any,
    coordinator: Any,
    *,
    storages: Sequence[str],
    adding: Sequence[str],
    rules: Sequence[str],
) -> dict[str, Any]:
    """All of the above; the placement first, since variables are dealt out in turn."""
    return {
        "placement": placement(strategy, coordinator),
        "initial_values": initial_values(strategy, coordinator, [1, 2, 3]),
        "lookups": lookups(strategy, coordinator, storages),
        "sent_rows": sent_rows(strategy, coordinator),
        "concurrent_updates": concurrent_updates(strategy, coordinator, adding),
        "every_rule": every_rule(strategy, coordinator, rules, storages),
        "moments": moments(strategy, coordinator),
    }
