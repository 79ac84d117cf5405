"""One optimizer for row-sparse tables and dense variables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from lfm4ads_tf.embeddings.partition import parts_of
from lfm4ads_tf.embeddings.table import ShardedEmbedding
from lfm4ads_tf.errors import UserError


class HybridOptimizer(tf.Module):
    """Row-sparse Adagrad for `ShardedEmbedding` tables, Adam or AdamW for everything else.

    Table rows that the batch touched, g being the sum of a row's gradients over the batch:
        A <- A + g^2                      (row_wise: A <- A + mean of g^2 over a set's D floats)
        w <- w - table_lr * g / (sqrt(A) + epsilon)
    No other row is read or written, so a step costs the batch, never the table. A set whose
    gradient is exactly zero for a row keeps its value and its slot bit by bit.

    Dense variables at step t:
        m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2
        w <- w - dense_lr * weight_decay * w     (decoupled; not for the names in `no_decay`)
        w <- w - dense_lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon)

    Slots are tracked by the path of their variable, not by position: a variable that is added
    later leaves the slots of the others where they are in a checkpoint. The learning rates are
    variables, may be assigned between steps and are part of a checkpoint.

    Sources: Duchi et al., 2011 (Adagrad); Kingma and Ba, ICLR 2015, section 2 with epsilon outside
    the bias correction (Adam); Loshchilov and Hutter, ICLR 2019, algorithm 2 (AdamW).

    Args:
        table_learning_rate: Step size of the tables.
        dense_learning_rate: Step size of the dense variables.
        weight_decay: Decoupled decay of the dense variables; 0 is plain Adam.
        no_decay: Dense variables whose path contains one of these strings are not decayed.
        adagrad_initial: Initial value of A.
        epsilon: Added to the square roots; above 0.
        beta_1: Decay b1 of Adam's first moment.
        beta_2: Decay b2 of Adam's second moment.
        clip_norm: Upper bound of the global L2 norm over all gradients, duplicates summed and
            `table_l2` included; None does not clip.
        table_l2: Adds table_l2 * w to the gradient of the rows and sets the batch touched, the
            gradient of table_l2 / 2 * |w|^2.
        row_wise: One float of A per row and set instead of one per element.
        name: Name of the module.

    Raises:
        UserError: `epsilon` is not positive.
    """

    def __init__(
        self,
        table_learning_rate: float,
        dense_learning_rate: float,
        *,
        weight_decay: float = 0.0,
        no_decay: Sequence[str] = ("bias",),
        adagrad_initial: float = 0.1,
        epsilon: float = 1e-7,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        clip_norm: float | None = None,
        table_l2: float = 0.0,
        row_wise: bool = False,
        name: str = "hybrid_optimizer",
    ) -> None:
        super().__init__(name=name)
        if epsilon <= 0.0:
            raise UserError("The optimizer's epsilon must be positive.", received=epsilon)
        self.table_learning_rate = _scalar(table_learning_rate, "table_learning_rate")
        self.dense_learning_rate = _scalar(dense_learning_rate, "dense_learning_rate")
        self.iterations = tf.Variable(0, dtype=tf.int64, trainable=False, name="iterations")
        self.weight_decay = weight_decay
        self.no_decay = tuple(no_decay)
        self.adagrad_initial = adagrad_initial
        self.epsilon = epsilon
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.clip_norm = clip_norm
        self.table_l2 = table_l2
        self.row_wise = row_wise
        self.accumulators: dict[str, Any] = {}
        self.first_moments: dict[str, tf.Variable] = {}
        self.second_moments: dict[str, tf.Variable] = {}
        self._known = _Known()

    def build(
        self,
        embeddings: Sequence[ShardedEmbedding],
        dense_variables: Sequence[tf.Variable] | Mapping[str, tf.Variable],
    ) -> None:
        """Creates the slots; call it before the first step and before a checkpoint is restored.

        A further call adds slots for what is new and keeps the others.

        Args:
            embeddings: The layers whose tables are trained; their names must differ.
            dense_variables: All other variables, keyed by their `name`, or by the given path.
                Name the layers: a generated name such as `dense_3` counts the layers that the
                process made before, and its slots would not be found again.

        Raises:
            UserError: Two different variables have one path.
        """
        for layer in embeddings:
            for dim in layer.dims:
                path = _table_path(layer, dim)
                if path not in self.accumulators:
                    width = layer.sets * (1 if self.row_wise else dim)
                    self.accumulators[path] = layer.slot_like(
                        f"{self.name}/{path}/accumulator", dim, width, self.adagrad_initial
                    )
                slots = parts_of(self.accumulators[path])
                for i, (part, slot) in enumerate(zip(layer.parts(dim), slots, strict=True)):
                    self._known.add(f"{path}/part_{i}", part)
                    self._known.tables[part.ref()] = (slot, layer.sets)
        if not isinstance(dense_variables, Mapping):
            named = [(variable.name.split(":")[0], variable) for variable in dense_variables]
        else:
            named = list(dense_variables.items())
        for path, variable in named:
            self._known.add(path, variable)
            self._known.dense[variable.ref()] = path
            for moment, moments in (("m", self.first_moments), ("v", self.second_moments)):
                if path not in moments:
                    moments[path] = tf.Variable(
                        tf.zeros(variable.shape, tf.float32),
                        trainable=False,
                        name=f"{self.name}/{path}/{moment}",
                    )

    def accumulator(self, layer: ShardedEmbedding, dim: int) -> Any:
        """Adagrad's A for the table of width `dim`: a variable cut like the table.

        Returns:
            (rows of the fused table, K or K * dim), for `ShardedEmbedding.read_rows`.
        """
        return self.accumulators[_table_path(layer, dim)]

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, tf.Variable]]) -> None:
        """One step.

        Args:
            grads_and_vars: Pairs as from `zip(tape.gradient(...), variables)`; table shards come
                with `tf.IndexedSlices`, and a gradient of None leaves its variable alone.

        Raises:
            ValueError: A variable was not given to `build`, or the gradient of a table is dense,
                which would touch every row.
        """
        tables: list[tuple[tf.Variable, tf.Tensor, tf.Tensor]] = []
        dense: list[tuple[tf.Variable, tf.Tensor]] = []
        for gradient, variable in grads_and_vars:
            if gradient is None:
                continue
            if variable.ref() in self._known.tables:
                tables.append((variable, *self._touched(gradient, variable)))
            elif variable.ref() in self._known.dense:
                dense.append((variable, tf.convert_to_tensor(gradient)))
            else:
                raise ValueError(f"The optimizer was not built with variable '{variable.name}'.")
        if self.clip_norm is not None:
            squares = [tf.reduce_sum(tf.square(g)) for *_, g in [*tables, *dense]]
            norm = tf.sqrt(tf.add_n(squares)) if squares else tf.constant(0.0)
            scale = self.clip_norm / tf.maximum(norm, self.clip_norm)
            tables = [(variable, rows, g * scale) for variable, rows, g in tables]
            dense = [(variable, g * scale) for variable, g in dense]
        self.iterations.assign_add(1)
        for variable, rows, gradient in tables:
            self._adagrad(variable, rows, gradient)
        for variable, gradient in dense:
            self._adam(variable, gradient)

    def _touched(self, gradient: Any, part: tf.Variable) -> tuple[tf.Tensor, tf.Tensor]:
        """Distinct rows (U,) of the gradient and their summed gradients (U, K, D)."""
        if not isinstance(gradient, tf.IndexedSlices):
            raise ValueError(
                f"The gradient of table '{part.name}' is dense and would touch every row; read "
                "tables through their layer only."
            )
        rows, index = tf.unique(gradient.indices)
        summed = tf.math.unsorted_segment_sum(gradient.values, index, tf.size(rows))
        _, sets = self._known.tables[part.ref()]
        shape = [-1, sets, part.shape[1] // sets]
        summed = tf.reshape(summed, shape)  # (U, K, D)
        if self.table_l2:
            touched = tf.reduce_any(summed != 0.0, axis=-1, keepdims=True)  # (U, K, 1)
            values = tf.reshape(tf.gather(part, rows), shape)  # (U, K, D)
            summed += self.table_l2 * tf.where(touched, values, 0.0)
        return rows, summed

    def _adagrad(self, part: tf.Variable, rows: tf.Tensor, gradient: tf.Tensor) -> None:
        slot, sets = self._known.tables[part.ref()]
        squares = tf.square(gradient)  # (U, K, D)
        if self.row_wise:
            squares = tf.reduce_mean(squares, axis=-1, keepdims=True)  # (U, K, 1)
        sums = tf.reshape(tf.gather(slot, rows), [-1, sets, squares.shape[-1]]) + squares
        slot.scatter_update(tf.IndexedSlices(tf.reshape(sums, [-1, slot.shape[1]]), rows))
        step = self.table_learning_rate * gradient / (tf.sqrt(sums) + self.epsilon)
        part.scatter_sub(tf.IndexedSlices(tf.reshape(step, [-1, part.shape[1]]), rows))

    def _adam(self, variable: tf.Variable, gradient: tf.Tensor) -> None:
        path = self._known.dense[variable.ref()]
        if self.weight_decay and not any(word in path for word in self.no_decay):
            variable.assign_sub(self.dense_learning_rate * self.weight_decay * variable)
        step = tf.cast(self.iterations, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self.first_moments[path].handle,
            v=self.second_moments[path].handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=self.dense_learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


class _Known:
    """What `build` saw, by variable; a plain object, so that checkpoints do not follow it."""

    def __init__(self) -> None:
        self.tables: dict[Any, tuple[tf.Variable, int]] = {}  # shard -> (its slot, sets)
        self.dense: dict[Any, str] = {}  # variable -> path
        self._owners: dict[str, Any] = {}  # path -> variable

    def add(self, path: str, variable: tf.Variable) -> None:
        """Remembers the owner of a path and refuses a second one."""
        if self._owners.setdefault(path, variable.ref()) != variable.ref():
            raise UserError(
                f"Two trained variables have the path '{path}', so their optimizer slots would "
                "be one.",
                fix="Give the layers different names, or pass dense variables as path -> variable.",
            )


def _table_path(layer: ShardedEmbedding, dim: int) -> str:
    return f"{layer.name}/table_{dim}"


def _scalar(value: float, name: str) -> tf.Variable:
    return tf.Variable(value, dtype=tf.float32, trainable=False, name=name)
