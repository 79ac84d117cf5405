"""What `test_tables_by_workers.py` runs on the chief of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import script_ops

from lfm4ads_tf.embeddings import segments
from lfm4ads_tf.embeddings.placement.segment_files import HOST_FUNCTIONS
from lfm4ads_tf.embeddings.placement.server import on_server
from lfm4ads_tf.embeddings.placement.table_workers import working
from lfm4ads_tf.embeddings.storage import read_tables, write_tables
from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from tests.embeddings.stored_pairs import TABLES, Pair, pair, state


class ScheduledWorkers:
    """Workers of tables by closures, and host functions under a name that all processes know.

    Args:
        coordinator: Of the cluster.
    """

    def __init__(self, coordinator: Any) -> None:
        self._coordinator = coordinator
        for name, function in HOST_FUNCTIONS.items():
            script_ops._py_funcs._funcs[f"test/{name}"] = function

    def reach(self, variable: tf.Variable) -> bool:
        """See `TableWorkers`."""
        return on_server(variable)

    def run(
        self, function: Callable[..., Any], arguments: Iterable[Sequence[Any]]
    ) -> Iterator[Sequence[Any]]:
        """See `TableWorkers`."""
        results = [
            self._coordinator.schedule(function, tuple(tf.constant(value) for value in values))
            for values in arguments
        ]
        self._coordinator.join()
        yield from (result.fetch() for result in results)

    def call(
        self, name: str, inputs: Sequence[tf.Tensor], dtypes: Sequence[tf.DType]
    ) -> Sequence[tf.Tensor]:
        """See `TableWorkers`."""
        found: Sequence[tf.Tensor] = tf.raw_ops.PyFuncStateless(
            input=inputs, token=f"test/{name}", Tout=dtypes
        )
        return found


MOVED = TABLES[:2]
"""Tables that move from server to server: one of 32 bits, one of 16."""


def round_trip(strategy: Any, coordinator: Any, folder: str) -> dict[str, Any]:
    """Makes tables, saves them, changes and restores them; `folder/one` is of one machine.

    Returns:
        Whether each step gave the right rows, and what a damaged file says.
    """
    segments.SEGMENT_ROWS = 7
    home = Path(folder)
    with strategy.scope(), working(ScheduledWorkers(coordinator)):
        source = pair(TABLES, 1, "adam", shards=2)
        fresh = _rows(source)["user"]["weights"]
        write_tables(home / "cluster", *source)
        saved = _rows(source)
        target = pair(TABLES, 2, "adam", shards=2)
        read_tables(home / "cluster", *target)
        from_cluster = _rows(target)
        other = pair(TABLES, 3, "adam", shards=2)
        read_tables(home / "one", *other)
        from_one = _rows(other)
        (path,) = (home / "cluster").glob("0000_user.weights.00001-of-*.npy")
        np.save(path, np.zeros((7, 8), np.float32))
        try:
            read_tables(home / "cluster", *target)
            said = ""
        except UserError as error:
            said = str(error)
        write_tables(home / "again", *source)
    return {
        "servers": sorted({part.device for part in source[0].all_parts()}),
        "fresh": fresh.tolist(),
        "restored": _same(from_cluster, saved),
        "from_one": {n: {k: v.tolist() for k, v in of.items()} for n, of in from_one.items()},
        "said": said,
    }


def travel(strategy: Any, coordinator: Any, folder: str) -> dict[str, Any]:
    """Moves trained tables from 2 servers to 1, 3, 5 and back to 2, `folder/<number>` each time.

    Returns:
        Whether tables and slots were equal on each, and the losses of two steps from there on.
    """
    segments.SEGMENT_ROWS = 7
    home, equal, losses, servers = Path(folder), [], [], []
    expected: dict[str, dict[str, np.ndarray]] = {}

    def run(step: Any) -> float:
        return float(coordinator.fetch(coordinator.schedule(step)))

    with strategy.scope(), working(ScheduledWorkers(coordinator)):
        for number, shards in enumerate((2, 1, 3, 5, 2)):
            target = traveller(seed=number, shards=shards)
            if number == 0:
                two_losses(target, run)
                expected = _rows(target, MOVED)
            else:
                read_tables(home / str(number - 1), *target)
            write_tables(home / str(number), *target)
            equal.append(_same(_rows(target, MOVED), expected))
            servers.append(len({part.device for part in target[0].parts("4")}))
            losses.append(two_losses(target, run))
    return {"equal": equal, "losses": losses, "servers": servers}


def traveller(seed: int, shards: int) -> Pair:
    """Tables that features read, and their optimizer."""
    features = [EmbeddedFeature(table.name, table.name) for table in MOVED]
    layer = ShardedEmbedding(MOVED, features, seed=seed, sets=2, shards=shards, name="tables")
    optimizer = HybridOptimizer(0.1, rule="adagrad")
    optimizer.build([layer], [])
    return layer, optimizer


def two_losses(of: Pair, run: Callable[[Any], float] = lambda step: float(step())) -> list[float]:
    """Losses of two steps: weights alone decide the first one, slots the second one too."""
    layer, optimizer = of

    def step() -> tf.Tensor:
        ids = tf.constant([[3, 7], [19, 0], [3, -1]], tf.int64)
        with tf.GradientTape() as tape:
            found = layer(ids, training=True).values()
            loss = tf.add_n([tf.reduce_sum((values - 1.0) ** 2) for values in found])
        variables = layer.trainable_variables
        pairs = zip(tape.gradient(loss, variables), variables, strict=True)
        optimizer.apply_gradients([(g, v) for g, v in pairs if g is not None])
        return loss

    compiled = tf.function(step, input_signature=[], autograph=False)
    return [run(compiled), run(compiled)]


def _rows(of: Pair, tables: Sequence[TableConfig] = TABLES) -> dict[str, dict[str, np.ndarray]]:
    return {table.name: state(of, table.name) for table in tables}


def _same(
    found: dict[str, dict[str, np.ndarray]], expected: dict[str, dict[str, np.ndarray]]
) -> bool:
    return all(
        np.array_equal(found[name][key], rows)
        for name, of in expected.items()
        for key, rows in of.items()
    )
