from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.cluster.threads import inter_op_threads, shared_threads


@given(st.integers(1, 64))
def test_each_process_has_its_part_of_the_cores(processes: int) -> None:
    found = {name: int(value) for name, value in shared_threads(processes, {}).items()}
    whole = int(shared_threads(1, {})["OMP_NUM_THREADS"])
    assert found["OMP_NUM_THREADS"] == found["TF_NUM_INTRAOP_THREADS"]
    assert found["OMP_NUM_THREADS"] == max(1, whole // processes)
    assert found["TF_NUM_INTEROP_THREADS"] == max(4, whole // processes)


def test_what_is_set_goes_on_and_is_enough() -> None:
    given = {"OMP_NUM_THREADS": "7", "TF_NUM_INTEROP_THREADS": "2", "PATH": "x"}
    found = shared_threads(100, given)
    assert (found["OMP_NUM_THREADS"], found["TF_NUM_INTRAOP_THREADS"]) == ("7", "1")
    assert found["TF_NUM_INTEROP_THREADS"] == "4" and "PATH" not in found
    assert inter_op_threads({"TF_NUM_INTEROP_THREADS": "9"}) == 9
    assert inter_op_threads({"TF_NUM_INTEROP_THREADS": "x"}) >= 4
