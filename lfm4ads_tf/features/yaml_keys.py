"""Keys that a YAML file gives twice: YAML keeps the last one without a word."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from lfm4ads_tf.errors import UserError

# The parser in C where PyYAML was built with it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def refuse_repeated_keys(text: str, source: str) -> None:
    """Refuses a mapping with one key twice, such as two files of one scenario name.

    Args:
        text: A YAML document.
        source: Where it comes from, for the message.

    Raises:
        UserError: The key and both of its lines are named.
        yaml.YAMLError: The text is no YAML.
    """
    for path, first, second in _repeated(yaml.compose(text, Loader=_LOADER), ()):
        raise UserError(
            f"{source} gives the key '{'.'.join(path)}' twice.",
            received=f"line {first} and line {second}",
            fix="keep one of them, or rename one; several files of one name are a list",
        )


def _repeated(
    node: yaml.Node | None, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], int, int]]:
    """Paths of repeated keys with the lines of two of their places, counted from 1."""
    if isinstance(node, yaml.SequenceNode):
        for place, each in enumerate(node.value):
            yield from _repeated(each, (*path, str(place)))
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[tuple[str, str], int] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue  # no key of a spec; the loader refuses it
        line = key.start_mark.line + 1
        name = (*path, key.value)
        if (key.tag, key.value) in lines:
            yield name, lines[key.tag, key.value], line
        lines[key.tag, key.value] = line
        yield from _repeated(value, name)
