"""A user's own models, layers, losses and adapters, in files outside of the package."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from lfm4ads_tf.errors import UserError


def load_plugins(names: Sequence[str]) -> None:
    """Imports modules that register what they define, each once in a process.

    Args:
        names: A file, such as `my_models.py`, relative to the working directory, or the name of a
            module that is installed, such as `my_company.models`.

    Raises:
        UserError: One cannot be found or imported.
    """
    for name in names:
        try:
            if name.endswith(".py"):
                _load_file(name)
            else:
                import_module(name)
        except UserError:
            raise
        except Exception as error:  # whatever a user's file may raise
            line = _line(error, name)
            raise UserError(
                f"The plug-in '{name}' cannot be imported.",
                received=f"{type(error).__name__}: {error}{line}",
                fix="mend it, or take it out of `plugins`",
            ) from error


def _load_file(name: str) -> None:
    path = Path(name).resolve()
    if not path.is_file():
        raise UserError(
            f"The plug-in '{name}' is not there.",
            received=str(path),
            fix="give the path of a Python file, relative to the working directory",
        )
    module_name = f"lfm4ads_tf_plugin_{path.stem}"
    known = sys.modules.get(module_name)
    if known is not None:
        if known.__file__ != str(path):
            raise UserError(
                f"Two plug-ins are called '{path.name}'.",
                received=f"{known.__file__} and {path}",
                fix="rename one of the files",
            )
        return
    found = spec_from_file_location(module_name, path)
    if found is None or found.loader is None:
        raise UserError(f"The plug-in '{name}' is no Python file.", received=str(path))
    module = module_from_spec(found)
    sys.modules[module_name] = module  # so that its classes know where they are from
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise


def _line(error: Exception, name: str) -> str:
    """Where in the plug-in an error arose."""
    trace, line = error.__traceback__, None
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).name == Path(name).name:
            line = trace.tb_lineno
        trace = trace.tb_next
    return "" if line is None else f" (line {line})"
