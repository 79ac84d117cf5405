"""What every model of this package is to Keras: compiled, fitted, saved and loaded."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import tensorflow as tf
import tf_keras

from lfm4ads_tf.batch import PASS_NUMBER, EncodedBatch, first_failure
from lfm4ads_tf.embeddings.table import ShardedEmbedding
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.models.data_callback import DataCallback
from lfm4ads_tf.models.example_batch import example_batch, example_of
from lfm4ads_tf.models.model_parts import ModelParts
from lfm4ads_tf.optim.gradient_registry import released_gradients
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.optim.model_optimizers import ModelOptimizers, made_optimizer
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.optim.optimizer_part import OptimizerPart
from lfm4ads_tf.optim.step import step_of
from lfm4ads_tf.precision import Precision
from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.training.config import OptimizerConfig

_SUPERFLUOUS = ("y", "batch_size", "class_weight", "sample_weight", "validation_split")
_REFUSED = ("loss", "metrics", "loss_weights", "weighted_metrics")


class TrainableModel(Rebuildable, tf_keras.Model, metaclass=abc.ABCMeta):
    """A Keras model with losses of its own, over encoded batches.

    `compile` takes a `HybridOptimizer`; `fit` makes the steps that `train.py` makes: trained on
    the same batches in the same order, both have the same weights. A `.keras` file holds
    architecture, weights, tables and the optimizer's slots, and is loaded by
    `tf_keras.models.load_model`.

    Args:
        name: Name of the model.

    Attributes:
        layout: Columns of the encoded batch.

    Raises:
        UserError: The Keras dtype policy is another one than float32.
    """

    layout: FeatureLayout

    def __init__(self, *, name: str) -> None:
        super().__init__(name=name)
        policy = self.dtype_policy.name
        if policy != "float32":
            raise UserError(
                f"A {type(self).__name__} computes in float32: losses, evaluation and exports of "
                "another type would differ from those of `train.py`.",
                received=f"the Keras dtype policy '{policy}'",
                fix="set the policy to float32; compile(precision='mixed_bfloat16') trains with "
                "products of bfloat16",
            )

    @property
    @abc.abstractmethod
    def all_embeddings(self) -> list[ShardedEmbedding]:
        """All layers that hold tables."""

    @abc.abstractmethod
    def loss_terms(self, batch: EncodedBatch, training: bool = True) -> Mapping[str, tf.Tensor]:
        """The terms that training minimises, by name, each a scalar.

        Args:
            batch: The batch with its labels (B, T), and row weights where there are some.
            training: Whether dropout and compiled kernels apply.
        """

    def optimizers(self, config: OptimizerConfig) -> Sequence[OptimizerPart]:
        """Which variables are moved by which of the losses, and how.

        Here one optimizer moves all variables by all losses.

        Args:
            config: The configured rates, rule and bounds.
        """
        return (OptimizerPart(config),)

    # -- training -------------------------------------------------------------------------------

    def compile(
        self,
        optimizer: HybridOptimizer | OptimizerConfig | None = None,
        *,
        precision: Precision = "float32",
        run_eagerly: bool | None = None,
        steps_per_execution: int | None = None,
        **refused: Any,
    ) -> None:
        """Settles how `fit` trains.

        Args:
            optimizer: One that moves all variables by all losses; or rates, which the model's
                `optimizers` are made with; the default rates when absent.
            precision: Of the larger products of dense layers in training, see
                `lfm4ads_tf.precision`.
            run_eagerly, steps_per_execution: As of `tf_keras.Model.compile`.

        Raises:
            UserError: The optimizer or the precision is another one, or a loss or metrics are
                given.
        """
        for name, value in refused.items():
            if name not in _REFUSED:
                raise TypeError(f"compile() got an unexpected keyword argument '{name}'")
            if value is not None:
                raise UserError(
                    f"A {type(self).__name__} has its own losses and metrics.",
                    received=f"compile({name}=...)",
                    fix="leave it out; a loss of your own is registered with LOSSES, "
                    "see docs/add_a_model.md",
                )
        if precision not in get_args(Precision):
            raise UserError(
                f"There is no precision '{precision}'."
                + nearest(str(precision), get_args(Precision)),
                fix=f"use {' or '.join(get_args(Precision))}",
            )
        given = OptimizerConfig() if optimizer is None else optimizer
        if isinstance(given, HybridOptimizer):
            parts: Sequence[OptimizerPart] = (OptimizerPart(name=given.name, optimizer=given),)
        elif isinstance(given, OptimizerConfig):
            parts = [
                replace(part, optimizer=made_optimizer(part)) for part in self.optimizers(given)
            ]
        else:
            raise UserError(
                f"A {type(self).__name__} is trained by a HybridOptimizer, which touches only the "
                "rows of a batch.",
                received=f"compile({given!r:.80})",
                fix="compile(lfm4ads_tf.HybridOptimizer(table_learning_rate=..., "
                "dense_learning_rate=...)), or compile() for the default rates",
            )
        made = [part.optimizer for part in parts]
        super().compile(
            optimizer=made[0] if len(made) == 1 else made,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
        )
        # Beside Keras' attribute tracking: none of it is a part of the model's weights.
        self.__dict__.update(
            _objective=Objective(self.loss_terms, parts),
            _compiled_with={
                "optimizer": given.get_config()
                if isinstance(given, HybridOptimizer)
                else given.model_dump(mode="json"),
                "configured": isinstance(given, OptimizerConfig),
                "precision": precision,
                "run_eagerly": run_eagerly,
                "steps_per_execution": steps_per_execution,
            },
            _loss_means={},
            _step=None,
        )
        if self.built:
            self._make_step()

    def fit(self, x: tf.data.Dataset, *args: Any, **options: Any) -> tf_keras.callbacks.History:
        """Trains on encoded batches, as `tf_keras.Model.fit` does.

        Args:
            x: Batches with labels, such as `EncodedLog.dataset` gives.
            *args, **options: As of `tf_keras.Model.fit`; `validation_data` is such a data set too.

        Returns:
            Mean losses of each epoch by name, and what `evaluate` gives for `validation_data`.

        Raises:
            UserError: `x` is no data set of batches, the model is not compiled, or a file cannot
                be read.
        """
        for name in _SUPERFLUOUS:
            if options.get(name) is not None:
                raise UserError(
                    f"fit has no use for `{name}`: a data set of encoded batches holds everything.",
                    received=f"fit({name}=...)",
                    fix="leave it out; weights of rows are EncodedLog.dataset(weights=...)",
                )
        self._ready(x)
        callbacks = options.pop("callbacks", None) or []
        if not isinstance(callbacks, tf_keras.callbacks.CallbackList):
            callbacks = [*tf.nest.flatten(callbacks), _PassOrder(x)]
            for callback in callbacks:
                if isinstance(callback, DataCallback):
                    callback.on_data(x, self)
        self.__dict__["_fitted"] = True
        with released_gradients(), first_failure(x):
            return super().fit(x, *args, callbacks=callbacks, **options)

    def evaluate(self, x: tf.data.Dataset, **options: Any) -> Any:
        """Mean losses of encoded batches, as `tf_keras.Model.evaluate` gives them.

        Args:
            x: Batches with labels, such as `EncodedLog.dataset` gives.
            **options: As of `tf_keras.Model.evaluate`.

        Raises:
            UserError: See `fit`.
        """
        self._ready(x)
        with first_failure(x):
            return super().evaluate(x, **options)

    def train_on_batch(self, x: EncodedBatch, *args: Any, **options: Any) -> Any:
        """One step on one batch, as `tf_keras.Model.train_on_batch` does.

        Raises:
            UserError: The model is not compiled.
        """
        self._require_compiled()
        if not self.built:
            self(x)
        self._make_step()
        self.__dict__["_fitted"] = True
        with released_gradients():
            return super().train_on_batch(x, *args, **options)

    def scale_rates(self, factor: float) -> None:
        """Sets all learning rates to a factor of those that it was compiled with."""
        for optimizer in tf.nest.flatten(self.optimizer):
            optimizer.scale_rates(factor)

    @tf.autograph.experimental.do_not_convert
    def train_step(self, data: EncodedBatch) -> dict[str, tf.Tensor]:
        """One step, as Keras traces it; the mean losses so far by name, each ()."""
        losses = self.__dict__["_step"](batch_in(data))
        return self._means({"loss": losses.total, **losses.terms})

    @tf.autograph.experimental.do_not_convert
    def test_step(self, data: EncodedBatch) -> dict[str, tf.Tensor]:
        """The losses of a batch, as Keras traces them; the means so far by name, each ()."""
        terms = dict(self.loss_terms(batch_in(data), training=False))
        return self._means({"loss": tf.add_n([*terms.values()]), **terms})

    @property
    def metrics(self) -> list[tf_keras.metrics.Metric]:
        """The mean losses, which Keras sets back between epochs."""
        return [*super().metrics, *self.__dict__.get("_loss_means", {}).values()]

    def _means(self, losses: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        means = self.__dict__["_loss_means"]
        if len(losses) == 2:  # the sum of one term is told once
            losses = {"loss": losses["loss"]}
        for name, value in losses.items():
            if name not in means:
                with tf.init_scope():  # a variable of the process, not of the graph
                    means[name] = tf_keras.metrics.Mean(name=name)
            means[name].update_state(value)
        return {name: means[name].result() for name in losses}

    def _ready(self, data: Any) -> None:
        """Makes variables and slots before the first step is traced.

        Raises:
            UserError: See `fit`.
        """
        self._require_compiled()
        self._check_data(data)
        self._make_step()

    def _check_data(self, data: Any) -> None:
        """Refuses what is no data set of batches, and makes the variables.

        Raises:
            UserError: See `fit`.
        """
        if not isinstance(data, tf.data.Dataset) or not isinstance(data.element_spec, Mapping):
            raise UserError(
                f"A {type(self).__name__} reads a tf.data.Dataset of encoded batches.",
                received=f"a {type(data).__name__}",
                fix="encode your rows: lfm4ads_tf.encode(spec, table).dataset('train')",
            )
        held = data.element_spec.get("representations", {})
        lacking = [name for name in self.sources if name not in held]
        if lacking:
            raise UserError(
                f"The batches lack representations that the {type(self).__name__} reads.",
                received=f"without {', '.join(lacking)}",
                fix="log.dataset(..., representations=<what extract stored>, "
                "sources=model.sources)",
            )
        if not self.built:
            self(example_of(data.element_spec))

    def _require_compiled(self) -> None:
        if "_objective" not in self.__dict__:
            raise UserError(
                f"This {type(self).__name__} is not compiled.",
                fix="call compile(lfm4ads_tf.HybridOptimizer()) first",
            )

    def _make_step(self) -> None:
        """Builds the optimizers for the model's variables, once for each `compile`."""
        if self.__dict__["_step"] is not None:
            return
        objective = self.__dict__["_objective"]
        optimizers = ModelOptimizers(objective, self, self.all_embeddings)
        precision = self.__dict__["_compiled_with"]["precision"]
        self.__dict__["_step"] = step_of(objective, optimizers, precision)

    # -- saving ---------------------------------------------------------------------------------

    def save(
        self,
        filepath: Any,
        overwrite: bool = True,
        save_format: str | None = None,
        **options: Any,
    ) -> None:
        """Saves architecture, weights, tables and slots, as `tf_keras.Model.save` does.

        Args:
            filepath: A name that ends with `.keras`.
            overwrite, save_format, options: As of `tf_keras.Model.save`.

        Raises:
            UserError: Another format is asked for. Keras' SavedModel of a model with its own
                training step is not loaded again, and serves encoded batches instead of raw rows.
        """
        if not str(filepath).endswith(".keras") or save_format not in (None, "keras"):
            raise UserError(
                f"A {type(self).__name__} is saved to a .keras file.",
                received=f"save({str(filepath)!r}, save_format={save_format!r})",
                fix="save('model.keras'); for serving, lfm4ads_tf.export_model writes a SavedModel "
                "that reads raw rows",
            )
        super().save(filepath, overwrite=overwrite, save_format=save_format, **options)

    @property
    def sources(self) -> list[str]:
        """Stored representations that it reads, each once."""
        return []

    @property
    def fitted(self) -> bool:
        """Whether `fit` or `train_on_batch` has moved its weights; kept in `.keras` files."""
        return bool(self.__dict__.get("_fitted", False))

    @property
    def origin(self) -> dict[str, Any]:
        """What it was made from, as plain values that are kept in `.keras` files."""
        origin: dict[str, Any] = self.__dict__.setdefault("_origin", {})
        return origin

    @property
    def representation_dims(self) -> dict[str, int]:
        """Width of each stored representation that a batch must hold, once the model was called."""
        return {}

    def get_build_config(self) -> dict[str, Any] | None:
        """What the variables are made of, and which layers are not trained."""
        if not self.built:
            return None
        layers = ModelParts(self).layers
        frozen = [path for path, layer in layers.items() if not layer.trainable]
        return {
            "representations": self.representation_dims,
            "frozen": frozen,
            "fitted": self.fitted,
            "origin": self.origin,
        }

    def build_from_config(self, config: Mapping[str, Any]) -> None:
        """Makes the variables as `get_build_config` says."""
        self(example_batch(self.layout, config["representations"]))
        layers = ModelParts(self).layers
        for path in config["frozen"]:
            layers[path].trainable = False
        self.__dict__.update(_fitted=config["fitted"], _origin=dict(config["origin"]))

    def get_compile_config(self) -> dict[str, Any] | None:
        """What `compile` was called with."""
        return self.__dict__.get("_compiled_with")

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        """Compiles as `get_compile_config` says; the slots are there to be loaded."""
        options = {k: v for k, v in config.items() if k != "configured"}
        if config["configured"]:
            options["optimizer"] = OptimizerConfig.model_validate(options["optimizer"])
        else:
            options["optimizer"] = HybridOptimizer.from_config(options["optimizer"])
        self.compile(**options)


def batch_in(data: Any) -> EncodedBatch:
    """The batch in what Keras gives a step: a data set's element, or `(x,)` of one batch."""
    return data[0] if isinstance(data, tuple) else data


class _PassOrder(tf_keras.callbacks.Callback):
    """Gives each epoch of `fit` the order of its number, whoever iterated the data before."""

    def __init__(self, data: tf.data.Dataset) -> None:
        super().__init__()
        self._number = vars(data).get(PASS_NUMBER)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """See Keras; the first batch of the epoch is read after it."""
        if self._number is not None:
            self._number.next = epoch
