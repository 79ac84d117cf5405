"""The command line that makes a run again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from lfm4ads_tf.config import Resolved, resolve
from lfm4ads_tf.errors import UserError

_SPECS = Path(__file__).resolve().parents[2] / "feature_specs"


def command(resolved: Resolved) -> str:
    """The `train.py` command with every setting that differs from the shipped spec.

    Args:
        resolved: Feature spec and run configuration.

    Returns:
        The command, one option a line. For a spec that is not shipped, or one that assignments
        cannot express, it names `spec.yaml`, to be taken from the resolved configuration.
    """
    name = resolved.spec.name
    head = ["python train.py run"]
    tail = [f"--out runs/{shlex.quote(name)}_again"]
    if resolved.spec.dataset is None:
        tail.insert(0, "--data-dir DIR")
    assignments = _assignments(_SPECS / f"{name}.yaml", resolved)
    if assignments is None:
        note = (
            "# spec.yaml: the section `spec` of the resolved configuration below, with the section "
            "`config` as its key `run`; leave out the settings that `given` does not list, and the "
            "search of `auto` chooses them again\n"
        )
        return note + _joined([*head, "--spec spec.yaml", *tail])
    options = [f"--set {shlex.quote(a)}" for a in assignments]
    return _joined([*head, f"--spec feature_specs/{name}.yaml", *options, *tail])


def _joined(parts: list[str]) -> str:
    return " \\\n  ".join(parts)


def _assignments(path: Path, resolved: Resolved) -> list[str] | None:
    """What turns a shipped spec into the resolved one; None when assignments cannot."""
    if not path.exists():
        return None
    wanted = resolved.model_dump(mode="json")
    try:
        shipped = resolve(path).model_dump(mode="json")
        shipped["spec"].pop("run", None)
        spec = {k: v for k, v in wanted["spec"].items() if k != "run"}
        differing = [
            (".".join(steps), value)
            for part, target in (("spec", spec), ("config", wanted["config"]))
            for steps, value in _differences(shipped[part], target)
        ]
        # A key given at its default keeps a search from it.
        known = [*shipped["given"], *(path for path, _ in differing)]
        differing += [
            (path, _at(wanted["config"], path))
            for path in wanted["given"]
            if not any(path == other or path.startswith(f"{other}.") for other in known)
        ]
        found = [
            f"{path}={json.dumps(_without_defaults(value, path, wanted['given']))}"
            for path, value in differing
        ]
        again = resolve(path, found).model_dump(mode="json")
    except UserError:
        return None
    for document in (again, wanted):
        document["spec"].pop("run", None)
        document.pop("chosen")  # the same search chooses it again
    return found if again == wanted else None


def _differences(
    shipped: Mapping[str, Any], wanted: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Paths and values of `wanted` that are not in `shipped`."""
    for key, value in wanted.items():
        old = shipped.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            yield from _differences(old, value, (*path, key))
        elif key not in shipped or old != value:
            yield (*path, key), value


def _at(document: Any, path: str) -> Any:
    """The value at a dotted path; of a list of layers that of the first one that has it."""
    for step in path.split("."):
        if isinstance(document, list):
            document = next(layer for layer in document if step in layer)
        document = document[step]
    return document


def _without_defaults(value: Any, path: str, given: Collection[str]) -> Any:
    """The value without the dropout of layers that nobody gave, which a search may choose."""
    if isinstance(value, list):
        return [_without_defaults(below, path, given) for below in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: _without_defaults(below, f"{path}.{key}", given)
        for key, below in value.items()
        if key != "dropout" or below or f"{path}.{key}" in given
    }
