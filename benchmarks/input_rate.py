"""How many examples a second the input alone delivers: the encoded cache and its packed form.

    python -m benchmarks.input_rate [--rows 1000000] [--json FILE]

The rows have 40 single-valued features, 8 dense numbers and 3 labels; batches of 4,096 rows, in the
order of a shuffled epoch. `cpu_share` is the processor time over the elapsed time: 1 is one core.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from lfm4ads_tf.batch import read
from lfm4ads_tf.data.cache import Bag, CacheContent, EncodedCache, write_cache
from lfm4ads_tf.data.input import batches
from lfm4ads_tf.data.pack import pack
from lfm4ads_tf.data.packed import PackedCache
from lfm4ads_tf.features.layout import DenseField, FeatureLayout, IdField, TableField
from lfm4ads_tf.training.schedule import Phase

BATCH = 4096
FORMS = ("cache", "cache_window", "packed", "cache_bags", "packed_bags")
FIELDS, DENSE, TASKS, TABLE_ROWS = 40, 8, 3, 25_000


def write_random_cache(folder: Path, rows: int, bags: int = 0) -> EncodedCache:
    """Writes a cache of training rows; a bag holds 0 to 8 ids a row."""
    rng = np.random.default_rng(0)
    names = [f"f{k}" for k in range(FIELDS)]
    bag_names = [f"bag{k}" for k in range(bags)]
    fields = [IdField(n, "user", n) for n in names]
    fields += [IdField(n, "user", n, "mean") for n in bag_names]
    layout = FeatureLayout(
        fields=tuple(fields),
        dense=tuple(DenseField(f"d{k}", "user") for k in range(DENSE)),
        tables=tuple(TableField(n, TABLE_ROWS) for n in (*names, *bag_names)),
        scenarios=("all",),
        tasks=tuple(f"t{k}" for k in range(TASKS)),
    )
    zeros = np.zeros(rows, np.int32)
    columns = {
        "ids": rng.integers(0, TABLE_ROWS, (rows, FIELDS), np.int32),
        "dense": rng.standard_normal((rows, DENSE), np.float32),
        "labels": rng.integers(0, 2, (rows, TASKS)).astype(np.float32),
        "scenario": zeros,
        "branch": zeros.astype(np.int8),
        "segments": np.zeros((rows, 0), bool),
        "user": zeros,
        "item": zeros,
        "time": np.arange(rows, dtype=np.float64),
        "split": zeros.astype(np.int8),
        "period": zeros,
        "ahead_row": np.zeros(0, np.int64),
        "ahead_period": np.zeros(0, np.int32),
        "ahead_daily": np.zeros(0, bool),
        "ahead_dense": np.zeros((0, 0), np.float32),
    }
    ragged = {}
    for name in bag_names:
        splits = np.concatenate([[0], np.cumsum(rng.integers(0, 9, rows))])
        ragged[name] = Bag(rng.integers(0, TABLE_ROWS, splits[-1], np.int32), splits)
    content = CacheContent(
        layout=layout,
        columns=columns,
        bags=ragged,
        moving_columns=[],
        moving_dense=None,
        moving_bags={},
        ahead_columns=[],
        ahead_bags={},
        best_possible=None,
        keys={"user": pa.array(["u"]), "item": pa.array(["i"])},
        manifest={},
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_cache(folder, content)
    return EncodedCache(folder)


def rate(dataset: tf.data.Dataset, rows: int) -> dict[str, float]:
    """Examples a second of a dataset that delivers `rows`, read to its end, and its CPU share."""
    began, busy = time.perf_counter(), time.process_time()
    for _ in read(dataset):
        pass
    elapsed = time.perf_counter() - began
    return {
        "examples_per_s": rows / elapsed,
        "cpu_share": (time.process_time() - busy) / elapsed,
    }


def measure_all(
    rows: int = 1_000_000, repeats: int = 3, only: Collection[str] = FORMS
) -> dict[str, dict[str, float]]:
    """Times the input of several forms, interleaved; medians.

    Args:
        rows: Rows of the data set.
        repeats: Passes over all rows per form; one more before them fills the page cache.

        only: The forms to time: `cache` (shuffled as a whole), `cache_window` and `packed` (both
            shuffled inside windows), and two of them with three multi-valued features more.

    Returns:
        Form -> `examples_per_s` and `cpu_share`.
    """
    window = max(rows // 16, BATCH)
    phase = Phase("epoch_1", np.arange(rows))
    whole, inside = phase.order(0, True), phase.order(0, True, window)
    with tempfile.TemporaryDirectory() as folder:
        forms: dict[str, Any] = {}
        for suffix, bags in (("", 0), ("_bags", 3)):
            if not {f"cache{suffix}", f"cache_window{suffix}", f"packed{suffix}"} & set(only):
                continue
            cache = write_random_cache(Path(folder) / f"cache{suffix}", rows, bags)
            forms[f"cache{suffix}"] = (cache, whole, None)
            forms[f"cache_window{suffix}"] = (cache, inside, window)
            if f"packed{suffix}" in only:
                place = Path(folder) / f"packed{suffix}"
                pack(cache, place)
                # A quarter of the rows fits, so that every pass reads and decodes all blocks.
                memory = sum(f.stat().st_size for f in cache.folder.glob("*.npy")) // 4
                packed = PackedCache(place, memory_bytes=max(memory, 1 << 22))
                forms[f"packed{suffix}"] = (packed, inside, window)
        forms = {name: form for name, form in forms.items() if name in only}
        found: dict[str, list[dict[str, float]]] = {name: [] for name in forms}
        for turn in range(repeats + 1):
            for name, (source, order, of_window) in forms.items():
                one = rate(batches(source, order, BATCH, window=of_window), rows)
                if turn:
                    found[name].append(one)
    return {
        name: {key: float(np.median([one[key] for one in runs])) for key in runs[0]}
        for name, runs in found.items()
    }


def measure(rows: int = 1_000_000) -> float:
    """Examples a second of the encoded cache alone, shuffled as a whole."""
    return measure_all(rows, only=("cache",))["cache"]["examples_per_s"]


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    found = measure_all(options.rows)
    table = Table(title=f"Input alone, {options.rows:,} rows, batches of {BATCH:,}", min_width=60)
    for head in ("form", "examples/s", "CPU share"):
        table.add_column(head, justify="right")
    for name, numbers in found.items():
        table.add_row(name, f"{numbers['examples_per_s']:,.0f}", f"{numbers['cpu_share']:.2f}")
    Console(width=100).print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
