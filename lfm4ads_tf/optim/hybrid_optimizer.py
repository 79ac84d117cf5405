"""One optimizer for row-sparse tables and dense variables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import tensorflow as tf
import tf_keras

from lfm4ads_tf.embeddings.fused_table import FusedTable
from lfm4ads_tf.embeddings.placement.beside import beside
from lfm4ads_tf.embeddings.table import ShardedEmbedding, layer_of
from lfm4ads_tf.embeddings.table_shards import parts_of
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.optim.adam_step import adam_step
from lfm4ads_tf.optim.row_update import sum_duplicates, update_rows
from lfm4ads_tf.optim.rules.adagrad import Adagrad
from lfm4ads_tf.optim.rules.row_rule import options_of_rule, row_rule
from lfm4ads_tf.optim.rules.rule import RowRule
from lfm4ads_tf.optim.variable_paths import holds, is_kind, path_of

_PATHS = "paths"
"""Key of a `.keras` file: the paths of the dense variables as JSON, in the order of the moments."""


@tf_keras.saving.register_keras_serializable(package=__name__)
class HybridOptimizer(tf_keras.optimizers.Optimizer):
    """A row-sparse rule for `ShardedEmbedding` tables, Adam or AdamW for everything else.

    A Keras optimizer: `compile` takes it, for the models of this package and for others that hold
    `ShardedEmbedding` layers, and `.keras` files keep its slots.

    Of a table only the rows that the batch touched are read or written, so a step costs the batch,
    never the table. The gradients of a row's occurrences are summed first; a set whose summed
    gradient is exactly zero for a row keeps its value and its slots bit by bit. The rules are in
    `lfm4ads_tf.optim.rules`; the default is Adagrad.

    Dense variables at step t:
        m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2
        w <- w - dense_lr * weight_decay * w     (decoupled; not for the names in `no_decay`)
        w <- w - dense_lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon)

    Slots are tracked by the path of their variable, not by position: a variable that is added
    later leaves the slots of the others where they are in a checkpoint. The learning rates are
    variables, may be assigned between steps and are part of a checkpoint; Keras' callbacks that set
    one `learning_rate` do not know which of the two they would move and are refused.

    Sources: Kingma and Ba, ICLR 2015, section 2 with epsilon outside the bias correction (Adam);
    Loshchilov and Hutter, ICLR 2019, algorithm 2 (AdamW).

    Args:
        table_learning_rate: Step size of the tables.
        dense_learning_rate: Step size of the dense variables.
        rule: Update rule of the tables, or its name, such as `adam`.
        group_rates: Factors of the learning rate: of the tables whose `TableConfig.group` is the
            key, and of the dense variables whose path holds the key in whole segments
            (`variable_paths.holds`). Several matches multiply.
        weight_decay: Decoupled decay of the dense variables; 0 is plain Adam.
        no_decay: Kinds of dense variables that are not decayed: those with a segment in their path
            that is the kind, begins with it and `_`, or ends with `_` and it, such as `bias`,
            `bias_2` and `logit_bias`.
        epsilon: Added to the root of the dense variables' v; above 0.
        beta_1: Decay b1 of Adam's first moment.
        beta_2: Decay b2 of Adam's second moment.
        clip_norm: Upper bound of the global L2 norm over all gradients, duplicates summed and
            `table_l2` included; None does not clip.
        table_l2: Adds table_l2 * w to the gradient of the rows and sets the batch touched, the
            gradient of table_l2 / 2 * |w|^2.
        name: Name of the module.

    Raises:
        UserError: `epsilon` is not positive, a rate, decay, bound or factor is no number of 0 or
            more, or the rule is unknown.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> import tensorflow as tf
        >>> tables = lfm.ShardedEmbedding(
        ...     [lfm.TableConfig("item", rows=9, dim=2)], [lfm.EmbeddedFeature("item", "item")]
        ... )
        >>> optimizer = lfm.HybridOptimizer(table_learning_rate=0.1)
        >>> optimizer.build(tables.trainable_variables)
        >>> before = tables.read_table("item")
        >>> with tf.GradientTape() as tape:
        ...     loss = tf.reduce_sum(tables(tf.constant([[4], [7]]))[2])
        >>> gradients = tape.gradient(loss, tables.trainable_variables)
        >>> optimizer.apply_gradients(zip(gradients, tables.trainable_variables))
        >>> moved = (tables.read_table("item") != before).any(axis=(1, 2))
        >>> moved.nonzero()[0].tolist()  # the rows of the batch, no others
        [4, 7]
    """

    def __init__(
        self,
        table_learning_rate: float = 0.05,
        dense_learning_rate: float = 1e-3,
        *,
        rule: RowRule | str | None = None,
        group_rates: Mapping[str, float] | None = None,
        weight_decay: float = 0.0,
        no_decay: Sequence[str] = ("bias",),
        epsilon: float = 1e-7,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        clip_norm: float | None = None,
        table_l2: float = 0.0,
        name: str = "hybrid_optimizer",
    ) -> None:
        super().__init__(name=name)
        for what, value in (
            ("table_learning_rate", table_learning_rate),
            ("dense_learning_rate", dense_learning_rate),
            ("weight_decay", weight_decay),
            ("table_l2", table_l2),
            ("clip_norm", 1.0 if clip_norm is None else clip_norm),
        ):
            if not isinstance(value, (int, float, np.number)) or not 0.0 <= value < math.inf:
                raise UserError(
                    f"The optimizer's {what} must be a number of 0 or more.",
                    received=repr(value),
                )
        if epsilon <= 0.0:
            raise UserError("The optimizer's epsilon must be positive.", received=epsilon)
        self.group_rates = dict(group_rates or {})
        if any(factor < 0.0 for factor in self.group_rates.values()):
            raise UserError(
                "The learning rate's factors must not be negative.", received=self.group_rates
            )
        self._rates = (table_learning_rate, dense_learning_rate)
        self.table_learning_rate = _scalar(table_learning_rate, "table_learning_rate")
        self.dense_learning_rate = _scalar(dense_learning_rate, "dense_learning_rate")
        self.rule = row_rule(rule) if isinstance(rule, str) else rule or Adagrad()
        self.weight_decay = weight_decay
        self.no_decay = tuple(no_decay)
        self.epsilon = epsilon
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.clip_norm = clip_norm
        self.table_l2 = table_l2
        self.table_slots: dict[str, Any] = {}
        self.first_moments: dict[str, tf.Variable] = {}
        self.second_moments: dict[str, tf.Variable] = {}
        self._known = self._no_dependency(_Known())

    @property
    def learning_rate(self) -> float:
        """Not there: it has two, `table_learning_rate` and `dense_learning_rate`.

        Raises:
            AttributeError: Always, so that Keras' callbacks for one rate say that they miss it.
        """
        raise AttributeError("A HybridOptimizer has a table_learning_rate and a dense one.")

    @property
    def variables(self) -> list[tf.Variable]:
        """Counter, rates and slots."""
        slots = [part for slot in self.table_slots.values() for part in parts_of(slot)]
        moments = [*self.first_moments.values(), *self.second_moments.values()]
        return [
            self.iterations, self.table_learning_rate, self.dense_learning_rate, *slots, *moments
        ]  # fmt: skip

    def build(
        self,
        embeddings: Sequence[ShardedEmbedding] | Sequence[tf.Variable],
        dense_variables: Sequence[tf.Variable] | Mapping[str, tf.Variable] | None = None,
    ) -> None:
        """Creates the slots; call it before the first step and before a checkpoint is restored.

        A further call adds slots for what is new and keeps the others. Frozen tables get none.

        Args:
            embeddings: The layers whose tables are trained; their names must differ. Alone, as
                Keras calls it, all variables of a model: tables are found by their layers.
            dense_variables: All other variables, keyed by their `name`, or by the given path.
                Name the layers: a generated name such as `dense_3` counts the layers that the
                process made before, and its slots would not be found again.

        Raises:
            UserError: Two different variables have one path, a table is kept as int8, or a dense
                variable is not float32.
        """
        if dense_variables is None:
            owners = [layer_of(variable) for variable in embeddings]
            pairs = list(zip(embeddings, owners, strict=True))
            dense_variables = [variable for variable, owner in pairs if owner is None]
            embeddings = [*{id(o): o for o in owners if o is not None}.values()]
        for layer in embeddings:
            for fused in layer.layout.fused.values():
                if fused.storage == "int8":
                    raise UserError(
                        "Embedding tables of int8 cannot be trained.",
                        received=f"{layer.name}: tables {', '.join(fused.tables)}",
                        fix="train them as float32, bfloat16 or float16, and serve them as int8",
                    )
                if fused.trainable:
                    self._build_table(layer, fused)
        if not isinstance(dense_variables, Mapping):
            named = [(path_of(variable), variable) for variable in dense_variables]
        else:
            named = list(dense_variables.items())
        for path, variable in named:
            if variable.dtype != tf.float32:
                raise UserError(
                    "A HybridOptimizer moves dense variables of float32.",
                    received=f"{path}: {variable.dtype.name}",
                    fix="make the layer under the dtype policy float32 or mixed_bfloat16",
                )
            self._known.add(path, variable)
            self._known.dense[variable.ref()] = path
            for moment, moments in (("m", self.first_moments), ("v", self.second_moments)):
                if path not in moments:
                    with beside(variable):
                        moments[path] = tf.Variable(
                            partial(tf.zeros, variable.shape, tf.float32),
                            trainable=False,
                            name=f"{self.name}/{path}/{moment}",
                        )

    def minimize(
        self, loss: Any, var_list: Sequence[tf.Variable], tape: tf.GradientTape | None = None
    ) -> None:
        """One step on a loss, as Keras' own `train_step` asks for it.

        Variables that `build` was not given get their slots first: the tables are found through
        the layers that hold them.

        Args:
            loss: Scalar, or a function that computes it where there is no tape.
            var_list: The variables.
            tape: The tape that watched the loss.
        """
        new = [v for v in var_list if not self._known.has(v)]
        if new:
            with tf.init_scope():  # variables of the process, not of the graph that is traced
                self.build(new)
        super().minimize(loss, var_list, tape=tape)

    def get_config(self) -> dict[str, Any]:
        """Plain values of the arguments, read back by `from_config`; the rule by its name."""
        name, options = options_of_rule(self.rule)
        return {
            "table_learning_rate": float(self._rates[0]),
            "dense_learning_rate": float(self._rates[1]),
            "rule": {"name": name, "options": options},
            "group_rates": dict(self.group_rates),
            "weight_decay": self.weight_decay,
            "no_decay": list(self.no_decay),
            "epsilon": self.epsilon,
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "clip_norm": self.clip_norm,
            "table_l2": self.table_l2,
            "name": self.name,
        }

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Self:
        """The optimizer of `get_config`'s values."""
        rule = config["rule"]
        return cls(**{**config, "rule": row_rule(rule["name"], **rule["options"])})

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Puts counter, rates and slots into a `.keras` file, by name and logical table."""
        for name, variable in self._scalars().items():
            store[name] = variable.numpy()
        store[_PATHS] = np.frombuffer(json.dumps([*self.first_moments]).encode(), np.uint8)
        for k, path in enumerate(self.first_moments):
            store[f"m/{k}"] = self.first_moments[path].numpy()
            store[f"v/{k}"] = self.second_moments[path].numpy()
        for key, layer, table, slot in self._known.slots_of_tables(self.table_slots):
            rows = layer.layout.table(table).stored_rows + 1
            store[key] = layer.read_rows(table, 0, rows, slot)

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Takes what `save_own_variables` put, however the tables are cut now.

        Moments are found by the path of their variable, or, where Keras numbered the layers of a
        loaded model anew, by the order of the variables.

        Raises:
            ValueError: A slot is not there: the optimizer was saved for another model.
        """
        scalars = self._scalars()
        tables = list(self._known.slots_of_tables(self.table_slots))
        named = (*scalars, _PATHS, *(key for key, *_ in tables))
        lacking = [name for name in named if name not in store]
        if lacking:
            raise ValueError(f"The file holds no state of {lacking[0]} for the optimizer.")
        paths: list[str] = json.loads(np.asarray(store[_PATHS], np.uint8).tobytes())
        kept = {path: k for k, path in enumerate(paths)}
        lacking = [path for path in self.first_moments if path not in kept]
        if lacking:
            own = [tuple(moment.shape) for moment in self.first_moments.values()]
            if own != [store[f"m/{k}"].shape for k in range(len(paths))]:
                raise ValueError(f"The file holds no state of {lacking[0]} for the optimizer.")
            kept = {path: k for k, path in enumerate(self.first_moments)}
        for name, variable in scalars.items():
            variable.assign(np.asarray(store[name]))
        for path, moment in self.first_moments.items():
            moment.assign(np.asarray(store[f"m/{kept[path]}"]))
            self.second_moments[path].assign(np.asarray(store[f"v/{kept[path]}"]))
        for key, layer, table, slot in tables:
            layer.write_rows(table, 0, np.asarray(store[key]), slot)

    def _scalars(self) -> dict[str, tf.Variable]:
        """Counter and rates by name."""
        return {
            "iterations": self.iterations,
            "table_learning_rate": self.table_learning_rate,
            "dense_learning_rate": self.dense_learning_rate,
        }

    def _build_table(self, layer: ShardedEmbedding, fused: FusedTable) -> None:
        path = _table_path(layer, fused.name)
        for i, part in enumerate(layer.parts(fused.name)):
            self._known.add(f"{path}/part_{i}", part)  # refuses before anything changes
        self._known.layers[path] = layer, fused
        by_part: list[list[tf.Variable]] = [[] for _ in layer.parts(fused.name)]
        for slot in self.rule.slots:
            key = f"{path}/{slot.name}"
            if key not in self.table_slots:
                width = layer.sets * (fused.dim if slot.per_element else 1)
                self.table_slots[key] = layer.slot_like(
                    f"{self.name}/{key}", fused.name, width, slot.initial
                )
            for slots, part in zip(by_part, parts_of(self.table_slots[key]), strict=True):
                slots.append(part)
        rate = self.group_rates.get(fused.group, 1.0) if fused.group else 1.0
        for part, slots in zip(layer.parts(fused.name), by_part, strict=True):
            self._known.tables[part.ref()] = _Table(slots, layer.sets, rate)

    def take_rates(self) -> None:
        """Takes rates that were assigned as those that `scale_rates` scales."""
        pairs = zip((self.table_learning_rate, self.dense_learning_rate), self._rates, strict=True)
        present = [(float(rate.numpy()), base) for rate, base in pairs]
        # as they were given where nobody assigned others: float32 holds fewer digits
        table, dense = (base if now == np.float32(base) else now for now, base in present)
        self._rates = table, dense

    def scale_rates(self, factor: float) -> None:
        """Sets both learning rates to a factor of those that the optimizer was made with."""
        for rate, base in zip(
            (self.table_learning_rate, self.dense_learning_rate), self._rates, strict=True
        ):
            rate.assign(factor * base)

    def slot(self, layer: ShardedEmbedding, physical: str, name: str) -> Any:
        """A slot of a physical table: a variable cut like the table.

        Args:
            layer: A layer given to `build`.
            physical: Name of one of its physical tables.
            name: Name of the slot, see the rule.

        Returns:
            (rows of the physical table, K or K * dim), for `ShardedEmbedding.read_rows`.
        """
        return self.table_slots[f"{_table_path(layer, physical)}/{name}"]

    def apply_gradients(
        self, grads_and_vars: Iterable[tuple[Any, tf.Variable]], **wrapped: Any
    ) -> None:
        """One step.

        Args:
            grads_and_vars: Pairs as from `zip(tape.gradient(...), variables)`; table shards come
                with `tf.IndexedSlices`, and a gradient of None leaves its variable alone.
            **wrapped: What Keras' optimizer of scaled losses adds; refused.

        Raises:
            UserError: Keras scales the losses, as under the policy `mixed_float16`.
            ValueError: A variable was not given to `build`, or the gradient of a table is dense,
                which would touch every row.
        """
        if wrapped:
            raise UserError(
                "A HybridOptimizer takes gradients as they are, not those of scaled losses.",
                received="the Keras dtype policy mixed_float16, or a LossScaleOptimizer",
                fix="use the policy mixed_bfloat16, whose losses need no scale",
            )
        tables: list[tuple[tf.Variable, tf.IndexedSlices]] = []
        dense: list[tuple[tf.Variable, tf.Tensor]] = []
        for gradient, variable in grads_and_vars:
            if gradient is None:
                continue
            if variable.ref() in self._known.tables:
                if not isinstance(gradient, tf.IndexedSlices):
                    raise ValueError(
                        f"The gradient of table '{variable.name}' is dense and would touch every "
                        "row; read tables through their layer only."
                    )
                tables.append((variable, gradient))
            elif variable.ref() in self._known.dense:
                dense.append((variable, tf.convert_to_tensor(gradient)))
            else:
                raise ValueError(f"The optimizer was not built with variable '{variable.name}'.")
        l2 = self.table_l2
        if self.clip_norm is not None:
            tables = [(variable, self._whole(gradient, variable)) for variable, gradient in tables]
            l2 = 0.0  # is in the gradients now
            parts = [*(g.values for _, g in tables), *(g for _, g in dense)]
            squares = [tf.reduce_sum(tf.square(part)) for part in parts]
            norm = tf.sqrt(tf.add_n(squares)) if squares else tf.constant(0.0)
            scale = self.clip_norm / tf.maximum(norm, self.clip_norm)
            tables = [(v, tf.IndexedSlices(g.values * scale, g.indices)) for v, g in tables]
            dense = [(variable, g * scale) for variable, g in dense]
        self.iterations.assign_add(1)
        # read once: a read of a parameter server is a message
        table_rate = tf.convert_to_tensor(self.table_learning_rate)
        for variable, gradient in tables:
            table = self._known.tables[variable.ref()]
            rate = table_rate * table.rate
            update_rows(self.rule, variable, table.slots, gradient, rate, sets=table.sets, l2=l2)
        if dense:
            self._adam(dense)

    def _whole(self, gradient: tf.IndexedSlices, shard: tf.Variable) -> tf.IndexedSlices:
        """A table's gradient with distinct rows and the L2 of the touched rows and sets."""
        rows, summed = sum_duplicates(gradient)
        if self.table_l2:
            sets = self._known.tables[shard.ref()].sets
            shape = [-1, sets, shard.shape[1] // sets]
            by_set = tf.reshape(summed, shape)  # (U, K, D)
            touched = tf.reduce_any(by_set != 0.0, axis=-1, keepdims=True)  # (U, K, 1)
            weights = tf.reshape(tf.cast(tf.gather(shard, rows), tf.float32), shape)  # (U, K, D)
            by_set += self.table_l2 * tf.where(touched, weights, 0.0)
            summed = tf.reshape(by_set, [-1, shard.shape[1]])  # (U, K*D)
        return tf.IndexedSlices(summed, rows)

    def _adam(self, dense: Sequence[tuple[tf.Variable, tf.Tensor]]) -> None:
        """One step of Adam or AdamW on the dense variables."""
        paths = [self._known.dense[variable.ref()] for variable, _ in dense]
        factors = [
            math.prod(factor for key, factor in self.group_rates.items() if holds(path, key))
            for path in paths
        ]
        decays = [
            0.0 if any(is_kind(path, kind) for kind in self.no_decay) else self.weight_decay
            for path in paths
        ]
        rate = tf.convert_to_tensor(self.dense_learning_rate)
        adam_step(
            [variable for variable, _ in dense],
            [self.first_moments[path] for path in paths],
            [self.second_moments[path] for path in paths],
            [gradient for _, gradient in dense],
            [rate * factor for factor in factors],
            decays,
            step=tf.cast(self.iterations, tf.float32),
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
        )


@dataclass(frozen=True)
class _Table:
    """What a step needs of one shard of a table."""

    slots: list[tf.Variable]
    sets: int
    rate: float


class _Known:
    """What `build` saw, by variable; a plain object, so that checkpoints do not follow it."""

    def __init__(self) -> None:
        self.tables: dict[Any, _Table] = {}  # shard -> what a step needs
        self.dense: dict[Any, str] = {}  # variable -> path
        self.layers: dict[str, tuple[ShardedEmbedding, FusedTable]] = {}  # path -> physical table
        self._owners: dict[str, Any] = {}  # path -> variable

    def has(self, variable: tf.Variable) -> bool:
        """Whether a variable was given to `build`."""
        return variable.ref() in self.tables or variable.ref() in self.dense

    def slots_of_tables(
        self, slots: Mapping[str, Any]
    ) -> Iterator[tuple[str, ShardedEmbedding, str, Any]]:
        """Name, layer, logical table and variable of every slot, table by table."""
        for path, (layer, fused) in self.layers.items():
            for table in fused.tables:
                for key, slot in slots.items():
                    if key.startswith(f"{path}/"):
                        name = key.removeprefix(f"{path}/")
                        yield f"slots/{layer.name}/{table}/{name}", layer, table, slot

    def add(self, path: str, variable: tf.Variable) -> None:
        """Remembers the owner of a path and refuses a second one."""
        if self._owners.setdefault(path, variable.ref()) != variable.ref():
            raise UserError(
                f"Two trained variables have the path '{path}', so their optimizer slots would "
                "be one.",
                fix="Make an optimizer for each model. In one model, give the layers different "
                "names, or pass dense variables as path -> variable.",
            )


def _table_path(layer: ShardedEmbedding, physical: str) -> str:
    return f"{layer.name}/table_{physical}"


def _scalar(value: float, name: str) -> tf.Variable:
    return tf.Variable(value, dtype=tf.float32, trainable=False, name=name)
