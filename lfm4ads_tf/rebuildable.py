"""Keras layers and models that are rebuilt from the arguments of their constructor."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import is_dataclass
from functools import cache
from typing import Any, Self

import numpy as np
import tf_keras
from pydantic import BaseModel, TypeAdapter

_ARGUMENTS = "_constructor_arguments"
_POLICY = "dtype"
_TRAINED = "trainable"
_PACKAGE = __name__.partition(".")[0]


class Rebuildable:
    """`get_config` and `from_config` of a Keras layer or model, from its constructor.

    The arguments are kept as they were given and written as plain values by the types that the
    constructor declares: sections of the configuration and dataclasses as mappings, Keras objects
    as Keras writes them, other objects by their own `get_config`. A default that changes later
    changes no saved model: defaults are written too, and so are the dtype policy and whether the
    layer is trained. Sublayers that are made after the constructor, when the input's width is
    known, are given the layer's policy (`dtype=self.dtype_policy`, or `made_like`).

    A class that derives from it and from a Keras class, in this order, has nothing to add, as long
    as its constructor is annotated and what it is made of is settled by its arguments.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Lets Keras find the package's own classes among the layers of a functional model."""
        super().__init_subclass__(**options)
        if cls.__module__.partition(".")[0] == _PACKAGE:
            tf_keras.saving.register_keras_serializable(package=cls.__module__)(cls)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Keeps the arguments."""
        instance = super().__new__(cls, *args, **kwargs)
        if not args and not kwargs and _needs_arguments(cls):  # type: ignore[arg-type]
            return instance  # a copy: the arguments come with the rest of its state
        bound = inspect.signature(cls.__init__).bind(instance, *args, **kwargs)
        bound.apply_defaults()
        given = dict(list(bound.arguments.items())[1:])
        # Beside Keras' attribute tracking: what was given is not saved a second time.
        vars(instance)[_ARGUMENTS] = types.SimpleNamespace(given=given)
        return instance

    def get_config(self) -> dict[str, Any]:
        """Plain values of the constructor's arguments, read back by `from_config`."""
        config = {name: _plain(value) for name, value in self.arguments.items()}
        if config.get("name", "") is None:  # Keras gave it one
            config["name"] = self.name  # type: ignore[attr-defined]
        config.setdefault(_POLICY, self.dtype_policy.name)  # type: ignore[attr-defined]
        config.setdefault(_TRAINED, self.trainable)  # type: ignore[attr-defined]
        return config

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Self:
        """A new object of the same arguments.

        Args:
            config: What `get_config` gave.
            custom_objects: Name -> class, for Keras objects among the arguments.

        Raises:
            TypeError: An argument is unknown or missing.
        """
        annotations = _annotations(cls)  # type: ignore[arg-type]
        values = dict(config)
        policy = None if _POLICY in annotations else values.pop(_POLICY, None)
        trained = True if _TRAINED in annotations else values.pop(_TRAINED, True)
        with tf_keras.saving.custom_object_scope(dict(custom_objects or {})), _policy(policy):
            instance = cls(
                **{
                    name: _value(value, annotations.get(name, Any))
                    for name, value in values.items()
                }
            )
        if not trained:
            instance.trainable = False  # type: ignore[attr-defined]
        return instance

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments, as they were given."""
        return dict(self.__dict__[_ARGUMENTS].given)

    def rebuilt(self, change: Callable[[Any], Any]) -> Self:
        """A new object of the same arguments, some of them changed; its weights are initial ones.

        Args:
            change: An argument -> the one in its place; also called with those of the layers and
                models among the arguments, which are rebuilt too.
        """

        def made(value: Any) -> Any:
            if isinstance(value, Rebuildable):
                return value.rebuilt(change)
            if isinstance(value, (list, tuple)):
                return [made(member) for member in value]
            return change(value)

        return type(self)(**{name: made(value) for name, value in self.arguments.items()})

    def get_build_config(self) -> dict[str, Any] | None:
        """None: weights are made by the first call, which whoever holds the object makes."""
        return None


def made_like(layer: tf_keras.layers.Layer) -> AbstractContextManager[None]:
    """Layers that are made inside have the dtype policy of a layer, whatever the global one is."""
    return _policy(layer.dtype_policy)


@cache
def _needs_arguments(cls: type) -> bool:
    """Whether the constructor has a parameter without a default."""
    own = list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]
    named = [p for p in own if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return any(p.default is p.empty for p in named)


@cache
def _annotations(cls: type) -> dict[str, Any]:
    """Types of the constructor's parameters."""
    return typing.get_type_hints(cls.__init__)  # type: ignore[misc]


@contextmanager
def _policy(policy: Any) -> typing.Iterator[None]:
    """Makes layers under another dtype policy, None for the global one."""
    before = tf_keras.mixed_precision.global_policy()
    if policy is not None:
        tf_keras.mixed_precision.set_global_policy(policy)
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy(before)


def _plain(value: Any) -> Any:
    """An argument as plain values."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (tf_keras.layers.Layer, np.ndarray)):
        return tf_keras.saving.serialize_keras_object(value)
    if hasattr(value, "get_config"):
        return value.get_config()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value):
        return TypeAdapter(type(value)).dump_python(value, mode="json")
    if isinstance(value, Mapping):
        return {key: _plain(member) for key, member in value.items()}
    if isinstance(value, Sequence):
        return [_plain(member) for member in value]
    raise TypeError(
        f"A {type(value).__name__} cannot be written into a configuration: give it `get_config` "
        "and `from_config`, or pass a section of the configuration or a dataclass."
    )


def _value(plain: Any, annotation: Any) -> Any:
    """The argument of plain values, by the type that the constructor declares."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _value(plain, typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        arms = [arm for arm in typing.get_args(annotation) if arm is not type(None)]
        return plain if plain is None or len(arms) != 1 else _value(plain, arms[0])
    if origin is not None and isinstance(origin, type) and isinstance(plain, list):
        member = (*typing.get_args(annotation), Any)[0]
        values = [_value(each, member) for each in plain]
        return tuple(values) if origin is tuple else values
    if not isinstance(annotation, type):
        return plain
    if issubclass(annotation, (tf_keras.layers.Layer, np.ndarray)):
        return tf_keras.saving.deserialize_keras_object(plain)
    if hasattr(annotation, "from_config"):
        return annotation.from_config(plain)
    if issubclass(annotation, BaseModel):
        return annotation.model_validate(plain)
    if is_dataclass(annotation):
        return TypeAdapter(annotation).validate_python(plain)
    return plain
