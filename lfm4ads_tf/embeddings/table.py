"""Embedding tables of many features, fused by width, sharded by rows, with a set axis."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf
import tf_keras

from lfm4ads_tf.embeddings import lookup, segments, table_shards
from lfm4ads_tf.embeddings.embedded_feature import EmbeddedFeature
from lfm4ads_tf.embeddings.fused_table import FusedTable
from lfm4ads_tf.embeddings.initial import initial_blocks
from lfm4ads_tf.embeddings.layout import EmbeddingLayout
from lfm4ads_tf.embeddings.lookup import Bags
from lfm4ads_tf.embeddings.quantize import QuantizedTable
from lfm4ads_tf.embeddings.table_config import TableConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.rebuildable import Rebuildable

__all__ = ["EmbeddedFeature", "ShardedEmbedding", "TableConfig", "layer_of"]

SLICE_ROWS = 1 << 16  # rows copied at once by reads and writes
_LAYER = "_sharded_embedding"  # attribute of a shard: a reference to its layer
_LAYER_KEYS = ("name", "shards", "sets", "seed", "init", "tables_per_width")
_TABLE_KEYS = ("name", "rows", "dim", "init_scale", "storage", "trainable", "group", "hashing")


class ShardedEmbedding(Rebuildable, tf_keras.layers.Layer):
    """Looks up all features of a model in tables that are fused by width and cut into shards.

    Tables of one width D, storage, optimizer group and trainability share one physical table of
    (sum of (rows + 1), K * D), K being the number of sets, so a batch costs one gather for the
    single-valued features and one for the bags, however many features there are. Physical row =
    spread(offset of the table + id); the id -1 (missing) reads the last row of its table. Single
    value: e_f = W[row(id)]; bag: e_f = sum_j w_j W[row(id_j)], divided by sum_j w_j for "mean"
    (zeros if that is 0), or the element-wise maximum for "max". Missing ids inside a bag are
    dropped. A table with `hashing` adds the two rows of an id.

    The initial value of a row depends on (seed, table name, row) alone: not on the number of
    shards, nor on how many rows its own or any other table has.
    Variables exist from construction on: one `tf.Variable` per physical table, or with `shards` >
    1 a `ShardedVariable`, which a checkpoint sees as one tensor. `ExportArchive` needs a layer with
    `shards=1`: restore the checkpoint into one, or use `transplant`. A table of storage "int8" is
    a `QuantizedTable`: it is for inference, and whole.

    Tables are of their `storage` and read in float32 under every dtype policy of Keras; what is
    looked up has the policy's compute dtype. A functional model that holds the layer is loaded by a
    process that has named the class, as `lfm4ads_tf.ShardedEmbedding`. Save models that hold it to
    `.keras` files: Keras' older formats take no output whose keys are widths.

    Args:
        tables: The logical tables.
        features: The features in the order in which their fields are returned.
        shards: Contiguous shards per physical table (never more than rows).
        sets: Embeddings K per row.
        seed: Seed of the initial values. Two layers of one seed give a table of one name the same
            start.
        init: Distribution of the initial values, scaled by each table's `init_scale`.
        tables_per_width: Physical tables that the tables of one width are dealt to. TensorFlow's
            own sparse ops use one thread each, so a few tables keep the cores busy where the
            compiled kernels are not installed; with the kernels one table is fastest.
        name: Layer name; it also names the variables and the optimizer's slots.

    Raises:
        UserError: Duplicate or unknown names, sizes below 1, or int8 tables in several shards.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> import tensorflow as tf
        >>> tables = lfm.ShardedEmbedding(
        ...     [lfm.TableConfig("item", rows=100, dim=8)],
        ...     [
        ...         lfm.EmbeddedFeature("ad", table="item"),
        ...         lfm.EmbeddedFeature("clicked", table="item", combiner="mean"),
        ...     ],
        ...     shards=2,
        ... )
        >>> clicked = tf.ragged.constant([[1, 2], []], dtype=tf.int64)
        >>> fields = tables(tf.constant([[3], [-1]]), {"clicked": (clicked, None)})
        >>> fields[8].shape  # (B, F, K, D)
        TensorShape([2, 2, 1, 8])
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
        tables_per_width: int = 1,
        name: str = "embeddings",
    ) -> None:
        super().__init__(name=name)
        if shards < 1 or sets < 1 or tables_per_width < 1:
            raise UserError(
                "Embeddings need at least one shard, one set and one table per width.",
                received=f"shards={shards}, sets={sets}, tables_per_width={tables_per_width}",
            )
        if init not in ("normal", "uniform"):
            raise UserError(
                "Unknown initial distribution of embeddings.",
                received=init,
                fix="Use 'normal' or 'uniform'.",
            )
        self.shards, self.sets, self.seed, self.init = shards, sets, seed, init
        self.tables_per_width = tables_per_width
        self.layout = EmbeddingLayout(tables, features, tables_per_width)
        for fused in self.layout.fused.values():
            setattr(self, f"table_{fused.name}", self._new_table(fused))
        for part in self.all_parts():
            vars(part)[_LAYER] = weakref.ref(self)
        for config in self.layout.tables.values():
            fused, parts = self._rows_of(config.name, None)
            workers = segments.workers_of(parts)
            if workers is not None:
                segments.fill_rows(workers, fused, parts, config, init, seed)
                continue
            rows, width, scale = config.stored_rows, sets * config.dim, config.init_scale
            for start, block in initial_blocks(config.name, rows, width, init, scale, seed):
                self.write_rows(config.name, start, block)

    def _new_table(self, fused: FusedTable) -> Any:
        """A physical table of zeros."""
        path = f"{self.name}/table_{fused.name}"
        if fused.storage != "int8":
            return table_shards.partitioned_variable(
                path,
                fused.rows,
                self.sets * fused.dim,
                self.shards,
                0.0,
                trainable=fused.trainable,
                storage=fused.storage,
            )
        if self.shards > 1:
            raise UserError(
                "Embedding tables of int8 are for inference and have one shard.",
                received=f"shards={self.shards}",
                fix="use one shard, or another storage",
            )
        return QuantizedTable(path, fused.rows, self.sets, fused.dim)

    @property
    def dims(self) -> tuple[int, ...]:
        """The widths, in the order of their first table."""
        return self.layout.dims

    @property
    def physical(self) -> tuple[str, ...]:
        """Names of the physical tables."""
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
        return self.layout.fields(dim)

    def parts(self, physical: str) -> list[tf.Variable]:
        """The shards of a physical table in order, each (rows of the shard, K * dim).

        An int8 table is one `QuantizedTable`, which reads and writes rows but is no variable.
        """
        return table_shards.parts_of(getattr(self, f"table_{physical}"))

    def all_parts(self) -> list[tf.Variable]:
        """The shards of all physical tables."""
        return [part for name in self.physical for part in self.parts(name)]

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Puts every logical table into a `.keras` file, (stored_rows + 1, K, dim) float32."""
        for name in self.layout.tables:
            store[name] = self.read_table(name)

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Takes the tables of a `.keras` file, however they are cut now.

        Raises:
            ValueError: A table is not there or has other rows, sets or width.
        """
        for name, config in self.layout.tables.items():
            shape = config.stored_rows + 1, self.sets, config.dim
            stored = tuple(store[name].shape) if name in store else None
            if stored != shape:
                raise ValueError(f"Table '{name}' has shape {shape}; the file holds {stored}.")
            self.write_table(name, np.asarray(store[name]))

    # -- lookup ---------------------------------------------------------------------------------

    def call(
        self, ids: tf.Tensor, bags: Bags | None = None, training: bool = False
    ) -> dict[int, tf.Tensor]:
        """Looks up a batch.

        Args:
            ids: (B, F_single) int32 or int64, columns in the order of `single_features`; -1 is
                missing. Needed for the batch size even where F_single is 0.
            bags: For each of `bag_features` the ids (B, None) int64 and weights (B, None) float
                of the same row lengths, or None for weights of 1.
            training: Whether compiled kernels may be used; an exported graph holds none.

        Returns:
            Width -> (B, F of that width, K, width), fields in the order of `fields(width)`.

        Raises:
            ValueError: `bags` lacks a feature, or `ids` has another number of columns, or a bag
                with a maximum has weights.
            tf.errors.InvalidArgumentError: An id lies outside [-1, rows) of its table. The check
                costs two reductions over the ids, so it always runs.
        """
        return self.lookup(self.layout, ids, bags, training)

    def lookup(
        self,
        layout: EmbeddingLayout,
        ids: tf.Tensor,
        bags: Bags | None = None,
        training: bool = False,
    ) -> dict[int, tf.Tensor]:
        """Looks up some of the features, as `call` does all of them.

        Args:
            layout: `self.layout.only(...)`; its features are the columns of `ids` and the bags.
            ids, bags, training: See `call`.

        Returns:
            Width -> (B, F of that width among the layout's, K, width).
        """
        bags = bags or {}
        lacking = [name for name in layout.bag_features if name not in bags]
        if lacking:
            raise ValueError(f"The bags of features {lacking} were not given, only {list(bags)}.")
        if ids.shape[1] != len(layout.single_features):
            raise ValueError(
                f"ids must have {len(layout.single_features)} columns {layout.single_features}, "
                f"not shape {ids.shape}."
            )
        ids = tf.cast(ids, tf.int64)
        return {dim: self._lookup(layout, dim, ids, bags, training) for dim in self.dims}

    def sequence(
        self, feature: str, ids: tf.RaggedTensor, length: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Looks up a bag without pooling it, for layers that read sequences.

        Args:
            feature: One of `bag_features`.
            ids: (B, None) int64; -1 reads the missing id's row.
            length: L; longer sequences keep their last L values.

        Returns:
            (B, L, K, D) float32, zeros behind a sequence's end, and the mask (B, L) bool.
        """
        entry = next(f for f in self.layout.features if f.name == feature)
        fused, table = self.layout.home(entry.table), self.layout.table(entry.table)
        last = ids[:, -length:]
        mask = tf.sequence_mask(last.row_lengths(), length)  # (B, L)
        padded = last.to_tensor(-1, shape=[None, length])  # (B, L)
        flat = tf.reshape(tf.cast(padded, tf.int64), [-1, 1])  # (B*L, 1)
        one = FusedTable(
            fused.name, list(fused.tables.values()), [EmbeddedFeature(feature, table.name)], [0]
        )
        values = lookup.single_fields(one, self.parts(fused.name), flat, self.sets)
        values = tf.reshape(values, [-1, length, self.sets, fused.dim])  # (B, L, K, D)
        values = tf.where(mask[:, :, tf.newaxis, tf.newaxis], values, 0.0)
        return tf.cast(values, self.compute_dtype), mask

    def _lookup(
        self, layout: EmbeddingLayout, dim: int, ids: tf.Tensor, bags: Bags, training: bool
    ) -> tf.Tensor:
        """(B, F of the width, K, D), the features in declared order."""
        names: list[str] = []
        pieces: list[tf.Tensor] = []
        batch = tf.shape(ids, out_type=tf.int64)[0]
        for fused in layout.fused.values():
            parts = self.parts(fused.name) if fused.dim == dim else []
            if parts and fused.single:
                names += [f.name for f in fused.single]
                pieces.append(lookup.single_fields(fused, parts, ids, self.sets, training))
            if parts and fused.pooled:
                names += [f.name for f in fused.pooled]
                pieces.append(lookup.pooled_fields(fused, parts, bags, batch, self.sets))
            if parts and fused.maxed:
                names += [f.name for f in fused.maxed]
                pieces.append(lookup.max_fields(fused, parts, bags, batch, self.sets))
        if not pieces:  # tables that no feature reads yet
            shape = tf.stack([tf.shape(ids)[0], 0, self.sets, dim])
            return tf.zeros(shape, self.compute_dtype)
        return tf.cast(_in_order(pieces, names, layout.fields(dim)), self.compute_dtype)

    # -- rows -----------------------------------------------------------------------------------

    def slot_like(self, name: str, physical: str, width_per_row: int, initial: float) -> Any:
        """Creates an untrained float32 variable cut into the same shards as a physical table.

        On parameter servers each of its shards lies beside the table's.

        Args:
            name: Name of the variable.
            physical: Name of the physical table it accompanies.
            width_per_row: Floats per row.
            initial: Initial value of every element.

        Returns:
            A `tf.Variable`, or a `ShardedVariable`, of (rows of the physical table,
            width_per_row).
        """
        return table_shards.partitioned_variable(
            name,
            self.layout.fused[physical].rows,
            width_per_row,
            self.shards,
            initial,
            trainable=False,
            neighbours=self.parts(physical),
        )

    def read_rows(
        self, table: str, start: int, stop: int, variable: Any | None = None
    ) -> np.ndarray:
        """Reads the stored rows [start, stop) of a logical table.

        A table without `hashing` stores one row per id; the last of its `stored_rows` + 1 rows is
        the missing id's.

        Args:
            table: Name of a logical table.
            start: First row.
            stop: Row after the last one, at most stored_rows + 1.
            variable: What `slot_like` returned; None reads the table itself.

        Returns:
            (stop - start, floats per row) float32.
        """
        fused, parts = self._rows_of(table, variable)
        out = np.empty((stop - start, parts[0].shape[1]), np.float32)
        for low in range(start, stop, SLICE_ROWS):
            high = min(low + SLICE_ROWS, stop)
            rows = fused.spread.forward(np.arange(low, high) + fused.offsets[table])
            out[low - start : high - start] = table_shards.read_shards(
                parts, tf.constant(rows)
            ).numpy()
        return out

    def write_rows(
        self, table: str, start: int, values: np.ndarray, variable: Any | None = None
    ) -> None:
        """Overwrites the stored rows [start, start + N), the counterpart of `read_rows`.

        Args:
            table: Name of a logical table.
            start: First row.
            values: (N, floats per row).
            variable: What `slot_like` returned; None writes the table itself.
        """
        fused, parts = self._rows_of(table, variable)
        for low in range(0, len(values), SLICE_ROWS):
            piece = np.asarray(values[low : low + SLICE_ROWS], np.float32)
            logical = np.arange(len(piece)) + (start + low + fused.offsets[table])
            table_shards.scatter_rows(parts, fused.spread.forward(logical), piece)

    def read_table(self, name: str) -> np.ndarray:
        """All stored rows of a logical table, (stored_rows + 1, K, dim); the last is missing's."""
        config = self.layout.table(name)
        rows = self.read_rows(name, 0, config.stored_rows + 1)
        return rows.reshape(-1, self.sets, config.dim)  # (stored_rows + 1, K, D)

    def write_table(self, name: str, values: np.ndarray) -> None:
        """Overwrites all stored rows of a logical table.

        Args:
            name: Name of a logical table.
            values: (stored_rows + 1, K, dim); the last row is the missing id's.

        Raises:
            ValueError: `values` has another shape.
        """
        config = self.layout.table(name)
        shape = (config.stored_rows + 1, self.sets, config.dim)
        if values.shape != shape:
            raise ValueError(f"Table '{name}' takes values of shape {shape}, not {values.shape}.")
        self.write_rows(name, 0, values.reshape(shape[0], -1))  # (stored_rows + 1, K*D)

    def _rows_of(self, table: str, variable: Any | None) -> tuple[FusedTable, list[tf.Variable]]:
        fused = self.layout.home(table)
        parts = self.parts(fused.name) if variable is None else table_shards.parts_of(variable)
        return fused, parts

    # -- layout ---------------------------------------------------------------------------------

    def manifest(self) -> dict[str, Any]:
        """The layout as plain JSON values, to be kept beside a checkpoint.

        Returns:
            `name`, `shards`, `sets`, `seed`, `init`, `tables_per_width`, and what
            `EmbeddingLayout.manifest` returns: `tables`, `features`, `spread`.
        """
        return {key: getattr(self, key) for key in _LAYER_KEYS} | self.layout.manifest()

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any], **changes: Any) -> ShardedEmbedding:
        """Builds the layer that a manifest describes, to restore its checkpoint into.

        Args:
            manifest: What `manifest()` returned, perhaps through JSON.
            **changes: Constructor arguments to replace, such as `shards=1`.

        Raises:
            UserError: The spread of the rows has changed since the manifest was written.
        """
        layer = cls(
            [
                TableConfig.from_json({key: table[key] for key in _TABLE_KEYS})
                for table in manifest["tables"].values()
            ],
            [
                EmbeddedFeature(name, feature["table"], feature["combiner"])
                for name, feature in manifest["features"].items()
            ],
            **({key: manifest[key] for key in _LAYER_KEYS} | changes),
        )
        if layer.manifest()["spread"] != manifest["spread"]:
            raise UserError(
                "The saved embedding tables spread their rows in another way.",
                received=manifest["spread"],
                fix="Read the checkpoint with the version of the library that wrote it.",
            )
        return layer


