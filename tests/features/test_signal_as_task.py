"""A task that is added over a spec takes the place of the signal of its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lfm4ads_tf.config import resolve
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.spec_file import load_spec, override

LOVE = {"label": "stars", "positive_at_least": 4}


@pytest.fixture(scope="module")
def as_signal(make_ads: Callable[..., Any]) -> Any:
    return make_ads(tasks={"click": "click"}, signals={"love": LOVE, "again": "click"})


def test_what_counts_the_signal_counts_the_task(
    as_signal: Any, make_ads: Callable[..., Any]
) -> None:
    written = as_signal.spec.model_dump(mode="json", exclude_unset=True)
    raw = override(written, {"tasks": {"love": LOVE}})
    assert list(raw["signals"]) == ["again"] and list(written["signals"]) == ["love", "again"]
    as_task = make_ads(tasks=raw["tasks"], signals=raw["signals"])
    assert as_task.spec.task_names == ["click", "love"]
    rows = np.arange(as_task.raw.rows)
    assert "item_love" in as_task.spec.features  # a statistic of it
    for refresh in ("frozen", "daily"):
        old, new = (world.cache.take(rows, refresh) for world in (as_signal, as_task))
        for key in ("ids", "dense", "scenario", "item"):
            np.testing.assert_array_equal(old[key], new[key])
        np.testing.assert_array_equal(new["labels"][:, 0], old["labels"][:, 0])
        np.testing.assert_array_equal(new["labels"][:, 1], as_signal.raw.signals[:, 0])


def test_one_assignment_makes_kuairands_like_a_task(tmp_path: Path) -> None:
    plain = resolve(Path("kuairand"))
    found = resolve(Path("kuairand"), ["tasks.like=is_like"])
    assert (plain.spec.task_names, list(plain.spec.signals)) == (["click", "long_view"], ["like"])
    assert (found.spec.task_names, found.spec.signals) == (["click", "long_view", "like"], {})
    assert found.spec.tasks["like"] == plain.spec.signals["like"]
    kept = {"tasks", "signals"}
    assert found.spec.model_dump(exclude=kept) == plain.spec.model_dump(exclude=kept)
    assert load_spec("kuairand", {"tasks": {"like": "is_like"}}) == found.spec
    # The run folder's own document reads back to the same spec.
    document = tmp_path / "again.yaml"
    document.write_text(yaml.safe_dump(found.spec.model_dump(mode="json", exclude_none=True)))
    assert load_spec(document) == found.spec


@pytest.mark.parametrize(
    "over",
    [
        {"tasks": {"like": "is_like"}, "signals": {"like": "is_like"}},
        {"signals": {"click": "is_click"}},
    ],
)
def test_both_at_once_are_refused(over: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="is declared as a task and as a signal"):
        load_spec("kuairand", over)
