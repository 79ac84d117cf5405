from __future__ import annotations

import pytest

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.transfer.retrieval.method import parse_retrieval_method

STORED = ["UR", "IR", "CR_user@cross_1", "CR_user@dnn_2", "CR_user@dnn_2~mean", "CR_item@dnn_2"]


@pytest.mark.parametrize(
    ("name", "full", "sources"),
    [
        ("model/own", "model/own", []),
        ("model/IR*UR", "model/IR*UR", ["UR", "IR"]),
        ("model/IR*CR_user@cross_1", "model/IR*CR_user@cross_1", ["CR_user@cross_1", "IR"]),
        ("model/IR*CR_user", "model/IR*CR_user@dnn_2", ["CR_user@dnn_2", "IR"]),
        ("model/IR*CR_user@dnn_2~mean", None, ["CR_user@dnn_2~mean", "IR"]),
    ],
)
def test_names(name: str, full: str | None, sources: list[str]) -> None:
    method = parse_retrieval_method(name, STORED)
    assert (method.name, method.sources) == (full or name, sources)


@pytest.mark.parametrize(
    "name", ["model/IR", "model/IR*IR", "model/IR*CR_item@dnn_2", "model/IR*CR_user@x", "UR", ""]
)
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="unknown"):
        parse_retrieval_method(name, STORED)


def test_a_layer_is_needed_for_the_default() -> None:
    with pytest.raises(UserError, match="model/IR.UR"):
        parse_retrieval_method("model/IR*CR_user", ["UR", "IR"])
