"""Rules by name, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.optim.rules.adagrad import Adagrad
from lfm4ads_tf.optim.rules.adam import LazyAdam
from lfm4ads_tf.optim.rules.ftrl import Ftrl
from lfm4ads_tf.optim.rules.row_rule import row_rule
from lfm4ads_tf.optim.rules.rule import RowRule
from lfm4ads_tf.optim.rules.sgd import Sgd


@pytest.mark.parametrize(
    "name, options, expected",
    [
        ("adagrad", {}, Adagrad(0.1, 1e-7, False)),
        ("adagrad", {"initial": 0.0, "row_wise": True}, Adagrad(0.0, 1e-7, True)),
        ("rowwise_adagrad", {"epsilon": 0.1}, Adagrad(0.1, 0.1, True)),
        ("adam", {}, LazyAdam(0.9, 0.999, 1e-7, 0.0)),
        ("adam", {"beta_1": 0}, LazyAdam(0.0)),
        ("adamw", {}, LazyAdam(weight_decay=0.01)),
        ("adamw", {"weight_decay": 0.2, "beta_2": 0.9}, LazyAdam(0.9, 0.9, 1e-7, 0.2)),
        ("ftrl", {"l1": np.float32(0.5), "beta": 1.0}, Ftrl(0.1, 0.5, 0.0, -0.5, 1.0)),
        ("sgd", {}, Sgd(0.0, False)),
        ("sgd", {"momentum": 0.9, "nesterov": True}, Sgd(0.9, True)),
    ],
)
def test_names_and_options(name: str, options: dict[str, Any], expected: RowRule) -> None:
    assert row_rule(name, **options) == expected


@pytest.mark.parametrize(
    "rule, slots",
    [
        (Adagrad(0.3), [("accumulator", True, 0.3)]),
        (Adagrad(0.3, row_wise=True), [("accumulator", False, 0.3)]),
        (
            LazyAdam(),
            [("first_moment", True, 0.0), ("second_moment", True, 0.0), ("step", False, 0.0)],
        ),
        (Ftrl(0.2), [("accumulator", True, 0.2), ("linear", True, 0.0)]),
        (Sgd(), []),
        (Sgd(0.5), [("momentum", True, 0.0)]),
    ],
)
def test_slots(rule: RowRule, slots: list[tuple[str, bool, float]]) -> None:
    assert [(slot.name, slot.per_element, slot.initial) for slot in rule.slots] == slots


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("adagard", {}, "'adagard' is unknown. Did you mean 'adagrad'"),
        ("zzz", {}, "use one of adagrad, rowwise_adagrad, adam, adamw, ftrl, sgd"),
        (None, {}, "'None' is unknown"),
        ("sgd", {"momentom": 0.1}, "'sgd' has no option 'momentom'. Did you mean 'momentum'"),
        ("adagrad", {"zzz": 1}, "Its options are initial, epsilon, row_wise"),
        ("rowwise_adagrad", {"row_wise": False}, "Its options are initial, epsilon"),
        ("adagrad", {"initial": -0.1}, "'initial' .* at least 0"),
        ("adagrad", {"epsilon": 0.0}, "'epsilon' .* above 0"),
        ("adagrad", {"epsilon": 1e-40}, "'epsilon' .* above 0"),  # 0 for TensorFlow's kernels
        ("adagrad", {"epsilon": "1e-7"}, "'epsilon'.*\nReceived: '1e-7'"),  # what YAML makes of it
        ("adagrad", {"initial": float("nan")}, "'initial'"),
        ("adagrad", {"initial": 1e39}, "'initial'"),  # infinite as float32
        ("adagrad", {"initial": True}, "'initial'"),
        ("adagrad", {"initial": None}, "'initial'"),
        ("adagrad", {"row_wise": "false"}, "'row_wise' .* true or false"),
        ("adam", {"beta_1": 1.0}, "'beta_1' .* at least 0 and below 1"),
        ("adam", {"beta_2": 1.0 - 1e-9}, "'beta_2'"),  # 1 as float32
        ("adam", {"beta_2": -0.1}, "'beta_2'"),
        ("adam", {"epsilon": -1.0}, "'epsilon'"),
        ("adamw", {"weight_decay": -0.1}, "'weight_decay' .* at least 0"),
        ("ftrl", {"initial": -1.0}, "'initial'"),
        ("ftrl", {"l1": -1.0}, "'l1'"),
        ("ftrl", {"l2": float("inf")}, "'l2'"),
        ("ftrl", {"beta": -1.0}, "'beta'"),
        ("ftrl", {"learning_rate_power": 0.5}, "'learning_rate_power' .* at most 0"),
        ("ftrl", {"initial": 0.0}, "divides 0 by 0"),
        ("ftrl", {"initial": 1e-46}, "divides 0 by 0"),
        ("sgd", {"momentum": 1.0}, "'momentum' .* below 1"),
        ("sgd", {"momentum": 0.9, "nesterov": 1}, "'nesterov' .* true or false"),
        ("sgd", {"nesterov": True}, "nesterov needs momentum"),
    ],
)
def test_misuse_is_refused(name: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        row_rule(name, **options)
