from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.pipeline.named_method import read_method
from lfm4ads_tf.strict import parse
from lfm4ads_tf.transfer.methods import WarmStart

BLOCK = {"layers": [{"type": "cross", "depth": 2}, {"type": "dnn", "units": [4]}]}


def run_of(upstream: dict[str, Any] | None = None, **downstream: Any) -> Any:
    raw = {"upstream": {"network": {"block": BLOCK}, **(upstream or {})}, "downstream": downstream}
    config = parse(RunConfig, raw, source="run")
    return SimpleNamespace(config=config, spec=SimpleNamespace(features={}, task_names=["click"]))


def test_methods_are_read_as_the_configuration_says() -> None:
    run = run_of(full="module/warm_start/dnn_1 & feature/gate/CR_item@cross_2")
    method = read_method(run, "full")
    assert method.warm_start == WarmStart("dnn_1") and method.sources == ["CR_item@cross_2"]
    mmoe = run_of({"model": "mmoe"})
    assert read_method(mmoe, "module/warm_start/towers").warm_start == WarmStart("towers")
    frozen = "module/warm_start/towers+frozen & feature/mlp/UR"
    assert read_method(run, frozen).warm_start == WarmStart("towers", frozen=True)


@pytest.mark.parametrize(
    ("name", "run", "message"),
    [
        ("module/warm_start/cross_3", {}, "Did you mean 'cross_1'?|Did you mean 'cross_2'?"),
        ("module/warm_start/output", {"upstream": {"model": "mmoe"}}, "use one of embeddings, tow"),
        ("module/isomorphic", {"upstream": {"model": "mmoe"}}, "'mmoe' has no mix tower"),
        ("module/isomorphic", {"isomorphic_layer": "cros_2"}, "Did you mean 'cross_2'?"),
        ("module/isomorphic", {"warm_start_rates": {"dn_1": 0.1}}, "Did you mean 'dnn_1'?"),
        ("module/warm_start/cross_1+frozen & feature/mlp/UR", {}, "Frozen layers cannot learn"),
        ("module/warm_start/output+frozen & module/isomorphic", {}, "Frozen layers cannot learn"),
        ("full", {"full": "full"}, "stands for no combination"),
    ],
)
def test_what_cannot_be_done_is_refused(name: str, run: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        read_method(run_of(**run), name)
    assert any(part in str(error.value) for part in message.split("|"))
