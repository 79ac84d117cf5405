"""Seconds of a table's information abundance beside NumPy's SVD of the same table.

    python -m benchmarks.abundance [--rows 1000000] [--width 64] [--rounds 3] [--json FILE]

Two tables of float32: `spread`, whose rows lie in all directions, which is read once, and
`collapsed`, of which a few directions hold nearly everything, which is read again. `ours` is given
the array, `sharded` reads it from a `ShardedEmbedding` of four shards, `svd` is NumPy's in float64.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import interleave, summary
from lfm4ads_tf.embeddings.id_embeddings import id_embeddings
from lfm4ads_tf.embeddings.table import ShardedEmbedding, TableConfig
from lfm4ads_tf.metrics import information_abundance, set_abundances

OURS, SHARDED, SVD = "ours", "sharded", "svd"
SHARDS = 4
FEW, REST = 4, 1e-6
"""Directions of the collapsed table, and the size of all others."""


def tables(rows: int, width: int, seed: int = 0) -> dict[str, np.ndarray]:
    """The two tables, each (rows, width) float32."""
    draw = np.random.default_rng(seed)
    whole = draw.standard_normal((rows, width), np.float32)
    sizes = np.where(np.arange(width) < FEW, 1.0, REST)
    turn = np.linalg.qr(draw.normal(size=(width, width)))[0]
    return {"spread": whole, "collapsed": whole @ (sizes[:, None] * turn).astype(np.float32)}


def measure(rows: int, width: int, *, rounds: int) -> dict[str, Any]:
    """Measures both tables.

    Args:
        rows, width: Of the tables.
        rounds: Turns of each; none before them, for nothing is compiled.

    Returns:
        Name of a table -> `seconds` and `spread` by contender (medians), `abundance` of each,
        `apart`, the largest difference of ours to NumPy's, and `svd_over_ours` and
        `svd_over_sharded`, medians of the rounds' ratios.
    """
    return {name: _measured(table, rounds) for name, table in tables(rows, width).items()}


def _measured(table: np.ndarray, rounds: int) -> dict[str, Any]:
    rows, width = table.shape
    layer = ShardedEmbedding([TableConfig("item", rows - 1, width)], [], shards=SHARDS)
    layer.write_table("item", table[:, None])  # the last row is the missing id's
    every = np.ones(rows, bool)
    contenders: dict[str, Callable[[], float | None]] = {
        OURS: lambda: information_abundance(table),
        SHARDED: lambda: set_abundances(partial(id_embeddings, layer, "item", every), 1, width)[1],
        SVD: lambda: _by_svd(table),
    }
    found: dict[str, float | None] = {}

    def turn(name: str) -> float:
        began = time.perf_counter()
        found[name] = contenders[name]()
        return time.perf_counter() - began

    turns = {name: partial(turn, name) for name in contenders}
    seconds = interleave(turns, rounds=rounds, warmup=0)
    values = {name: float(value or np.nan) for name, value in found.items()}
    svd = np.array(seconds[SVD])
    return {
        "seconds": {name: summary(s).median for name, s in seconds.items()},
        "spread": {name: summary(s).spread for name, s in seconds.items()},
        "abundance": values,
        "apart": max(abs(values[name] - values[SVD]) for name in (OURS, SHARDED)),
        "svd_over_ours": float(np.median(svd / seconds[OURS])),
        "svd_over_sharded": float(np.median(svd / seconds[SHARDED])),
    }


def _by_svd(table: np.ndarray) -> float:
    values = np.linalg.svd(table.astype(np.float64), compute_uv=False)
    return float(values.sum() / values[0])


def main(arguments: list[str] | None = None) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    result = measure(options.rows, options.width, rounds=options.rounds)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    for name, one in result.items():
        print(f"{name}: abundance {one['abundance'][SVD]:.6f}, apart by {one['apart']:.1e}")
        for contender, seconds in one["seconds"].items():
            print(f"  {contender:<8}{seconds:8.2f} s, spread {one['spread'][contender]:.1%}")
        print(f"  svd / ours {one['svd_over_ours']:.2f}, / sharded {one['svd_over_sharded']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
