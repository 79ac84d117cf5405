from __future__ import annotations

import pytest

from lfm4ads_tf.config import DownstreamConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.transfer.gate import GateAdapter
from lfm4ads_tf.transfer.linear import LinearAdapter
from lfm4ads_tf.transfer.methods import parse_method
from lfm4ads_tf.transfer.mlp import MlpAdapter

LAYERS = ["towers", "cross_1", "dnn_1"]


def test_none_reads_nothing() -> None:
    method = parse_method("none", LAYERS)
    assert (method.name, method.parts, method.sources) == ("none", (), [])
    assert method.adapters(DownstreamConfig(), 0) == []


def test_parts_and_sources() -> None:
    name = "feature/mlp/UR+CR_user@cross_1 & feature/gate/CR_item@dnn_1+UR & feature/linear/IR"
    method = parse_method(name, LAYERS)
    assert method.name == name
    assert method.parts == (
        ("mlp", ("UR", "CR_user@cross_1")),
        ("gate", ("CR_item@dnn_1", "UR")),
        ("linear", ("IR",)),
    )
    assert method.sources == ["UR", "CR_user@cross_1", "CR_item@dnn_1", "IR"]
    adapters = method.adapters(DownstreamConfig(), 0)
    assert [type(a) for a in adapters] == [MlpAdapter, GateAdapter, LinearAdapter]
    assert [a.sources for a in adapters] == [list(s) for _, s in method.parts]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("feature/liner/UR", "The adapter 'liner' is unknown. Did you mean 'linear'?"),
        ("feature/gate/CR_user@cross_2", "Did you mean 'CR_user@cross_1'?"),
        ("feature/gate/CR_usr@dnn_1", "Did you mean 'CR_user@dnn_1'?"),
        ("feature/gate/", "The method 'feature/gate/' is unknown"),
        ("feature/gate", "The method 'feature/gate' is unknown"),
        ("modul/warm_start/output", "The method 'modul/warm_start/output' is unknown"),
        ("none & feature/linear/UR", "The method 'none' is unknown"),
        ("feature/linear/UR+", "The representation '' is unknown"),
        ("feature/linear/UR & feature/linear/UR", "names 'feature/linear/UR' twice"),
        ("", "The method '' is unknown"),
    ],
)
def test_what_cannot_be_read_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_method(name, LAYERS)
    assert message in str(error.value)
