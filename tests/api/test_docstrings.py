"""What every public name's docstring holds: an example, shapes, what it raises, and its source."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
import tf_keras

import lfm4ads_tf
from tests.api.public import documented, function_of, members

RAISES_NOTHING = {
    "TableConfig": "a plain record; the layer that is made of it checks it",
    "EmbeddedFeature": "a plain record; the layer that is made of it checks it",
    "BlockInputs": "a plain record of tensors",
    "Adapter": "abstract; it takes any names, and what is missing is told by the model",
    "UserError": "it is what is raised",
}
"""Public names that a user's arguments cannot break, and why."""

NO_PAPER = {
    "ShardedEmbedding": "tables cut by rows and fused by width are no paper's",
    "InteractionLayer": "abstract; each layer names its own",
    "Adapter": "abstract; each adapter names its own",
    "UpstreamModel": "abstract; each model names its own",
}
"""Layers, models and optimizers that stand for no paper, and why."""

SHAPE = re.compile(r"\([\w *+-]+,[^()]*\)|\(\)|\bscalar\b", re.I)
"""A shape such as (B, d), (N,) or ()."""
TENSORS = re.compile(r"Tensor|ndarray|BlockInputs|Dataset|pa\.Array")
"""Annotations of what has a shape; an `EncodedBatch` tells its own."""
_REFERS = re.compile(r"See (?:`[\w.]+`|Keras)|; see `|[Aa]rguments as in `|[Aa]s `[\w.]+`")


def section(doc: str, name: str) -> str:
    """The part of a docstring under a title, an empty text without it."""
    found = re.search(rf"^ *{name}:(.*?)(?=^ *(?:[A-Z]\w+|Source\w*): *$|\Z)", doc, re.M | re.S)
    return found.group(1).strip() if found else ""


@pytest.mark.parametrize("name", lfm4ads_tf.PUBLIC)
def test_there_is_an_example(name: str) -> None:
    doc = inspect.getdoc(documented(name)) or ""
    assert ">>> import lfm4ads_tf as lfm" in section(doc, "Example"), (
        f"the docstring of lfm4ads_tf.{name} has no example that imports the package as users do"
    )
    assert f"lfm.{name}" in section(doc, "Example"), f"the example of {name} does not use it"


@pytest.mark.parametrize("name", lfm4ads_tf.PUBLIC)
def test_it_says_what_it_raises(name: str) -> None:
    doc = inspect.getdoc(documented(name)) or ""
    if name in RAISES_NOTHING:
        assert not section(doc, "Raises"), f"{name} raises something: take it off the list"
    else:
        assert re.match(r"[\w.]+: \S", section(doc, "Raises")), (
            f"{name} does not say what it raises"
        )


@pytest.mark.parametrize("name", lfm4ads_tf.PUBLIC)
def test_it_names_its_source(name: str) -> None:
    value = documented(name)
    kinds = (tf_keras.layers.Layer, tf_keras.optimizers.Optimizer)
    if isinstance(value, type) and issubclass(value, kinds):
        doc = inspect.getdoc(value) or ""
        assert bool(re.search(r"^Sources?: ", doc, re.M)) != (name in NO_PAPER), (
            f"{name} names no paper, or is listed as if it stood for none"
        )


def functions() -> Iterator[Any]:
    """Public functions, and the methods and properties of public classes, each once."""
    seen: set[Any] = set()
    for name in lfm4ads_tf.PUBLIC:
        value = documented(name)
        found = members(value) if isinstance(value, type) else [(name, value)]
        for _, member in found:
            function = function_of(member)
            if function not in seen:
                seen.add(function)
                yield pytest.param(function, id=function.__qualname__)


@pytest.mark.parametrize("function", functions())
def test_it_gives_shapes(function: Any) -> None:
    doc = inspect.getdoc(function) or ""
    where = f"{function.__module__}.{function.__qualname__}"
    assert doc, f"{where} has no docstring"
    kinds = inspect.get_annotations(function)
    given = [str(kind) for name, kind in kinds.items() if name != "return"]
    taken = [kind for kind in given if TENSORS.search(kind)]
    returned = bool(TENSORS.search(str(kinds.get("return", ""))))
    if not (taken or returned) or _REFERS.search(doc):
        return
    told = len(SHAPE.findall(doc))
    assert told >= bool(taken) + returned, (
        f"{where} reads or gives tensors ({', '.join(taken)}) and tells {told} shapes"
    )
