"""YAML documents whose plain scalars keep the text that they were written as.

YAML reads `NO` as false, `010` as 8 and `16:9` as 969. Where a key means a text, none of these is
what was written; where it means a number or a truth value, they are. So the reader decides
nothing: a plain scalar whose value is not written in the one usual way becomes a `Written`, a text
that knows the value too, and the type of the key chooses between them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml

_BOOLEANS = {
    **dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"), False),
}
_NULLS = ("null", "Null", "NULL", "~")
_INTEGER = re.compile(r"[-+]?[0-9][0-9_]*|[-+]?0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(
    r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?", re.ASCII
)
_SPECIAL = {
    **dict.fromkeys((s + i for s in ("", "+") for i in (".inf", ".Inf", ".INF")), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_STRING = "tag:yaml.org,2002:str"
UNREAD = object()
"""In `Annotated[Any, UNREAD]`: a value whose type another class knows, which gets it unresolved."""


class Written(str):
    """The text of a plain scalar, with the value that it has where no text is meant.

    Attributes:
        value: A number, a truth value, a date or time, or None.
    """

    value: Any

    def __new__(cls, text: str, value: Any) -> Written:
        """A text with its value."""
        made = super().__new__(cls, text)
        made.value = value
        return made

    def __getnewargs__(self) -> tuple[str, Any]:  # type: ignore[override]
        return str(self), self.value


class _Loader(yaml.SafeLoader):
    """Makes `Written` scalars, takes every key as a text, and refuses a key that comes twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        seen: dict[str, Any] = {}
        for key in own:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a name", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    f"the key '{key.value}' was given before",
                    seen[key.value].start_mark,
                    "and is given again; keep one of them",
                    key.start_mark,
                )
            seen[key.value] = key
        self.flatten_mapping(node)
        return {key.value: self.construct_object(v, deep=deep) for key, v in node.value}


def _mapping(loader: _Loader, node: Any) -> Any:
    data: dict[Any, Any] = {}
    yield data
    data.update(loader.construct_mapping(node))


def _scalar(loader: _Loader, node: Any) -> Any:
    """A scalar that YAML does not take for a text."""
    try:
        return _value(loader, node)
    except ValueError:
        return node.value  # no value after all, such as the date 2026-13-01


def _value(loader: _Loader, node: Any) -> Any:
    text: str = node.value
    if text in _BOOLEANS:
        value: Any = _BOOLEANS[text]
        return value if text in ("true", "false") else Written(text, value)
    if text in _NULLS:
        return Written(text, None)
    if not text:
        return None
    if _INTEGER.fullmatch(text):
        digits = text.replace("_", "")
        hexadecimal = "x" in digits
        value = int(digits, 16 if hexadecimal else 10)
        return value if str(value) == text else Written(text, value)
    if text in _SPECIAL or _FLOAT.fullmatch(text):
        value = _SPECIAL[text] if text in _SPECIAL else float(text.replace("_", ""))
        return value if text in (repr(value), _dumped(value)) else Written(text, value)
    if node.tag == "tag:yaml.org,2002:timestamp":
        return Written(text, loader.construct_yaml_timestamp(node))
    return text  # such as 16:9, which only YAML 1.1 takes for a number


def _string(loader: _Loader, node: Any) -> Any:
    # `1e3` is a number to everybody but YAML 1.1.
    plain = node.style is None and (_FLOAT.fullmatch(node.value) or _INTEGER.fullmatch(node.value))
    return _scalar(loader, node) if plain else loader.construct_scalar(node)


def _dumped(value: float) -> str:
    """A float as YAML writers write it."""
    return str(yaml.representer.SafeRepresenter().represent_float(value).value)


for _tag in ("bool", "int", "float", "null", "timestamp", "value"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _scalar)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor(_STRING, _string)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that the reader would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent(dumper: _Dumper, text: str) -> Any:
    number = _FLOAT.fullmatch(text) or _INTEGER.fullmatch(text)
    return dumper.represent_scalar(_STRING, str(text), style="'" if number else None)


_Dumper.add_representer(str, _represent)
_Dumper.add_representer(Written, _represent)


def load(text: str) -> Any:
    """Reads one YAML document.

    Every key is the text that it is written as. A plain scalar that is no text is a `Written`,
    unless it is written in the usual way: `true`, `false`, `7`, `0.5`, or nothing for None.

    Raises:
        yaml.YAMLError: The text is not YAML, or a mapping has a key twice.
    """
    return yaml.load(text, _Loader)  # noqa: S506, a safe loader


def dump(document: Any) -> str:
    """A document as YAML that `load`, and any other reader, reads back as it is."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False)


def plain(value: Any) -> Any:
    """A document with the values of its `Written` scalars, for keys that know no type."""
    if isinstance(value, Written):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(of) for key, of in value.items()}
    if isinstance(value, list):
        return [plain(of) for of in value]
    return value


def text_of(value: Any) -> Any:
    """The text that a scalar was written as; anything but a scalar is returned as it is."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    return value.isoformat() if isinstance(value, date) else value


def value_for(value: Any, annotation: Any) -> Any:
    """A value of a document as a key of some type takes it.

    Args:
        value: What `load` returned for the key, or plain values.
        annotation: The key's type. A text, also in a list or a mapping, gets what was written; a
            type with both texts and numbers, and a model, get it unresolved; others get the value.

    Returns:
        The value, to be validated.
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return value if UNREAD in parts else value_for(value, parts[0])
    if origin in (Union, UnionType):
        others = [part for part in parts if part is not NoneType]
        if len(others) < len(parts) and (value is None or getattr(value, "value", 0) is None):
            return None
        kind = list if isinstance(value, list) else dict if isinstance(value, Mapping) else None
        numbers = {bool, int, float} & set(others)
        fitting = [p for p in others if (get_origin(p) is kind if kind else p is str)]
        if len(others) == 1 or (fitting and not numbers):
            return value_for(value, fitting[0] if fitting else others[0])
        return value if any(map(_mentions_text, others)) else _resolved_value(value, others)
    if annotation is str or (origin is Literal and any(isinstance(p, str) for p in parts)):
        return str(value) if isinstance(value, Written) else text_of(value)
    if origin is list and isinstance(value, list):
        return [value_for(of, parts[0]) for of in value]
    if origin is tuple and isinstance(value, list):
        fixed = len(parts) == len(value) and Ellipsis not in parts
        return [
            value_for(of, part)
            for of, part in zip(value, parts if fixed else [parts[0]] * len(value), strict=True)
        ]
    if origin is dict and isinstance(value, Mapping):
        return {text_of(key): value_for(of, parts[1]) for key, of in value.items()}
    return _resolved_value(value, [annotation])


def _resolved_value(value: Any, annotations: list[Any]) -> Any:
    """The value of a scalar; what models read inside is left to them."""
    if isinstance(value, Written):
        return value.value
    return plain(value) if Any in annotations else value


def _mentions_text(annotation: Any) -> bool:
    """Whether a type has a text somewhere; a model's own keys do not count."""
    return annotation is str or any(map(_mentions_text, get_args(annotation)))
