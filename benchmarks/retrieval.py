"""Exact against approximate retrieval, on trained vectors, in one process.

An upstream is trained on a synthetic log with N ads, see `benchmarks.retrieval_vectors`. Both
indexes are what an export holds; the baseline is the fastest of the stock ways to write brute
force (one matrix product and `tf.math.top_k`). Users whose queries shape and tune the index are
others than those whose queries are measured. Times are medians of interleaved calls.

    python -m benchmarks.retrieval --json retrieval.json
    python -m benchmarks.retrieval --items 200000 --json retrieval.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lfm4ads_tf  # noqa: F401  (selects Keras 2 before TensorFlow is imported)

# isort: split
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from benchmarks.measure import interleave, summary
from benchmarks.retrieval_vectors import Vectors, trained_vectors
from lfm4ads_tf.retrieval.inverted_index import InvertedIndex
from lfm4ads_tf.retrieval.partition import Partition

DIM = 64
K = 100
ROWS_PER_ITEM = 2
QUERIES = 4000
MEASURED = 1024  # queries whose recall is measured
TARGET = 0.985  # recall that the probes are tuned to
ROUNDS = {1: 60, 32: 20}

Search = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def measure(vectors: Vectors, *, seed: int = 0) -> dict[str, Any]:
    """Times and recall on one set of vectors.

    Returns:
        `items`, `dim`, `lists`, `probes`, `read` (share of the items a query reads), `recall`,
        `build_s`, and per batch size `<contender>_ms`, spreads and `ratio` of the fastest
        brute force to the index.
    """
    items, queries = vectors.items, vectors.queries
    measured, training = queries[:MEASURED], queries[MEASURED:]
    began = time.perf_counter()
    partition = Partition.fit(items, training, seed=seed)
    keys = np.char.encode(np.arange(len(items)).astype(str), "ascii")
    index = InvertedIndex(keys, items, partition, k=K).probing(None, training, recall=TARGET)
    built = time.perf_counter() - began
    contenders = {**_brute_force(items), "index": _compiled(index)}
    exact = _all_places(contenders["rows"], measured)
    found = _all_places(contenders["index"], measured).astype("S").astype(int)
    share = [len(np.intersect1d(a, b)) / K for a, b in zip(exact, found, strict=True)]
    result: dict[str, Any] = {
        "items": len(items),
        "dim": items.shape[1],
        "k": K,
        "queries": len(measured),
        "lists": index.lists,
        "probes": index.partition.probes,
        "read": index.partition.probes / index.lists,
        "recall": float(np.mean(share)),
        "build_s": round(built, 1),
        "batches": {},
    }
    for batch, rounds in ROUNDS.items():
        result["batches"][str(batch)] = _times(contenders, measured, batch, rounds)
    return result


def _brute_force(items: np.ndarray) -> dict[str, Search]:
    """Stock forms of exact search, by the layout of the items."""
    rows = tf.Variable(items, trainable=False)
    columns = tf.Variable(np.ascontiguousarray(items.T), trainable=False)

    def by_rows(queries: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        best = tf.math.top_k(tf.matmul(queries, rows, transpose_b=True), K)
        return best.indices, best.values

    def by_columns(queries: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        best = tf.math.top_k(tf.matmul(queries, columns), K)
        return best.indices, best.values

    return {"rows": _compiled(by_rows), "columns": _compiled(by_columns)}


def _compiled(function: Callable[..., Any]) -> Search:
    compiled: Search = tf.function(
        lambda queries: function(queries),
        input_signature=[tf.TensorSpec([None, DIM], tf.float32)],
        autograph=False,
    )
    return compiled


def _all_places(search: Search, queries: np.ndarray) -> np.ndarray:
    """Items found for each query, (Q, k)."""
    parts = np.array_split(queries, -(-len(queries) // 32))
    return np.concatenate([search(tf.constant(part))[0].numpy() for part in parts])


def _times(
    contenders: dict[str, Search], queries: np.ndarray, batch: int, rounds: int
) -> dict[str, float]:
    parts = [
        tf.constant(queries[k * batch : (k + 1) * batch]) for k in range(len(queries) // batch)
    ]
    turn = {name: 0 for name in contenders}

    def measured(name: str) -> float:
        turn[name] += 1
        part = parts[turn[name] % len(parts)]
        began = time.perf_counter()
        contenders[name](part)[1].numpy()
        return 1000 * (time.perf_counter() - began)

    turns = {name: (lambda name=name: measured(name)) for name in contenders}
    taken = {n: summary(v) for n, v in interleave(turns, rounds=rounds, warmup=5).items()}
    best = min(taken[name].median for name in contenders if name != "index")
    return {
        **{f"{name}_ms": of.median for name, of in taken.items()},
        **{f"{name}_spread": of.spread for name, of in taken.items()},
        "ratio": best / taken["index"].median,
    }


def table(results: list[dict[str, Any]]) -> Table:
    """What is printed."""
    shown = Table(title=f"Exact against approximate retrieval, float32, k = {K}")
    for head in ("items", "batch", "brute force ms", "index ms", "ratio", "recall", "read"):
        shown.add_column(head, justify="right")
    for result in results:
        for batch, times in result["batches"].items():
            best = min(times["rows_ms"], times["columns_ms"])
            shown.add_row(
                f"{result['items']:,} x {result['dim']}",
                batch,
                f"{best:.2f}",
                f"{times['index_ms']:.2f}",
                f"{times['ratio']:.1f}",
                f"{result['recall']:.4f}",
                f"{result['read']:.1%}",
            )
    return shown


def main(arguments: list[str] | None = None) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    parser.add_argument("--items", type=int, nargs="+", default=[200_000, 1_000_000])
    parser.add_argument("--work", type=Path, help="keeps logs, runs and vectors for another call")
    options = parser.parse_args(arguments)
    results = []
    with TemporaryDirectory() as scratch:
        for items in options.items:
            vectors = trained_vectors(
                (options.work or Path(scratch)) / f"items_{items}",
                ads=items,
                rows=ROWS_PER_ITEM * items,
                dim=DIM,
                queries=QUERIES,
            )
            results.append(measure(vectors))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"runs": results}, indent=1) + "\n", "utf-8")
    Console(width=120).print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
