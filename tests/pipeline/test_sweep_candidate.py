"""The grid of a sweep, written out by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.pipeline.sweep_candidate import sweep_candidates
from lfm4ads_tf.pipeline.sweep_options import SweepOptions
from lfm4ads_tf.strict import parse

BLOCK = {"layers": [{"type": "cross", "depth": 1}, {"type": "dnn", "units": [4]}]}


def run_of(upstream: dict[str, Any] | None = None, **more: Any) -> Any:
    raw = {"upstream": {"network": {"block": BLOCK}, **(upstream or {})}, **more}
    config = parse(RunConfig, raw, source="run")
    return SimpleNamespace(
        config=config, spec=SimpleNamespace(features={}, task_names=["click", "like"])
    )


def names(run: Any, options: SweepOptions, others: tuple[str, ...] = ()) -> list[str]:
    return [c.method.name for c in sweep_candidates(run, options, others)]


BASELINES = ["none", "feature/linear/UR", "module/isomorphic"]


def test_the_whole_grid_in_order() -> None:
    found = sweep_candidates(run_of(), SweepOptions(adapters="gate,mlp"))
    assert [c.method.name for c in found] == [
        *BASELINES,
        "feature/gate/CR_user@towers",
        "feature/gate/CR_user@cross_1",
        "feature/gate/CR_user@dnn_1",
        "feature/mlp/CR_user@towers",
        "feature/mlp/CR_user@cross_1",
        "feature/mlp/CR_user@dnn_1",
        "module/warm_start/embeddings",
        "module/warm_start/towers",
        "module/warm_start/cross_1",
        "module/warm_start/dnn_1",
        "module/warm_start/output",
    ]
    kinds = {c.method.name: (c.level, c.adapter, c.side, c.layer) for c in found}
    assert kinds["none"] == ("none", None, None, None)
    assert kinds["feature/linear/UR"] == ("feature", "linear", None, None)
    assert kinds["feature/mlp/CR_user@cross_1"] == ("feature", "mlp", "user", "cross_1")
    assert kinds["module/warm_start/output"] == ("module", None, None, "output")


def test_axes_select() -> None:
    both = SweepOptions(levels="feature", layers="dnn_1", adapters="gate", sides="item, both")
    assert names(run_of(), both) == [
        *BASELINES[:2],
        "feature/gate/CR_item@dnn_1",
        "feature/gate/CR_user@dnn_1+CR_item@dnn_1",
    ]
    module = SweepOptions(levels="module", layers="output,towers")
    starts = ["module/warm_start/towers", "module/warm_start/output"]
    assert names(run_of(), module) == [*BASELINES, *starts]


def test_further_methods_come_last_and_once() -> None:
    combined = "module/isomorphic & feature/gate/CR_user@cross_1"
    options = SweepOptions(levels="feature", layers="dnn_1", adapters="gate")
    others = ("none", combined, "feature/mlp/UR+IR", "upstream", combined)
    found = sweep_candidates(run_of(), options, others)
    assert [(c.method.name, c.level, c.adapter) for c in found[3:]] == [
        (combined, "combination", None),
        ("feature/mlp/UR+IR", "feature", "mlp"),
    ]


def test_only_stored_layers_have_adapters() -> None:
    run = run_of(representations={"layers": ["cross_1"]})
    found = sweep_candidates(run, SweepOptions(adapters="gate"))
    assert [c.layer for c in found if c.adapter == "gate"] == ["cross_1"]
    starts = ["embeddings", "towers", "cross_1", "dnn_1", "output"]
    assert [c.layer for c in found if c.level == "module" and c.layer] == starts


def test_other_upstreams() -> None:
    mmoe = names(run_of({"model": "mmoe"}), SweepOptions(levels="module"))
    expected = ["module/warm_start/embeddings", "module/warm_start/towers"]
    assert mmoe == [*BASELINES[:2], *expected]
    branches = sweep_candidates(run_of({"branches": True}), SweepOptions(adapters="gate"))
    # The ads' branch is what a warm start copies, so it stands in the row of that branch.
    assert [(c.layer, c.method.name) for c in branches if c.level == "module"][1:] == [
        ("embeddings", "module/warm_start/embeddings"),
        ("towers", "module/warm_start/towers"),
        ("ad.cross_1", "module/warm_start/cross_1"),
        ("ad.dnn_1", "module/warm_start/dnn_1"),
        ("output", "module/warm_start/output"),
    ]
    layers = ["towers", "content.cross_1", "content.dnn_1", "ad.cross_1", "ad.dnn_1"]
    assert [c.layer for c in branches if c.adapter == "gate"] == layers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": "features"}, "granularity 'features'. Did you mean 'feature'?"),
        ({"layers": "cros_1"}, "--layers names the unknown layer 'cros_1'. Did you mean 'cross_1'"),
        ({"layers": "output", "levels": "feature"}, "--layers names the unknown layer 'output'"),
        ({"adapters": "gate,liner"}, "adapter 'liner'. Did you mean 'linear'?"),
        ({"sides": "users"}, "side 'users'. Did you mean 'user'?"),
        ({"task": "clicks"}, "--task names the unknown task 'clicks'. Did you mean 'click'?"),
        ({"adapters": " ,"}, "--adapters names no adapter"),
    ],
)
def test_unknown_names_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as error:
        sweep_candidates(run_of(), SweepOptions(**options))
    assert message in str(error.value)
