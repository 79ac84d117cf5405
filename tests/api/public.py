"""The public names, what stands behind them, and their members."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import lfm4ads_tf
from lfm4ads_tf import PUBLIC

OWN = lfm4ads_tf.__name__


def documented(name: str) -> Any:
    """What carries the docstring of a public name: itself, or the class of a table of names."""
    value = getattr(lfm4ads_tf, name)
    return value if isinstance(value, type) or inspect.isroutine(value) else type(value)


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties of a class that this package defines, inherited ones too."""
    for name in sorted(dir(cls)):
        if name.startswith("_"):
            continue
        value = inspect.getattr_static(cls, name)
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        function = value.fget if isinstance(value, property) else value
        function = getattr(function, "func", function)  # a cached property
        if inspect.isfunction(function) and function.__module__.startswith(f"{OWN}."):
            yield name, inspect.getattr_static(cls, name)


def function_of(member: Any) -> Callable[..., Any]:
    """The function behind a method or property."""
    if isinstance(member, (staticmethod, classmethod)):
        return member.__func__
    if isinstance(member, property):
        assert member.fget is not None
        return member.fget
    return getattr(member, "func", member)


def modules() -> list[str]:
    """The modules of the public names, each once."""
    return list(dict.fromkeys(place.partition(":")[0] for place in PUBLIC.values()))


def module_of(name: str) -> Any:
    """A module by its name."""
    return import_module(name)
