"""Names of a configuration against the paths of variables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.optim.variable_paths import holds, is_kind, segments, unmatched, within

NAMES = st.lists(st.sampled_from(["dnn_1", "dnn_10", "dnn", "kernel", "bias", "a"]), min_size=1)


@given(NAMES, NAMES)
def test_a_key_is_a_run_of_whole_segments(path: list[str], key: list[str]) -> None:
    runs = [path[k : k + len(key)] for k in range(len(path))]
    assert holds("/".join(path), "/".join(key)) == (key in runs)


@given(NAMES)
def test_a_whole_path_holds_itself(path: list[str]) -> None:
    assert holds("/".join(path), "/".join(path))


def test_a_longer_number_is_another_layer() -> None:
    assert holds("model/block/dnn_1/kernel", "dnn_1")
    assert not holds("model/block/dnn_10/kernel", "dnn_1")
    assert within("heads", "dnn_1/bias")("model/dnn_1/bias")
    assert not within("heads", "dnn_1/bias")("model/dnn_1/kernel")


@pytest.mark.parametrize("name", ["bias", "bias_2", "logit_bias"])
def test_every_kind_of_bias_is_a_bias(name: str) -> None:
    assert is_kind(f"mmoe/experts/{name}", "bias")


@pytest.mark.parametrize("name", ["kernel", "biased", "debias", "unbiased_kernel"])
def test_other_names_are_none(name: str) -> None:
    assert not is_kind(f"mmoe/experts/{name}", "bias")


def test_what_matches_nothing() -> None:
    paths = ["m/block/dnn_1/kernel", "m/block/dnn_1/bias"]
    assert unmatched(["dnn", "slow", "dnn_1", "block/dnn_1", "m"], paths, ["slow"]) == ["dnn"]
    assert segments(paths) == ["m", "block", "dnn_1", "kernel", "bias"]
