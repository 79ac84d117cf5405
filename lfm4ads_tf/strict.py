"""Strict typed models: unknown keys are refused and the nearest known one is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.registry import Registry
from lfm4ads_tf.written import value_for

Model = TypeVar("Model", bound="StrictModel")


class StrictModel(BaseModel):
    """A frozen pydantic model that refuses unknown keys.

    A key that takes a text takes any scalar as the text that it was written as, see `written`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, data: Any) -> Any:
        """Scalars by the type of their key."""
        if not isinstance(data, Mapping):
            return data
        fields = cls.model_fields
        return {
            key: value_for(value, fields[key].annotation) if key in fields else value
            for key, value in data.items()
        }

    @classmethod
    def known_keys(cls) -> list[str]:
        """The keys that it reads."""
        return list(cls.model_fields)


def parse(model: type[Model], raw: Mapping[str, Any], *, source: str) -> Model:
    """Validates a mapping.

    Args:
        model: The model to build.
        raw: What was read from YAML or assembled from `--set`.
        source: Where `raw` comes from, for the message.

    Raises:
        UserError: One line per problem: the key's path, what is wrong, what was received.
    """
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        lines = _lines(model, error.errors(include_url=False), ())
        raise UserError("\n".join([f"{source} is not valid:", *lines])) from None


def member_of(registry: Registry[Any], tag: str, value: Any) -> Any:
    """The options of a registered class, for a validator: `value[tag]` names the class.

    Args:
        registry: Name -> class with a `Config`.
        tag: The key that holds the name.
        value: The options, as they were written.

    Returns:
        An instance of the class's `Config`.

    Raises:
        PydanticCustomError: The name is unknown, or the options are not valid.
    """
    name = value.get(tag) if isinstance(value, Mapping) else None
    if not isinstance(name, str):
        raise PydanticCustomError("member", "needs the key `{tag}`", {"tag": tag})
    if name not in registry:
        raise _nested(BaseModel, [_unknown_member(registry, tag, name)])
    return nested_options(registry[name].Config, value)


def nested_options(config: type[Model], value: Any, key: str | None = None) -> Model:
    """A model's instance inside another model's validator, whose message names the whole path.

    Args:
        config: The model.
        value: What it is made from.
        key: The key that the value stands under, where the validator is that of the model above.
    """
    try:
        return config.model_validate(value)
    except ValidationError as error:
        raise _nested(config, error.errors(include_url=False), key) from None


def unknown_key(key: str, known: Mapping[str, Any] | list[str]) -> PydanticCustomError:
    """What a model raises for a key that it does not read."""
    text = f"unknown key.{nearest(key, known)} Known keys: {', '.join(sorted(known))}"
    return _nested(BaseModel, [{"type": "told", "loc": (key,), "msg": text}])


def _unknown_member(registry: Registry[Any], tag: str, name: str) -> dict[str, Any]:
    text = (
        f"unknown {registry.what} '{name}'.{nearest(name, registry)} Known: {', '.join(registry)}"
    )
    return {"type": "told", "loc": (tag,), "msg": text}


def _nested(model: type[BaseModel], errors: list[Any], key: str | None = None) -> Any:
    context = {"model": model, "errors": errors, "key": key}
    return PydanticCustomError("nested", "is not valid", context)


def _lines(model: type[BaseModel], errors: list[Any], at: tuple[str, ...]) -> list[str]:
    """One line per problem; those that a validator found in a model of its own, one by one."""
    lines: list[str] = []
    for each in errors:
        if each["type"] == "nested":
            inner = each["ctx"]
            path = (*at, *_document_path(model, each["loc"]))
            path += (inner["key"],) if inner["key"] is not None else ()
            lines += _lines(inner["model"], inner["errors"], path)
        else:
            lines.append(_describe(model, each, at))
    return lines


def _describe(model: type[BaseModel], error: Any, at: tuple[str, ...]) -> str:
    """One line for one pydantic error of a model that stands at a path."""
    path = ".".join([*at, *_document_path(model, error["loc"])])
    if error["type"] == "told":
        return f"  {path}: {error['msg']}"
    if error["type"] == "extra_forbidden":
        known = _fields_at(model, error["loc"][:-1])
        hint = nearest(str(error["loc"][-1]), known)
        return f"  {path}: unknown key.{hint} Known keys: {', '.join(sorted(known))}"
    if error["type"] == "missing":
        return f"  {path}: this key is required"
    if error["type"] == "union_tag_invalid":
        context = error["ctx"]
        known = [k.strip("' ") for k in context["expected_tags"].split(",")]
        return (
            f"  {path}.{context['discriminator'].strip(chr(39))}: unknown kind "
            f"'{context['tag']}'.{nearest(context['tag'], known)} Known kinds: {', '.join(known)}"
        )
    message = error["msg"].removeprefix("Value error, ")
    return f"  {path}: {message} (received {error['input']!r:.80})"


def _document_path(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Pydantic's path without the tags of union members, which are no keys of the document."""
    path: list[str] = []
    for k, step in enumerate(location):
        tags = {_tag_of(m) for m in _models_at(model, location[:k])}
        if " " not in str(step) and not (k and step in tags):
            path.append(str(step))
    return path


def _fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Known keys of the model that a pydantic error location points into."""
    keys: list[str] = []
    for candidate in _models_at(model, location):
        own = getattr(candidate, "known_keys", lambda of=candidate: list(of.model_fields))()
        keys += [k for k in own if k not in keys]
    return keys


def _models_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[type[BaseModel]]:
    """The models that a pydantic error location may point into."""
    candidates: list[Any] = [model]
    for step in location:
        found: list[Any] = []
        for candidate in candidates:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                field = candidate.model_fields.get(str(step))
                if field is not None:
                    found += _models_in(field.annotation)
                elif _tag_of(candidate) == step or candidate.__name__ == step:
                    found.append(candidate)
            if not found and candidate is not None:
                found += [c for c in _models_in(candidate) if c is not candidate]
        # A mapping key or a list index leads to the same candidates.
        candidates = found or candidates
        tagged = [c for c in candidates if _tag_of(c) == step]
        candidates = tagged or candidates
    return [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]


def _tag_of(candidate: Any) -> str | None:
    """Value of a model's `kind` or `type` tag, None if it has none."""
    if not (isinstance(candidate, type) and issubclass(candidate, BaseModel)):
        return None
    for tag in ("kind", "type"):
        field = candidate.model_fields.get(tag)
        values = getattr(field.annotation, "__args__", None) if field is not None else None
        if values:
            return str(values[0])
    return None


def _models_in(annotation: Any) -> list[Any]:
    """Every model class inside a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for a in getattr(annotation, "__args__", ()) for m in _models_in(a)]
