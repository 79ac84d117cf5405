from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.cluster import host_functions
from lfm4ads_tf.cluster.host_functions import call, register, user_error_in
from lfm4ads_tf.errors import UserError


def test_a_graph_calls_a_function_by_its_name() -> None:
    register("test/twice", lambda x: [2 * x, np.array(len(x), np.int64)])

    @tf.function
    def graph(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        twice, length = call("test/twice", [x], [tf.int64, tf.int64])
        return twice, length

    twice, length = graph(tf.constant([3, 4], tf.int64))
    assert twice.numpy().tolist() == [6, 8] and int(length) == 2


def test_a_function_can_be_replaced() -> None:
    for factor in (2, 3):
        register("test/times", lambda x, f=factor: f * x)
        assert int(call("test/times", [tf.constant(5)], [tf.int32])[0]) == 5 * factor


def test_it_runs_inside_a_data_set() -> None:
    register("test/next", lambda x: x + 1)
    data = tf.data.Dataset.range(3).map(lambda x: call("test/next", [x], [tf.int64])[0])
    assert [int(x) for x in data] == [1, 2, 3]


@pytest.mark.parametrize("text", ["It is gone.", "Ein 'Ä' \"and\" </b> {x}\nsecond line"])
def test_a_users_error_comes_back_as_it_was(text: str) -> None:
    def fails(x: np.ndarray) -> np.ndarray:
        raise UserError(text, received="x", fix="mend it")

    register("test/fails", fails)
    with pytest.raises(tf.errors.OpError) as caught:
        call("test/fails", [tf.constant(1)], [tf.int32])
    told = user_error_in(caught.value)
    assert str(told) == str(UserError(text, received="x", fix="mend it"))


def test_another_error_is_none_of_the_users() -> None:
    def breaks(x: np.ndarray) -> np.ndarray:
        raise ValueError("a defect")

    register("test/breaks", breaks)
    with pytest.raises(tf.errors.OpError) as caught:
        call("test/breaks", [tf.constant(1)], [tf.int32])
    assert user_error_in(caught.value) is None


def test_a_tensorflow_without_the_registry_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_functions.script_ops, "_py_funcs", object())
    with pytest.raises(UserError, match="could not read their rows"):
        register("test/none", lambda x: x)
