"""The files of a log, with a scenario each where a mapping gives one, and the names of columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag


def _patterns(value: Any) -> Any:
    """A mapping scenario -> pattern or patterns, each as a list."""
    if not isinstance(value, Mapping):
        return value
    if not value:
        raise ValueError("name at least one file")
    return {k: [v] if isinstance(v, str) else v for k, v in value.items()}


def _distinct(names: Any) -> Any:
    """Names of columns, none of them twice."""
    if isinstance(names, list):
        if not names:
            raise ValueError("name the columns of the file, in its order")
        twice = [name for name, count in Counter(map(str, names)).items() if count > 1]
        if twice:
            raise ValueError(f"'{twice[0]}' is named twice")
    return names


_Patterns = Annotated[list[str], Field(min_length=1)]

_ByScenario = Annotated[
    dict[Annotated[str, Field(min_length=1)], _Patterns], BeforeValidator(_patterns)
]


def _kind_of_files(value: Any) -> str:
    """Tag of the files, whether raw or validated."""
    return "by scenario" if isinstance(value, Mapping) else "a list"


ScenarioFiles = Annotated[
    Annotated[_Patterns, Tag("a list")] | Annotated[_ByScenario, Tag("by scenario")],
    Discriminator(_kind_of_files),
]
"""Patterns of a log's files, or scenario -> patterns of its files."""

ColumnNames = Annotated[list[str] | None, BeforeValidator(_distinct)]
"""Names of the columns of files without a header line, in order; None where they have one."""
