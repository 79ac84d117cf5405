"""Silence for native libraries that print while they are imported."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


@contextmanager
def native_stderr_hidden() -> Iterator[None]:
    """Keeps back what is written to standard error inside the block, by native code too.

    It is shown after all where the block ends with an exception, which it may explain. Nothing is
    hidden in a process without standard error.
    """
    try:
        shown = os.dup(2)
    except OSError:
        yield
        return
    _flush()
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            _flush()
            os.dup2(shown, 2)
            os.close(shown)
            if failed:
                hidden.seek(0)
                os.write(2, hidden.read())


def _flush() -> None:
    if sys.stderr is not None:
        sys.stderr.flush()


def hide_banner_of(name: str) -> None:
    """Keeps back what a module prints to standard error while it is imported, see above.

    Does nothing where it is imported already.
    """
    if name not in sys.modules:
        sys.meta_path.insert(0, _QuietFinder(name))


class _QuietFinder(MetaPathFinder):
    """Finds one module as the other finders do, and has it run with standard error hidden."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `MetaPathFinder`; it serves once."""
        if fullname != self._name or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def quietly(module: ModuleType) -> None:
            with native_stderr_hidden():
                run(module)

        spec.loader.exec_module = quietly  # type: ignore[method-assign]
        return spec
