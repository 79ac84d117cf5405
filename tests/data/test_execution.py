from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.data.execution import Execution, current, executing
from lfm4ads_tf.data.input import apply, batches


class Elsewhere(Execution):
    """Says where it was asked."""

    def map(self, function: Any, data: Any, model: Any = None) -> Any:
        yield "elsewhere"


def test_an_execution_is_in_force_in_its_block_and_in_all_threads() -> None:
    plain, elsewhere, seen = current(), Elsewhere(), []
    with executing(elsewhere):
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join()
        assert current() is elsewhere and seen == [elsewhere]
        with executing(plain):
            assert current() is plain
        assert current() is elsewhere
    with pytest.raises(RuntimeError), executing(elsewhere):
        raise RuntimeError
    assert current() is plain


def test_functions_are_applied_where_the_execution_says(make_ads: Any) -> None:
    data = batches(make_ads().cache, np.arange(10), 4)
    assert [int(v) for v in apply(lambda batch: tf.shape(batch["labels"])[0], data)] == [4, 4, 2]
    with executing(Elsewhere()):
        assert [*apply(lambda batch: batch["labels"], data)] == ["elsewhere"]


def test_steps_are_taken_from_one_pass(make_ads: Any) -> None:
    execution = Execution()
    data = batches(make_ads().cache, np.arange(10), 4)
    step = execution.compiled(lambda batch: tf.shape(batch["labels"])[0], data)
    steps = execution.steps(step, data)
    assert [(f.steps, int(f.losses)) for f in steps.take(2)] == [(1, 4), (1, 4)]
    assert [(f.steps, int(f.losses)) for f in steps.take(5)] == [(1, 2)]
    assert execution.agreed(lambda: {"a": 1}) == {"a": 1}