def _in_order(
    pieces: Sequence[tf.Tensor], names: Sequence[str], wanted: Sequence[str]
) -> tf.Tensor:
    """Joins pieces along axis 1 and brings their columns `names` into the order `wanted`."""
    if list(names) == list(wanted):
        return pieces[0] if len(pieces) == 1 else tf.concat(pieces, axis=1)
    # Each piece holds its columns in the wanted order, so it is cut into runs once; a split's
    # gradient is one concatenation.
    home: dict[str, int] = {}
    at = iter(names)
    for i, piece in enumerate(pieces):
        home.update({next(at): i for _ in range(int(piece.shape[1]))})
    runs: list[tuple[int, int]] = []  # piece, number of columns
    for name in wanted:
        if runs and runs[-1][0] == home[name]:
            runs[-1] = (home[name], runs[-1][1] + 1)
        else:
            runs.append((home[name], 1))
    cut = [
        iter(tf.split(piece, [n for p, n in runs if p == i], axis=1))
        for i, piece in enumerate(pieces)
    ]
    return tf.concat([next(cut[i]) for i, _ in runs], axis=1)


def layer_of(variable: tf.Variable) -> ShardedEmbedding | None:
    """The layer that a variable is a table's shard of, None where it is no table's."""
    reference = vars(variable).get(_LAYER)
    layer: ShardedEmbedding | None = None if reference is None else reference()
    return layer
