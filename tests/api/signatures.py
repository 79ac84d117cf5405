"""Signatures of the public names as text, one a line."""

from __future__ import annotations

import inspect
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import lfm4ads_tf
from tests.api.public import OWN, documented, function_of, members

RECORDED = Path(__file__).with_name("signatures.txt")
"""The signatures as they were agreed on."""

_PLAIN = (str, int, float, bool, type(None))


def signatures() -> list[str]:
    """The names, and below each class its public methods, properties and fields."""
    lines: list[str] = []
    for name in sorted(lfm4ads_tf.PUBLIC):
        value = documented(name)
        if value is not getattr(lfm4ads_tf, name):
            lines.append(f"{name}: {value.__name__}")
        elif isinstance(value, type):
            bases = [b.__name__ for b in value.__mro__[1:] if b.__module__.startswith(f"{OWN}.")]
            lines.append(f"class {name}{_parameters(value)}: {', '.join(bases) or 'object'}")
        else:
            lines.append(f"def {name}{_parameters(value)}")
        if isinstance(value, type):
            lines += [f"    {_member(each, found)}" for each, found in members(value)]
    return lines


def _member(name: str, member: Any) -> str:
    function = function_of(member)
    if isinstance(member, (property, cached_property)):
        returned = inspect.get_annotations(function).get("return", "")
        return f"{name}: {returned}"
    kind = {classmethod: "classmethod ", staticmethod: "staticmethod "}.get(type(member), "")
    return f"{kind}{name}{_parameters(function)}"


def _parameters(value: Any) -> str:
    """Parameters of a function or of a class' constructor, as they are written."""
    if isinstance(value, type) and issubclass(value, BaseModel):
        fields = value.model_fields.items()
        return f"({', '.join(_field(value, *field) for field in fields)})"
    signature = inspect.signature(value)
    written = []
    star = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            written.append("*")
        star = star or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        mark = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        text = f"{mark}{parameter.name}"
        if parameter.annotation is not parameter.empty:
            text += f": {parameter.annotation}"
        if parameter.default is not parameter.empty:
            made = repr(parameter.default) == "<factory>"  # of a dataclass
            text += f" = {'...' if made else _default(parameter.default)}"
        written.append(text)
    ends = signature.return_annotation
    returned = "" if isinstance(value, type) or ends is signature.empty else f" -> {ends}"
    return f"({', '.join(written)}){returned}"


def _field(model: type[BaseModel], name: str, field: Any) -> str:
    """A field of a section of the configuration."""
    kinds = [inspect.get_annotations(base).get(name) for base in model.__mro__]
    text = f"{name}: {next(kind for kind in kinds if kind is not None)}"
    if field.is_required():
        return text
    return f"{text} = {'...' if field.default_factory else _default(field.default)}"


def _default(value: Any) -> str:
    """A default; of an object its class alone, whose own fields are told there."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, (tuple, list, dict)):
        items = value.items() if isinstance(value, dict) else value
        if all(isinstance(each, (*_PLAIN, tuple)) for each in items):
            return repr(value)
    return f"{type(value).__name__}(...)"
