"""The configured loss over the tasks of a batch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, get_type_hints

import tensorflow as tf
from pydantic import TypeAdapter, ValidationError

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.losses.loss import Loss
from lfm4ads_tf.losses.registry import LOSSES
from lfm4ads_tf.written import value_for


@dataclass(frozen=True)
class TaskLoss:
    """A loss with the weights of the tasks and its options.

        L = loss(labels, logits, lambda, w, **options)    w: the batch's row weights, if it has any

    Attributes:
        tasks: Names of the tasks, T of them, in the order of the labels.
        weights: lambda, (T,) float32.
        loss: The loss.
        options: Its options.
    """

    tasks: tuple[str, ...]
    weights: tf.Tensor
    loss: Loss
    options: Mapping[str, Any]

    @classmethod
    def of(cls, training: _Configured, tasks: Sequence[str]) -> TaskLoss:
        """The loss of a training's configuration.

        Args:
            training: Its `loss`, `loss_options` and `task_weights`.
            tasks: Names of the tasks.

        Raises:
            UserError: A task weight is of an unknown task, the loss is unknown, or an option is
                unknown or missing.
        """
        unknown = [t for t in training.task_weights if t not in tasks]
        if unknown:
            raise UserError(
                f"task_weights names the unknown task '{unknown[0]}'.",
                fix=f"use one of {', '.join(tasks)}",
            )
        loss = LOSSES[training.loss]
        options = _read_options(training.loss, loss, training.loss_options)
        weights = tf.constant([training.task_weights.get(t, 1.0) for t in tasks], tf.float32)
        return cls(tuple(tasks), weights, loss, options)

    def get_config(self) -> dict[str, Any]:
        """Plain values, read back by `from_config`; the loss by its name.

        Raises:
            UserError: The loss is not registered.
        """
        return {
            "tasks": list(self.tasks),
            "weights": [float(weight) for weight in self.weights.numpy()],
            "loss": LOSSES.name_of(self.loss),
            "options": dict(self.options),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TaskLoss:
        """The loss of `get_config`'s values."""
        loss = LOSSES[config["loss"]]
        options = _read_options(config["loss"], loss, config["options"])
        weights = tf.constant(config["weights"], tf.float32, [len(config["tasks"])])
        return cls(tuple(config["tasks"]), weights, loss, options)

    def __call__(self, batch: EncodedBatch, logits: tf.Tensor) -> tf.Tensor:
        """Scalar loss of a batch.

        Args:
            batch: Its `labels` (B, T) and, where rows are weighted, `weights` (B,) or (B, T).
            logits: (B, T).
        """
        row_weights = batch.get("weights")
        return self.loss(batch["labels"], logits, self.weights, row_weights, **self.options)


def plain_loss(tasks: Sequence[str]) -> TaskLoss:
    """The cross-entropy of all tasks alike: the loss of a model that was given no other one."""
    return TaskLoss(tuple(tasks), tf.ones([len(tasks)]), LOSSES["bce"], {})


class _Configured(Protocol):
    """The part of a training's configuration that the loss is made from."""

    @property
    def loss(self) -> str: ...

    @property
    def loss_options(self) -> Mapping[str, Any]: ...

    @property
    def task_weights(self) -> Mapping[str, float]: ...


def _read_options(name: str, loss: Loss, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as the loss takes them, by the types that it declares.

    Raises:
        UserError: The loss does not take one, one that it needs is missing, or a value is of
            another type.
    """
    parameters = list(inspect.signature(loss).parameters.values())
    own = [p for p in parameters[4:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    known = [p.name for p in own]
    takes_all = any(p.kind == p.VAR_KEYWORD for p in parameters)
    for option in options if not takes_all else ():
        if option not in known:
            raise UserError(
                f"The loss '{name}' has no option '{option}'.{nearest(option, known)}",
                received=f"loss_options: {dict(options)}",
                fix=f"its options are {', '.join(known)}" if known else "it takes none",
            )
    missing = [p.name for p in own if p.default is p.empty and p.name not in options]
    if missing:
        raise UserError(
            f"The loss '{name}' needs the option '{missing[0]}'.",
            received=f"loss_options: {dict(options)}",
            fix=f"set training.loss_options.{missing[0]}",
        )
    types = get_type_hints(loss if inspect.isfunction(loss) else type(loss).__call__)
    values: dict[str, Any] = {}
    for option, given in options.items():
        annotation = types.get(option, Any)
        try:
            read = TypeAdapter(annotation).validate_python(value_for(given, annotation))
        except ValidationError as error:
            raise UserError(
                f"The option '{option}' of the loss '{name}' cannot be read.",
                received=f"{option}: {given!r} ({error.errors()[0]['msg']})",
                fix=f"give it a value of {annotation}",
            ) from None
        values[option] = read
    return values
