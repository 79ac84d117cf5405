"""The table of the 29 methods."""

from __future__ import annotations

from collections import Counter

import pytest

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.experiments.public_method import METHODS, select_methods
from lfm4ads_tf.transfer.methods import parse_method

BLOCK_LAYERS = ["towers", "cross_1", "cross_2", "cross_3", "dnn_1", "dnn_2"]


def test_counts() -> None:
    assert Counter(m.usage for m in METHODS) == {"feature": 13, "module": 8, "model": 8}
    assert len({m.label for m in METHODS}) == len({m.name for m in METHODS}) == 29


def test_names() -> None:
    names = {m.label: m.name for m in METHODS}
    assert names["SUM"] == "feature/linear/UR"
    assert names["concat CR_0"] == "feature/linear/CR_user@towers"
    assert names["gate CR_3"] == "feature/gate/CR_user@cross_3"
    assert names["concat CR_5"] == "feature/linear/CR_user@dnn_2"
    assert names["Vanilla"] == "none"
    assert names["CR'_0"] == "module/warm_start/embeddings"
    assert names["CR'_4"] == "module/warm_start/dnn_1"
    assert names["CR'_6"] == "module/warm_start/output"
    assert names["Retriever"] == "model/own"
    assert names["IR & UR"] == "model/IR*UR"
    assert names["IR & CR_4"] == "model/IR*CR_user@dnn_1"


def test_curves_cover_all_layers() -> None:
    points = Counter((m.usage, m.curve) for m in METHODS if m.curve)
    assert points == {
        ("feature", "concat"): 6,
        ("feature", "gate"): 6,
        ("module", "warm start"): 7,
        ("model", "IR & CR"): 6,
    }
    lines = [m.label for m in METHODS if m.curve is None]
    assert lines == ["SUM", "Vanilla", "Retriever", "IR & UR"]


@pytest.mark.parametrize("name", [m.name for m in METHODS if m.usage != "model"])
def test_the_pipeline_knows_the_name(name: str) -> None:
    assert parse_method(name, BLOCK_LAYERS).name == name


def test_selection_by_either_name() -> None:
    found = select_methods("model/own, gate CR_3 ,SUM")
    assert [m.label for m in found] == ["SUM", "gate CR_3", "Retriever"]
    assert select_methods(None) == list(METHODS)


def test_unknown_method() -> None:
    with pytest.raises(UserError, match="Did you mean 'gate CR_3'"):
        select_methods("gate CR3")
