from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.cluster.task import JOBS, Task
from lfm4ads_tf.errors import UserError


@given(st.sampled_from(JOBS), st.integers(0, 999_999))
def test_its_text_is_read_back(job: str, index: int) -> None:
    task = Task(job, index)
    assert str(task) == f"{job}:{index}"
    assert Task.parse(str(task)) == Task.parse(f" {task} ") == task


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("worker", "Fix: write worker:0"),
        ("", "needs the form job:index"),
        ("worker:", "needs the form job:index"),
        ("worker:-1", "needs the form job:index"),
        ("worker:1.0", "needs the form job:index"),
        ("worker:0:1", "needs the form job:index"),
        ("worker:\u0662", "needs the form job:index"),
        ("wroker:0", "no job 'wroker' in a cluster. Did you mean 'worker'?"),
        ("evaluator:0", "use one of chief, worker, ps"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        Task.parse(text)
    assert message in str(refused.value)
