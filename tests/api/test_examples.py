"""The examples in the docstrings of public names run, as a user would type them."""

from __future__ import annotations

import doctest

import pytest

import lfm4ads_tf
from tests.api.public import documented

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


_LONG = ("extract", "RepresentationStore", "export_model", "load_export")  # they fit or export
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if name in _LONG else [])
    for name in lfm4ads_tf.PUBLIC
]


@pytest.mark.parametrize("name", NAMES)
def test_examples_of(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    # names of their own, so that what an example defines is of no module of the package
    found = doctest.DocTestFinder(recurse=False).find(
        documented(name), name, globs={"__name__": "__main__"}
    )
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for examples in found:
        runner.run(examples)
    results = runner.summarize(verbose=False)
    assert results.failed == 0, capsys.readouterr().out
    assert results.attempted


def test_the_example_of_the_package() -> None:
    results = doctest.testmod(lfm4ads_tf, optionflags=FLAGS, globs={"__name__": "__main__"})
    assert results.attempted and not results.failed
