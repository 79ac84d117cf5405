"""Embedding tables of many features, fused by width, sharded by rows, with a set axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import tensorflow as tf
import tf_keras

from lfm4ads_tf.embeddings import partition
from lfm4ads_tf.embeddings.layout import (
    EmbeddedFeature,
    EmbeddingLayout,
    FusedTable,
    TableConfig,
)
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.seeding import derive

__all__ = ["EmbeddedFeature", "ShardedEmbedding", "TableConfig"]

Bags = Mapping[str, tuple[tf.RaggedTensor, tf.RaggedTensor | None]]

INIT_BLOCK = 4096  # rows drawn at once; part of the definition of the initial values
_MISSING_BLOCK = -1  # the missing id's row is drawn apart, so that it does not depend on `rows`
SLICE_ROWS = 1 << 16  # rows copied at once by reads and writes


class ShardedEmbedding(tf_keras.layers.Layer):
    """Looks up all features of a model in tables that are fused by width and cut into shards.

    All tables of one width D share one physical table of (sum of (rows + 1), K * D), K being the
    number of sets, so a batch costs one gather per width for the single-valued features and one
    for the bags. Physical row = spread(offset of the table + id); the id -1 (missing) reads the
    last row of its table. Single value: e_f = W[row(id)]; bag: e_f = sum_j w_j W[row(id_j)],
    divided by sum_j w_j for "mean" (zeros if that is 0). Missing ids inside a bag are dropped.

    The initial value of an id depends on (seed, table name, id) alone: not on the number of
    shards, nor on how many rows its own or any other table has.
    Variables exist from construction on: one `tf.Variable` per width, or with `shards` > 1 a
    `ShardedVariable`, which a checkpoint sees as one tensor. `ExportArchive` needs a layer with
    `shards=1`: restore the checkpoint into one, or use `transplant`.

    Args:
        tables: The logical tables.
        features: The features in the order in which their fields are returned.
        shards: Contiguous shards per width (never more than rows).
        sets: Embeddings K per row.
        seed: Seed of the initial values. Two layers of one seed give a table of one name the same
            start.
        init: Distribution of the initial values, scaled by each table's `init_scale`.
        name: Layer name; it also names the variables and the optimizer's slots.

    Raises:
        UserError: Duplicate or unknown names, or sizes below 1.
    """

    def __init__(
        self,
        tables: Sequence[TableConfig],
        features: Sequence[EmbeddedFeature],
        *,
        shards: int = 1,
        sets: int = 1,
        seed: int = 0,
        init: Literal["normal", "uniform"] = "normal",
        name: str = "embeddings",
    ) -> None:
        super().__init__(name=name)
        if shards < 1 or sets < 1:
            raise UserError(
                "Embeddings need at least one shard and one set.",
                received=f"shards={shards}, sets={sets}",
            )
        if init not in ("normal", "uniform"):
            raise UserError(
                "Unknown initial distribution of embeddings.",
                received=init,
                fix="Use 'normal' or 'uniform'.",
            )
        self.shards, self.sets, self.seed, self.init = shards, sets, seed, init
        self.layout = EmbeddingLayout(tables, features)
        for dim, fused in self.layout.fused.items():
            table = partition.partitioned_variable(
                f"{name}/table_{dim}",
                fused.rows,
                sets * dim,
                shards,
                0.0,
                trainable=True,
            )
            setattr(self, f"table_{dim}", table)
        for config in self.layout.tables.values():
            self._initialize(config)

    @property
    def dims(self) -> tuple[int, ...]:
        """The widths, in the order of their first table."""
        return tuple(self.layout.fused)

    @property
    def single_features(self) -> tuple[str, ...]:
        """The single-valued features: the columns of `ids`."""
        return self.layout.single_features

    @property
    def bag_features(self) -> tuple[str, ...]:
        """The multi-valued features: the keys of `bags`."""
        return self.layout.bag_features

    def fields(self, dim: int) -> tuple[str, ...]:
        """Names of the features of width `dim`, in the order of the output's axis 1."""
        return tuple(f.name for f in self.layout.fused[dim].features)

    def parts(self, dim: int) -> list[tf.Variable]:
        """The shards of width `dim` in order, each (rows of the shard, K * dim)."""
        return partition.parts_of(getattr(self, f"table_{dim}"))

    # -- lookup ---------------------------------------------------------------------------------

    def call(self, ids: tf.Tensor, bags: Bags | None = None) -> dict[int, tf.Tensor]:
        """Looks up a batch.

        Args:
            ids: (B, F_single) int64, columns in the order of `single_features`; -1 is missing.
                Needed for the batch size even where F_single is 0.
            bags: For each of `bag_features` the ids (B, None) int64 and weights (B, None) float
                of the same row lengths, or None for weights of 1.

        Returns:
            Width -> (B, F of that width, K, width), fields in the order of `fields(width)`.

        Raises:
            ValueError: `bags` lacks a feature, or `ids` has another number of columns.
            tf.errors.InvalidArgumentError: An id lies outside [-1, rows) of its table. The check
                costs two reductions over the ids, so it always runs.
        """
        bags = bags or {}
        lacking = [name for name in self.bag_features if name not in bags]
        if lacking:
            raise ValueError(f"The bags of features {lacking} were not given, only {list(bags)}.")
        if ids.shape[1] != len(self.single_features):
            raise ValueError(
                f"ids must have {len(self.single_features)} columns {self.single_features}, "
                f"not shape {ids.shape}."
            )
        ids = tf.cast(ids, tf.int64)
        return {dim: self._lookup(fused, ids, bags) for dim, fused in self.layout.fused.items()}

    def _lookup(self, fused: FusedTable, ids: tf.Tensor, bags: Bags) -> tf.Tensor:
        runs = fused.runs()
        if not runs:  # tables that no feature reads yet
            shape = tf.stack([tf.shape(ids)[0], 0, self.sets, fused.dim])
            return tf.zeros(shape, self.compute_dtype)
        kinds: dict[bool, tf.Tensor] = {}
        if fused.single:
            kinds[False] = self._single_fields(fused, ids)
        if fused.bags:
            kinds[True] = self._bag_fields(fused, bags, tf.shape(ids, out_type=tf.int64)[0])
        if len(runs) == 1:
            fields = kinds[runs[0][0]]
        else:
            pieces = {
                bag: iter(tf.split(kind, [n for b, n in runs if b == bag], axis=1))
                for bag, kind in kinds.items()
            }
            fields = tf.concat([next(pieces[bag]) for bag, _ in runs], axis=1)  # (B, F, K, D)
        return tf.cast(fields, self.compute_dtype)

    def _single_fields(self, fused: FusedTable, ids: tf.Tensor) -> tf.Tensor:
        if fused.columns != list(range(len(self.single_features))):
            ids = tf.gather(ids, fused.columns, axis=1)  # (B, F)
        offsets, sizes = fused.limits(fused.single)
        lowest, highest = tf.reduce_min(ids, axis=0), tf.reduce_max(ids, axis=0)  # (F,)
        inside = tf.reduce_all((lowest >= -1) & (highest < sizes))
        _assert_inside(inside, fused.single, sizes, lowest, highest)
        rows = fused.spread.forward_tensor(tf.where(ids < 0, sizes, ids) + offsets)  # (B, F)
        values = partition.lookup(self.parts(fused.dim), tf.reshape(rows, [-1]))  # (B*F, K*D)
        return tf.reshape(values, [-1, len(offsets), self.sets, fused.dim])  # (B, F, K, D)

    def _bag_fields(self, fused: FusedTable, bags: Bags, batch: tf.Tensor) -> tf.Tensor:
        count = len(fused.bags)
        ragged = [bags[f.name][0] for f in fused.bags]
        ids = tf.concat([tf.cast(r.flat_values, tf.int64) for r in ragged], axis=0)  # (N,)
        lengths = tf.stack([tf.size(r.flat_values) for r in ragged])
        feature = tf.repeat(tf.range(count, dtype=tf.int64), lengths)  # (N,)
        example = tf.concat([tf.cast(r.value_rowids(), tf.int64) for r in ragged], axis=0)
        segment = example * count + feature  # (N,), example-major, so that no transpose follows
        offsets, sizes = fused.limits(fused.bags)
        inside = tf.reduce_all((ids >= -1) & (ids < tf.gather(sizes, feature)))
        _assert_inside(inside, fused.bags, sizes, tf.reduce_min(ids), tf.reduce_max(ids))

        weights = tf.concat([_weights(f.name, *bags[f.name]) for f in fused.bags], axis=0)  # (N,)
        # a dropped id reads its table's row 0 with weight 0: the gradient is exactly zero, which
        # the optimizer leaves alone
        weights = tf.where(ids < 0, 0.0, weights)
        rows = fused.spread.forward_tensor(tf.maximum(ids, 0) + tf.gather(offsets, feature))
        values = partition.lookup(self.parts(fused.dim), rows) * weights[:, tf.newaxis]
        sums = tf.math.unsorted_segment_sum(values, segment, batch * count)  # (B*F, K*D)
        sums = tf.reshape(sums, [-1, count, self.sets, fused.dim])  # (B, F, K, D)
        means = [f.combiner == "mean" for f in fused.bags]
        if not any(means):
            return sums
        totals = tf.math.unsorted_segment_sum(weights, segment, batch * count)  # (B*F,)
        totals = tf.reshape(totals, [-1, count])  # (B, F)
        totals = tf.where(tf.constant(means), totals, tf.ones_like(totals))
        return tf.math.divide_no_nan(sums, totals[:, :, tf.newaxis, tf.newaxis])

    # -- rows -----------------------------------------------------------------------------------

    def slot_like(self, name: str, dim: int, width_per_row: int, initial: float) -> Any:
        """Creates an untrained variable cut into the same shards as the table of width `dim`.

        Args:
            name: Name of the variable.
            dim: Width of the table it accompanies.
            width_per_row: Floats per row.
            initial: Initial value of every element.

        Returns:
            A `tf.Variable`, or a `ShardedVariable`, of (rows of the fused table, width_per_row).
        """
        rows = self.layout.fused[dim].rows
        return partition.partitioned_variable(
            name, rows, width_per_row, self.shards, initial, trainable=False
        )

    def read_rows(
        self, table: str, start: int, stop: int, variable: Any | None = None
    ) -> np.ndarray:
        """Reads the rows of the ids [start, stop); the id `rows` stands for the missing one.

        Args:
            table: Name of a logical table.
            start: First id.
            stop: Id after the last one, at most rows + 1.
            variable: What `slot_like` returned; None reads the table itself.

        Returns:
            (stop - start, floats per row) float32.
        """
        fused, parts = self._rows_of(table, variable)
        out = np.empty((stop - start, parts[0].shape[1]), np.float32)
        for low in range(start, stop, SLICE_ROWS):
            high = min(low + SLICE_ROWS, stop)
            rows = fused.spread.forward(np.arange(low, high) + fused.offsets[table])
            out[low - start : high - start] = partition.lookup(parts, tf.constant(rows)).numpy()
        return out

    def write_rows(
        self, table: str, start: int, values: np.ndarray, variable: Any | None = None
    ) -> None:
        """Overwrites the rows of the ids [start, start + N), the counterpart of `read_rows`.

        Args:
            table: Name of a logical table.
            start: First id.
            values: (N, floats per row).
            variable: What `slot_like` returned; None writes the table itself.
        """
        fused, parts = self._rows_of(table, variable)
        for low in range(0, len(values), SLICE_ROWS):
            piece = np.asarray(values[low : low + SLICE_ROWS], np.float32)
            logical = np.arange(len(piece)) + (start + low + fused.offsets[table])
            partition.scatter_rows(parts, fused.spread.forward(logical), piece)

    def read_table(self, name: str) -> np.ndarray:
        """All rows of a logical table by id, (rows + 1, K, dim); the last is the missing id's."""
        config = self.layout.table(name)
        rows = self.read_rows(name, 0, config.rows + 1)
        return rows.reshape(-1, self.sets, config.dim)  # (rows + 1, K, D)

    def write_table(self, name: str, values: np.ndarray) -> None:
        """Overwrites all rows of a logical table by id.

        Args:
            name: Name of a logical table.
            values: (rows + 1, K, dim); the last row is the missing id's.

        Raises:
            ValueError: `values` has another shape.
        """
        config = self.layout.table(name)
        shape = (config.rows + 1, self.sets, config.dim)
        if values.shape != shape:
            raise ValueError(f"Table '{name}' takes values of shape {shape}, not {values.shape}.")
        self.write_rows(name, 0, values.reshape(shape[0], -1))  # (rows + 1, K*D)

    def _rows_of(self, table: str, variable: Any | None) -> tuple[FusedTable, list[tf.Variable]]:
        dim = self.layout.table(table).dim
        parts = self.parts(dim) if variable is None else partition.parts_of(variable)
        return self.layout.fused[dim], parts

    def _initialize(self, table: TableConfig) -> None:
        """Writes a table's initial values, block by block of its ids."""
        shape = (INIT_BLOCK, self.sets * table.dim)
        blocks = -(-table.rows // INIT_BLOCK)
        for block in [*range(blocks), _MISSING_BLOCK]:
            start = table.rows if block == _MISSING_BLOCK else block * INIT_BLOCK
            count = 1 if block == _MISSING_BLOCK else min(INIT_BLOCK, table.rows - start)
            seed = tf.constant([self.seed, derive(block, table.name)], tf.int64)
            if self.init == "normal":
                draw = tf.random.stateless_normal(shape, seed, alg="philox")
            else:
                draw = tf.random.stateless_uniform(shape, seed, -1.0, 1.0, alg="philox")
            self.write_rows(table.name, start, draw[:count].numpy() * np.float32(table.init_scale))

    # -- layout ---------------------------------------------------------------------------------

    def manifest(self) -> dict[str, Any]:
        """The layout as plain JSON values, to be kept beside a checkpoint.

        Returns:
            `name`, `shards`, `sets`, `seed`, `init`, and what `EmbeddingLayout.manifest` returns:
            `tables`, `features`, `spread`.
        """
        config = self.get_config()
        return {k: v for k, v in config.items() if k not in ("tables", "features")} | (
            self.layout.manifest()
        )

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any], **changes: Any) -> ShardedEmbedding:
        """Builds the layer that a manifest describes, to restore its checkpoint into.

        Args:
            manifest: What `manifest()` returned, perhaps through JSON.
            **changes: Constructor arguments to replace, such as `shards=1`.

        Raises:
            UserError: The spread of the rows has changed since the manifest was written.
        """
        kept = {key: manifest[key] for key in ("name", "shards", "sets", "seed", "init")}
        layer = cls(
            [
                TableConfig(name, table["rows"], table["dim"], table["init_scale"])
                for name, table in manifest["tables"].items()
            ],
            [
                EmbeddedFeature(name, feature["table"], feature["combiner"])
                for name, feature in manifest["features"].items()
            ],
            **(kept | changes),
        )
        if layer.manifest()["spread"] != manifest["spread"]:
            raise UserError(
                "The saved embedding tables spread their rows in another way.",
                received=manifest["spread"],
                fix="Read the checkpoint with the version of the library that wrote it.",
            )
        return layer

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain values."""
        return {
            "name": self.name,
            "tables": [asdict(table) for table in self.layout.tables.values()],
            "features": [asdict(feature) for feature in self.layout.features],
            "shards": self.shards,
            "sets": self.sets,
            "seed": self.seed,
            "init": self.init,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ShardedEmbedding:
        """Builds the layer from `get_config()`."""
        rest = {k: v for k, v in config.items() if k not in ("tables", "features")}
        tables = [TableConfig(**table) for table in config["tables"]]
        return cls(tables, [EmbeddedFeature(**f) for f in config["features"]], **rest)


def _weights(name: str, ids: tf.RaggedTensor, weights: tf.RaggedTensor | None) -> tf.Tensor:
    """Flat float32 weights of a bag, ones if there are none."""
    if weights is None:
        return tf.ones_like(ids.flat_values, tf.float32)
    same = tf.debugging.assert_equal(
        ids.row_splits, weights.row_splits, message=f"Feature '{name}': ids and weights differ."
    )
    with tf.control_dependencies([same] if same is not None else []):
        return tf.cast(weights.flat_values, tf.float32)


def _assert_inside(
    inside: tf.Tensor,
    features: Sequence[EmbeddedFeature],
    sizes: np.ndarray,
    lowest: tf.Tensor,
    highest: tf.Tensor,
) -> None:
    """Stops the step where an id would read a row of another table."""
    names = [feature.name for feature in features]
    message = f"An embedding id lies outside [-1, rows) of its table. Features {names}, rows:"
    data = [message, tf.constant(sizes), "lowest ids:", lowest, "highest ids:", highest]
    tf.debugging.Assert(inside, data, summarize=len(names))
