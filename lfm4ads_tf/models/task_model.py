"""A model that gives the probabilities of the spec's tasks."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import tensorflow as tf
import tf_keras

from lfm4ads_tf.batch import EncodedBatch, read
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.interactions.block import InteractionBlock
from lfm4ads_tf.interactions.penalties import Penalties
from lfm4ads_tf.losses.task_loss import TaskLoss
from lfm4ads_tf.metrics import auc, calibration, logloss
from lfm4ads_tf.models.trainable_model import TrainableModel, batch_in

_TASK_LOSS = "task_loss"


class TaskModel(TrainableModel):
    """Logits (B, T) in, probabilities of T tasks out: what upstream and downstream have in common.

    Attributes:
        sigmoid: Whether `probabilities` is the sigmoid, each of its own logit: what an export may
            differ by is then told in logits.
        task_loss: The loss of its logits.
    """

    sigmoid: ClassVar[bool] = True

    task_loss: TaskLoss

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuses probabilities that are told to be sigmoids and are not.

        Raises:
            UserError: `probabilities` is overridden where `sigmoid` is True.
        """
        super().__init_subclass__(**options)
        if cls.sigmoid and cls.probabilities is not TaskModel.probabilities:
            raise UserError(
                f"{cls.__name__} has `probabilities` of its own and says that they are sigmoids.",
                fix=f"set {cls.__name__}.sigmoid = False: an export's roundings go by it",
            )

    @abc.abstractmethod
    def call(self, batch: EncodedBatch, training: bool = False) -> tf.Tensor:
        """Logits (B, T) of each row's scenario."""

    @property
    def served_tasks(self) -> list[str]:
        """The tasks that an export answers, in the layout's order; here all."""
        return list(self.layout.tasks)

    def probabilities(self, logits: tf.Tensor) -> tf.Tensor:
        """What is evaluated and served for logits (B, T): here their sigmoid, (B, T).

        A model that overrides it, such as for a product of two tasks' probabilities, sets
        `sigmoid` to False.
        """
        return tf.sigmoid(logits)

    def targets(self, labels: tf.Tensor) -> tf.Tensor:
        """What the probabilities are of, from the spec's labels; here these themselves.

        A model whose probability of a task is that of another event than the label, such as of a
        task among the rows where another one is 1, overrides it. Training and scoring go by it.

        Args:
            labels: (B, T) of 0 and 1, NaN where unknown.

        Returns:
            (B, T), NaN where a row is not scored.
        """
        return labels

    def loss_terms(self, batch: EncodedBatch, training: bool = True) -> Mapping[str, tf.Tensor]:
        """See `TrainableModel`; here the task loss alone, as `tasks`."""
        return {"tasks": self._task_loss(batch, self(batch, training=training))}

    def _penalised_terms(
        self, batch: EncodedBatch, training: bool, blocks: Sequence[InteractionBlock]
    ) -> dict[str, tf.Tensor]:
        """`tasks`, and what the layers of blocks add to it, see `Penalties`.

        For a model whose `call` takes `penalties` and hands them to the blocks; it is given none
        where no layer has any.
        """
        if not any(block.penalises for block in blocks):
            return {"tasks": self._task_loss(batch, self(batch, training=training))}
        penalties = Penalties()
        logits = self(batch, training=training, penalties=penalties)
        terms = {"tasks": self._task_loss(batch, logits)}
        return {**terms, **penalties.means(tf.shape(logits)[0])}

    def _task_loss(self, batch: EncodedBatch, logits: tf.Tensor) -> tf.Tensor:
        """The task loss of logits (B, T) of the targets."""
        return self.task_loss({**batch, "labels": self.targets(batch["labels"])}, logits)

    def evaluate(
        self,
        x: tf.data.Dataset,
        *,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
        **keras: Any,
    ) -> dict[str, float] | list[float]:
        """Scores encoded batches with the metrics of `metrics.json`, which are exact.

        Args:
            x: Batches with labels, such as `EncodedLog.dataset` gives.
            verbose, callbacks: As of `tf_keras.Model.evaluate`.
            steps: Batches that are read; all when absent.
            return_dict: Whether names are returned with the values.
            **keras: Further arguments of Keras, which a data set makes superfluous.

        Returns:
            `loss`: the mean task loss of a row. `auc`: the mean over the tasks that have one; and
            for every task `<task>_auc`, `<task>_logloss` and `<task>_calibration`, the mean
            prediction over the mean label. What is undefined, as an AUC of one class, is NaN.

        Raises:
            UserError: `x` is no data set of batches, or a file cannot be read.
        """
        self._check_data(x)
        calls = callbacks
        if not isinstance(calls, tf_keras.callbacks.CallbackList):
            calls = tf_keras.callbacks.CallbackList(
                calls, add_progbar=verbose not in (0, "0"), model=self, verbose=_verbosity(verbose),
                epochs=1, steps=steps or _cardinality(x),
            )  # fmt: skip
        calls.on_test_begin()
        labels, scores, total, rows = [], [], 0.0, 0
        score = self._scorer(x.element_spec)
        for k, batch in enumerate(read(x if steps is None else x.take(steps))):
            calls.on_test_batch_begin(k)
            loss, probability = score(batch)
            labels.append(self.targets(batch["labels"]).numpy())
            scores.append(probability.numpy())
            total += float(loss) * len(labels[-1])
            rows += len(labels[-1])
            calls.on_test_batch_end(k, {"loss": total / rows})
        values = {"loss": total / rows} if rows else {"loss": float("nan")}
        if rows:
            values |= self._measured(np.concatenate(labels), np.concatenate(scores))
        calls.on_test_end(values)
        return values if return_dict else [*values.values()]

    def _measured(self, labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
        """The metrics of labels (N, T) and probabilities (N, T)."""
        values: dict[str, float] = {}
        for k, task in enumerate(self.layout.tasks):
            known = np.isfinite(labels[:, k]).any()
            for name, metric in (("auc", auc), ("logloss", logloss), ("calibration", calibration)):
                value = metric(labels[:, k], scores[:, k]) if known else None
                values[f"{task}_{name}"] = float("nan") if value is None else value
        each = [values[f"{task}_auc"] for task in self.layout.tasks]
        defined = [value for value in each if not np.isnan(value)]
        return {"auc": float(np.mean(defined)) if defined else float("nan"), **values}

    def _scorer(self, spec: Any) -> Any:
        """Batch -> its task loss and probabilities; traced once for batches of one kind."""
        kept = self.__dict__.setdefault("_scorers", {})
        kind = str(spec), id(self.task_loss)  # the loss may be set later
        if kind not in kept:

            def score(batch: EncodedBatch) -> tuple[tf.Tensor, tf.Tensor]:
                logits = self(batch)
                return self._task_loss(batch, logits), self.probabilities(logits)

            kept[kind] = tf.function(score, input_signature=[spec], autograph=False)
        return kept[kind]

    @tf.autograph.experimental.do_not_convert
    def predict_step(self, data: EncodedBatch) -> tf.Tensor:
        """Probabilities (B, T), which `predict` joins."""
        return self.probabilities(self(batch_in(data)))

    def get_config(self) -> dict[str, Any]:
        """See `Rebuildable`; with the task loss, which may be set later."""
        return {**super().get_config(), _TASK_LOSS: self.task_loss.get_config()}

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Self:
        """See `Rebuildable`."""
        values = {name: value for name, value in config.items() if name != _TASK_LOSS}
        model = super().from_config(values, custom_objects)
        model.task_loss = TaskLoss.from_config(config[_TASK_LOSS])
        return model


def _verbosity(verbose: Any) -> int:
    return 1 if verbose == "auto" else int(verbose)


def _cardinality(data: tf.data.Dataset) -> int | None:
    count = int(data.cardinality())
    return count if count >= 0 else None
