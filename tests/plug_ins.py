"""Plug-ins of tests, which no other test of the process may see."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any

import lfm4ads_tf
from lfm4ads_tf.registry import Registry


@cache
def registries() -> tuple[Registry[Any], ...]:
    """Every table of names of the package: those of its `registry.py` files."""
    modules = pkgutil.walk_packages(lfm4ads_tf.__path__, "lfm4ads_tf.")
    names = [module.name for module in modules if module.name.endswith(".registry")]
    found = [value for name in names for value in vars(import_module(name)).values()]
    return tuple(value for value in found if isinstance(value, Registry))


@contextmanager
def plug_ins_forgotten() -> Iterator[None]:
    """Forgets the plug-ins that are loaded inside the context, and what they register."""
    before = set(sys.modules)
    known = [dict(registry._entries) for registry in registries()]
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            if name.startswith("lfm4ads_tf_plugin_"):
                del sys.modules[name]
        for registry, entries in zip(registries(), known, strict=True):
            registry._entries = entries
