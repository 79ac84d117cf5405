"""The study against a made-up response surface."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.tuning.search import Log
from lfm4ads_tf.tuning.settings import Settings
from lfm4ads_tf.tuning.study import Study, load_optuna

START = Settings(256, 0.1, 1e-3)
LOG = Log(rows=1000, held=100, auxiliary=0, periods=(250,) * 4, noise=1e-3)


class Killed(Exception):
    """Stands for a kill."""


def surface(settings: Settings, kind: str, fraction: float) -> Iterator[float]:
    """Best at a table rate of 0.02, after three points."""
    assert fraction == 1.0
    off = abs(np.log10(settings.table_learning_rate / 0.02)) + settings.dropout
    for k in count():
        yield 0.8 - 0.05 * off - 0.1 * abs(min(k, 3) - 2.99) / 3


def study(path: Path, run_trial: Any = surface, **over: Any) -> Study:
    given: dict[str, Any] = {"fixed": ("weight_decay",), "chain": True, "start": START, **over}
    return Study(path / "s.db", "seed 0", 0, log=LOG, run_trial=run_trial, **given)


def test_it_finds_more_and_a_killed_study_ends_as_another(tmp_path: Path) -> None:
    (tmp_path / "killed").mkdir()
    whole = study(tmp_path)
    whole.run(10)
    assert len(whole.trials) == 10
    first = next(t for t in whole.trials if t.number == 1)
    assert first.settings.table_learning_rate == START.table_learning_rate
    assert first.settings.batch_size == START.batch_size and first.settings.replay == START.replay
    assert whole.trials[0].value > first.value
    assert {t.settings.weight_decay for t in whole.trials} == {0.0}
    assert any(t.pruned for t in whole.trials)
    complete = [t for t in whole.trials if not t.pruned]
    assert {t.settings.final_passes for t in complete} == {3}

    calls = 0

    def dying(settings: Settings, kind: str, fraction: float) -> Iterator[float]:
        nonlocal calls
        calls += 1
        values = surface(settings, kind, fraction)
        yield next(values)
        if calls in (1, 9):
            raise Killed
        yield from values

    for _ in range(2):
        with pytest.raises(Killed):
            study(tmp_path / "killed", dying).run(10)
    resumed = study(tmp_path / "killed", dying)
    resumed.run(10)
    assert resumed.trials == whole.trials
    resumed.run(10)  # nothing is left to do
    assert calls == 10 + 2


def test_given_final_passes_are_made_and_count(tmp_path: Path) -> None:
    start = Settings(256, 0.1, 1e-3, final_passes=1)
    made = study(tmp_path, start=start, fixed=("final_passes",))
    made.run(1)
    values = surface(made.trials[0].settings, "chain", 1.0)
    assert made.trials[0].value == [next(values), next(values)][1]
    assert made.trials[0].settings == start


def test_epochs_move_no_setting_of_the_chain(tmp_path: Path) -> None:
    made = study(tmp_path, chain=False)
    made.run(6)
    for trial in made.trials:
        assert (trial.settings.passes, trial.settings.replay) == (1, 0)
        assert (trial.settings.final_passes, trial.settings.final_decay) == (0, 1.0)


def test_time_that_is_over_begins_no_further_trial(tmp_path: Path) -> None:
    made = study(tmp_path)
    made.run(30, timeout=0.0)
    assert len(made.trials) == 1


def test_without_the_library_one_message_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "optuna":
            raise ImportError("No module named 'optuna'")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError) as error:
        load_optuna()
    assert "[tune]" in str(error.value) and "pip install" in str(error.value)
