"""Names of a configuration against the paths of variables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.optim.variable_paths import holds, is_kind, path_of, segments, unmatched, within
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.strict import parse
from tests.rounding import EPSILON

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


def _small(make_ads: Any, ads_features: Any, model: str, structure: str) -> Any:
    layers = [{"type": "cross", "depth": 1}, {"type": "dnn", "units": [6, 4]}]
    network = {
        "user_tower": [4],
        "item_tower": [4],
        "block": {"layers": layers, "structure": structure},
    }
    config = parse(RunConfig, {"upstream": {"model": model, "network": network}}, source="r")
    cache = make_ads(features=ads_features("user_id", "item_id", "tab")).cache
    return build.upstream(cache.layout, config, 0)


@pytest.mark.parametrize(
    ("model", "structure"),
    [("foundation", "stacked"), ("foundation", "gated"), ("mmoe", "stacked")],
)
def test_what_was_never_decayed_is_not_decayed(
    model: str, structure: str, make_ads: Any, ads_features: Any
) -> None:
    """The rule before was any path with the letters `bias` in it."""
    made = _small(make_ads, ads_features, model, structure)
    paths = [path_of(variable) for variable in made.trainable_variables]
    biases = [path for path in paths if is_kind(path, "bias")]
    assert biases == [path for path in paths if "bias" in path] and biases
    assert {path.rpartition("/")[2] for path in biases} >= (
        {"bias", "logit_bias"} if model == "mmoe" else {"bias"}
    )


def test_a_step_is_scaled_and_decayed_by_whole_segments() -> None:
    """Adam's first step of a gradient of 1 is the rate; a decay takes rate * decay * w before."""
    names = ["block/dnn_1/kernel", "block/dnn_10/kernel", "block/dnn_1/logit_bias"]
    variables = [tf.Variable([1.0], name=name) for name in names]
    optimizer = HybridOptimizer(
        0.1, 0.01, weight_decay=0.5, group_rates={"dnn_1": 10.0, names[1]: 3.0}
    )
    optimizer.build([], variables)
    optimizer.apply_gradients([(tf.constant([1.0]), variable) for variable in variables])
    expected = [1.0 - 0.1 * 0.5 - 0.1, 1.0 - 0.03 * 0.5 - 0.03, 1.0 - 0.1]
    found = [float(variable[0]) for variable in variables]
    # epsilon, 1e-7 beside a root of sqrt(0.001), and some roundings of numbers up to 1
    np.testing.assert_allclose(found, expected, atol=0.1 * 1e-7 / np.sqrt(0.001) + 8 * EPSILON)
