from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm4ads_tf.cluster.row_loader import RowLoader
from lfm4ads_tf.data.row_recipe import RowRecipe
from lfm4ads_tf.data.row_source import RowSource
from lfm4ads_tf.errors import UserError


class Join:
    """Representations that stand for stored ones."""

    def __init__(self, factor: float) -> None:
        self.recipe = {"factor": factor}

    def __call__(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"UR": np.outer(rows, [self.recipe["factor"], 1.0]).astype(np.float32)}


def open_join(recipe: Any, cache: Any) -> Join:
    """The join of a recipe."""
    return Join(recipe["factor"])


def source_of(ads: Any, **over: Any) -> RowSource:
    """A source of all rows."""
    rows = np.arange(ads.cache.rows)
    return RowSource(ads.cache, lambda _: rows, 8, **over)


@pytest.fixture(scope="module")
def ads(make_ads: Any) -> Any:
    """A small log."""
    return make_ads()


@pytest.mark.parametrize(
    "over",
    [{}, {"refresh": "daily"}, {"ahead": True}, {"representations": Join(0.5)}],
    ids=["frozen", "daily", "ahead", "join"],
)
def test_another_process_reads_what_this_one_would(ads: Any, over: dict[str, Any]) -> None:
    source = source_of(ads, **over)
    recipe = RowRecipe.of(source).to_json().encode()
    rows = np.array([3, 50, 7, 7])
    read, expected = RowLoader(open_join)(recipe, rows), source.load(rows)
    assert len(read) == len(expected) > 5
    for one, other in zip(read, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_recipes_are_read_back(ads: Any) -> None:
    recipe = RowRecipe.of(source_of(ads, refresh="daily", representations=Join(2.0)))
    assert RowRecipe.from_json(recipe.to_json()) == recipe
    assert Path(recipe.cache).is_absolute()


def test_four_sources_stay_open(ads: Any) -> None:
    loader = RowLoader(open_join)
    recipes = [
        RowRecipe.of(source_of(ads, representations=Join(float(k)))).to_json().encode()
        for k in range(5)
    ]
    for recipe in (*recipes, recipes[1], recipes[0]):
        loader(recipe, np.array([1]))
    assert [*loader._sources] == [recipes[k] for k in (3, 4, 1, 0)]


@pytest.mark.slow
def test_another_chief_has_everything_opened_anew(ads: Any) -> None:
    opened = []

    def counted(recipe: Any, cache: Any) -> Join:
        opened.append(recipe)
        return open_join(recipe, cache)

    loader = RowLoader(counted)
    recipe = RowRecipe.of(source_of(ads, representations=Join(1.0)))
    for each in (recipe, recipe, replace(recipe, asking="the next chief")):
        loader(each.to_json().encode(), np.array([1]))
    assert len(opened) == 2
    code = "from lfm4ads_tf.data import row_recipe; print(row_recipe._ASKING)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert recipe.asking not in other.stdout


def test_other_data_at_the_same_place_are_refused(ads: Any) -> None:
    recipe = replace(RowRecipe.of(source_of(ads)), fingerprint="other")
    with pytest.raises(UserError, match="others here"):
        RowLoader(open_join)(recipe.to_json().encode(), np.array([1]))


def test_data_that_are_not_there_are_named(ads: Any, tmp_path: Path) -> None:
    recipe = replace(RowRecipe.of(source_of(ads)), cache=str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"gone[\s\S]*all processes of the cluster see"):
        RowLoader(open_join)(recipe.to_json().encode(), np.array([1]))


def test_representations_of_memory_alone_do_not_travel(ads: Any) -> None:
    source = source_of(ads, representations=lambda rows: {})
    with pytest.raises(ValueError, match="stored representations alone"):
        RowRecipe.of(source)
