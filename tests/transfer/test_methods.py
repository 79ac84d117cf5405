from __future__ import annotations

import pytest
import tensorflow as tf

from lfm4ads_tf.config import DownstreamConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.strict import parse
from lfm4ads_tf.transfer.adapters.gate import GateAdapter
from lfm4ads_tf.transfer.adapters.linear import LinearAdapter
from lfm4ads_tf.transfer.adapters.mlp import MlpAdapter
from lfm4ads_tf.transfer.methods import Isomorphic, WarmStart, parse_method

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


def test_module_level_and_combinations() -> None:
    name = "module/warm_start/cross_1+frozen & feature/token/CR_user@dnn_1 & module/isomorphic"
    method = parse_method(name, LAYERS)
    assert method.warm_start == WarmStart("cross_1", frozen=True)
    assert method.isomorphic == Isomorphic()
    assert method.sources == ["CR_user@dnn_1", "UR", "IR"]
    assert method.copies
    fresh = parse_method("module/isomorphic+fresh", LAYERS)
    assert fresh.isomorphic == Isomorphic(fresh=True) and not fresh.copies
    assert parse_method("module/isomorphic+frozen", LAYERS).isomorphic == Isomorphic(frozen=True)


def test_full_is_the_combination_it_stands_for() -> None:
    combination = "module/warm_start/output & feature/gate/UR"
    method = parse_method("full", LAYERS, full=combination)
    plain = parse_method(combination, LAYERS)
    assert (method.name, method.resolved) == ("full", combination)
    assert plain.resolved == plain.name == combination
    assert (method.parts, method.warm_start) == (plain.parts, plain.warm_start)
    with pytest.raises(UserError, match="unknown"):
        parse_method("full", LAYERS, full="feature/gat/UR")


def test_levels_are_those_of_the_upstream() -> None:
    layers = ["towers", "content.cross_1", "content.mix_click", "ad.cross_1", "ad.mix_click"]
    block = {"structure": "gated", "layers": [{"type": "cross", "depth": 1}]}
    raw = {"branches": True, "network": {"block": block}}
    config = parse(UpstreamConfig, raw, source="upstream")
    assert config.layer_names(["click"]) == layers
    levels = config.warm_start_levels(["click"])
    # of the ads' branch, without mixtures
    assert list(levels) == ["embeddings", "towers", "cross_1", "output"]
    assert levels["cross_1"] == "ad.cross_1"
    name = "module/warm_start/cross_1 & feature/gate/CR_user@ad.cross_1"
    method = parse_method(name, layers, levels=list(levels))
    assert method.warm_start == WarmStart("cross_1")


def test_known_representations_decide() -> None:
    known = ["UR", "CR_user@towers~mean-raw"]
    name = "feature/gate/CR_user@towers~mean-raw"
    assert parse_method(name, LAYERS, representations=known).sources == known[1:]
    with pytest.raises(UserError, match="'IR' is unknown"):
        parse_method("feature/gate/IR", LAYERS, representations=known)


def test_adapters_beside_a_warm_start_do_not_start_at_zero() -> None:
    config = DownstreamConfig(adapter_zero_init=True)
    starts = {}
    for name in ("feature/mlp/UR", "feature/mlp/UR & module/warm_start/output"):
        adapter = parse_method(name, LAYERS).adapters(config, 0)[0]
        starts[name] = adapter({"UR": tf.ones([2, 4])}, width=3).extra[0].numpy()
    values = list(starts.values())
    assert not values[0].any() and values[1].any()


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
        ("full", "The method 'full' stands for no combination"),
        ("module/warm_start", "The method 'module/warm_start' is unknown"),
        ("module/warm_start/cros_1", "Did you mean 'cross_1'?"),
        ("module/warm_start/output+fresh", "The option '+fresh' of a warm start is unknown"),
        ("module/warm_start/towers & module/warm_start/output", "can have one warm start"),
        ("module/isomorphic+fresh+frozen", "options of the isomorphic module cannot be read"),
        ("module/isomorphic & module/isomorphic+fresh", "can have one isomorphic module"),
        ("module/isomorphic/UR", "The method 'module/isomorphic/UR' is unknown"),
    ],
)
def test_what_cannot_be_read_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_method(name, LAYERS)
    assert message in str(error.value)
