"""Which variables a name of a configuration means: those whose path holds it in whole segments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import tensorflow as tf

_SEPARATOR = "/"


def path_of(variable: tf.Variable) -> str:
    """Path of a variable outside of the tables: its name without the output's number."""
    name: str = variable.name
    return name.split(":")[0]


def holds(path: str, key: str) -> bool:
    """Whether consecutive segments of a path are those of a key.

    `dnn_1` and `block/dnn_1` are in `model/block/dnn_1/kernel` and not in
    `model/block/dnn_10/kernel`.

    Args:
        path: Segments joined by `/`.
        key: One segment or more, joined by `/`.
    """
    return f"{_SEPARATOR}{key}{_SEPARATOR}" in f"{_SEPARATOR}{path}{_SEPARATOR}"


def within(*keys: str) -> Callable[[str], bool]:
    """A predicate over paths: whether a path holds one of the keys, see `holds`."""
    return lambda path: any(holds(path, key) for key in keys)


def is_kind(path: str, kind: str) -> bool:
    """Whether a segment of a path is a kind of variable, alone or as a word at an end.

    For `bias` these are `bias`, `bias_2` and `logit_bias`, but not `debiased`.
    """
    return any(
        segment == kind or segment.startswith(f"{kind}_") or segment.endswith(f"_{kind}")
        for segment in path.split(_SEPARATOR)
    )


def unmatched(keys: Iterable[str], paths: Sequence[str], groups: Iterable[str]) -> list[str]:
    """The keys that name neither a table group nor a segment of a path."""
    known = set(groups)
    return [k for k in keys if k not in known and not any(holds(path, k) for path in paths)]


def segments(paths: Iterable[str]) -> list[str]:
    """The segments of some paths, each once, in their order."""
    return list(dict.fromkeys(s for path in paths for s in path.split(_SEPARATOR)))
