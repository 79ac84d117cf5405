"""MkDocs hook: the tables of all keys of the run configuration, made from its classes.

A class of the configuration gives a section; its keys' defaults and values come from the fields,
what they mean from its docstring. The tables stand at the mark of `configuration.md`.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from typing import Any

import griffe
from docstrings import rewritten
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.interactions.registry import INTERACTIONS
from lfm4ads_tf.models.registry import UPSTREAMS

PAGE = re.compile(r"\bdocs/([\w/]+\.md)")
MARK = "<!-- KEYS OF THE RUN CONFIGURATION -->"
TYPES = {
    "boolean": "true, false",
    "integer": "integer",
    "number": "number",
    "string": "text",
    "null": "none",
}


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts the tables at their mark."""
    return markdown.replace(MARK, tables()) if MARK in markdown else markdown


def tables() -> str:
    """All sections: the top, its parts, what parts share, then options of what is registered."""
    sections: dict[type[BaseModel], str] = {}
    _collect(RunConfig, "", sections)
    lines = []
    for model, title in sections.items():
        lines += [f"### {title}", "", *_section(model, sections), ""]
    for title, registry in (("upstream", UPSTREAMS), ("layer", INTERACTIONS)):
        for name in registry:
            if registry[name].Config is not None:
                lines += [f"### {title} {name}", "", *_section(registry[name].Config, {}), ""]
    return "\n".join(lines)


def _collect(model: type[BaseModel], title: str, sections: dict[type[BaseModel], str]) -> None:
    """Class -> title of its section, breadth first: a class that several parts have comes once."""
    if not title:
        sections[model] = "Top level"
    parts = {
        key: type(default)
        for key, field in model.model_fields.items()
        if isinstance(default := field.get_default(call_default_factory=True), BaseModel)
    }
    new = {key: part for key, part in parts.items() if part not in sections}
    for key, part in new.items():
        taken = f"{title}.{key}" if title and key in sections.values() else key
        sections[part] = taken
    for key, part in new.items():
        _collect(part, key, sections)


def _section(model: type[BaseModel], sections: Mapping[type[BaseModel], str]) -> list[str]:
    """What a class says of itself, and the table of its keys."""
    schema = model.model_json_schema()
    meanings = _meanings(model)
    lines = [
        " ".join(_about(model).split()),
        "",
        "| key | default | values | meaning |",
        "|---|---|---|---|",
    ]
    for key, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        meaning = meanings.get(key, "")
        if isinstance(default, BaseModel):
            title = sections[type(default)]
            meaning = meaning or _about(type(default)).splitlines()[0]
            lines.append(
                f"| `{key}` | {_unlike(default)} | [{title}](#{_slug(title)}) | {meaning} |"
            )
            continue
        values = _values(schema["properties"][key], schema.get("$defs", {}))
        given = "required" if field.is_required() else _default(default)
        lines.append(f"| `{key}` | {given} | {values} | {meaning} |")
    return lines


def _about(model: type[BaseModel]) -> str:
    """What a class says of itself before it lists its keys."""
    text = inspect.cleandoc(model.__doc__ or "").split("\n\nAttributes:")[0]
    return PAGE.sub(r"[\1](\1)", text)


def _slug(title: str) -> str:
    """The anchor of a title."""
    return title.lower().replace(" ", "-").replace(".", "")


def _unlike(part: BaseModel) -> str:
    """The keys of a part whose default here is not that of the part's own section."""
    own = {
        key: field.get_default(call_default_factory=True)
        for key, field in type(part).model_fields.items()
    }
    changed = {k: v for k in own if (v := getattr(part, k)) != own[k] and not isinstance(v, list)}
    return ", ".join(
        f"`{key}: {value}`"
        for key, value in changed.items()
        if isinstance(value, str | int | float | None)
    )


def _default(value: Any) -> str:
    """A default as it is written in YAML."""
    if value is None:
        return "none"
    if isinstance(value, list) and value and isinstance(value[0], BaseModel):
        value = [getattr(layer, "type", layer) for layer in value]
    return f"`{json.dumps(value, ensure_ascii=False).replace(chr(34), '')}`" if value != "" else ""


def _values(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """What a key takes, in words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_values(s, definitions) for s in schema["anyOf"]))
    if "$ref" in schema:
        return "keys as below"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_values(schema.get('items', {}), definitions)}"
    if kind == "object":
        inner = schema.get("additionalProperties")
        return f"name -> {_values(inner, definitions)}" if isinstance(inner, dict) else "keys"
    bounds = [
        f"{sign} {schema[name]:g}"
        for name, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if name in schema
    ]
    return " ".join([TYPES.get(kind or "", "any value"), ", ".join(bounds)]).strip()


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """Key -> what the docstring of its class, or of a class above it, says."""
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if not issubclass(owner, BaseModel) or not owner.__doc__:
            continue
        docstring = griffe.Docstring(rewritten(inspect.cleandoc(owner.__doc__)))
        for section in docstring.parse("google", warnings=False):
            if section.kind is griffe.DocstringSectionKind.attributes:
                for attribute in section.value:
                    text = " ".join(attribute.description.split())
                    text = PAGE.sub(r"[\1](\1)", text)
                    found[attribute.name] = text
    return found
