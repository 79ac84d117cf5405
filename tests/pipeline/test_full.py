"""What `full` stands for by default: it can be built and started whatever the upstream is."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.config import Resolved, RunConfig
from lfm4ads_tf.interactions.block import reads_towers
from lfm4ads_tf.interactions.config import BlockConfig
from lfm4ads_tf.models.example_batch import example_batch
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.models.registry import UPSTREAMS
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.full import full_combination, with_full
from lfm4ads_tf.pipeline.named_method import read_method
from lfm4ads_tf.representations.names import representation_names
from lfm4ads_tf.strict import parse
from lfm4ads_tf.transfer.warm_start import warm_start

TASKS = ["click", "love"]
OUTPUT = "module/warm_start/output"
FM = {"type": "fm", "dim": 2}
CROSS = {"type": "cross", "depth": 2}
DNN = {"type": "dnn", "units": [3, 2]}


def layer_of(name: str) -> str:
    """The layer that a representation's CR is taken from, empty for UR and IR."""
    return name.partition("@")[2].partition("~")[0]


def config_of(layers: Any = None, structure: str = "stacked", **more: Any) -> RunConfig:
    """Upstream and downstream of one network; `more` are keys of the upstream."""
    block = {"structure": structure, "mix_dim": 3, "layers": layers or [FM, CROSS, DNN]}
    network = {"user_tower": [3], "item_tower": [2], "block": block}
    raw = {
        "embeddings": {"dim": 2},
        "upstream": {"network": network, "embeddings": {"dim": 2}, **more},
        "downstream": {"network": network, "embeddings": {"dim": 2}},
    }
    return parse(RunConfig, raw, source="run")


def changed(config: RunConfig, **downstream: Any) -> RunConfig:
    part = config.downstream.model_copy(update=downstream)
    return config.model_copy(update={"downstream": part})


def gate(*layers: str) -> str:
    crs = [f"CR_{side}@{layer}" for side in ("user", "item") for layer in layers]
    return f"feature/gate/{'+'.join(['UR', 'IR', *crs])}"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (config_of(), f"{gate('cross_2')} & {OUTPUT}"),
        (config_of([DNN, CROSS], "parallel"), f"{gate('cross_2')} & {OUTPUT}"),
        (config_of(branches=True), f"{gate('ad.cross_2')} & {OUTPUT}"),
        (config_of([FM, DNN]), f"{gate('dnn_2')} & {OUTPUT}"),
        (config_of([FM]), f"{gate('fm')} & {OUTPUT}"),
        (config_of([FM, CROSS], "gated"), f"{gate('cross_2')} & {OUTPUT}"),
        (config_of([FM, DNN], "gated"), f"{gate('mix_click', 'mix_love')} & {OUTPUT}"),
        (config_of(model="mmoe"), gate("mix_click", "mix_love")),
        (config_of(model="multi_embedding"), gate("mean")),
    ],
)
def test_the_layer_is_the_last_cross_one_else_the_last(config: RunConfig, expected: str) -> None:
    assert full_combination(config, TASKS) == expected


def test_the_warm_start_needs_the_upstreams_sizes_and_inputs() -> None:
    same = config_of()
    other = same.downstream.network.model_copy(update={"user_tower": [4]})
    block = same.downstream.network.block.model_copy(update={"set_dim": 9})
    unread = same.downstream.network.model_copy(update={"block": block})
    dropped = parse(RunConfig, {}, source="run").downstream.network.model_copy()
    for config, has in [
        (same, True),
        (changed(same, network=other), False),
        (changed(same, network=unread), True),
        (changed(same, network=dropped), False),
        (changed(same, embeddings=same.downstream.embeddings.model_copy(update={"dim": 3})), False),
        (changed(same, omit=["age"]), False),
        (changed(same, omit=["age"], module_inputs="upstream"), True),
    ]:
        assert (OUTPUT in full_combination(config, TASKS)) == has


class Headless(FoundationModel):
    """Its output is no level of a warm start."""

    @classmethod
    def levels(cls, config: UpstreamConfig, tasks: Sequence[str]) -> dict[str, str]:
        levels = super().levels(config, tasks)
        return {level: levels[level] for level in levels if level != "output"}


class OtherBlock(FoundationModel):
    """Its block is not the one of `network`."""

    @classmethod
    def block_config(cls, config: UpstreamConfig) -> BlockConfig:
        return parse(BlockConfig, {"layers": [CROSS]}, source="block")


@pytest.mark.parametrize("model", [Headless, OtherBlock])
def test_the_warm_start_needs_an_upstream_that_can_be_copied(model: type[FoundationModel]) -> None:
    with UPSTREAMS.added("mine", model):
        config = config_of(model="mine")
        assert full_combination(config, TASKS) == gate("cross_2")


def test_only_stored_layers_are_read() -> None:
    for stored, expected in [
        (["cross_1", "dnn_1"], gate("cross_1")),
        (["towers"], gate("towers")),
        ([], "feature/gate/UR+IR"),
    ]:
        config = config_of()
        part = config.representations.model_copy(update={"layers": stored})
        config = config.model_copy(update={"representations": part})
        assert full_combination(config, TASKS) == f"{expected} & {OUTPUT}"


def test_what_is_given_stays_and_what_is_derived_is_written_out() -> None:
    spec = SimpleNamespace(features={}, task_names=TASKS)

    def written(config: RunConfig) -> str | None:
        resolved = Resolved.model_construct(spec=spec, config=config)
        return with_full(resolved).config.downstream.full

    config = config_of()
    assert "full" in config.downstream.methods
    assert written(config) == f"{gate('cross_2')} & {OUTPUT}"
    assert written(changed(config, full="feature/linear/IR")) == "feature/linear/IR"
    assert written(changed(config, methods=["none"])) is None


units = st.lists(st.integers(1, 4), min_size=1, max_size=3)
kinds = st.tuples(
    st.fixed_dictionaries({"type": st.just("fm"), "dim": st.integers(1, 4)}),
    st.fixed_dictionaries(
        {"type": st.just("cross"), "depth": st.integers(1, 4), "rank": st.sampled_from([None, 1])}
    ),
    st.fixed_dictionaries({"type": st.just("dnn"), "units": units}),
)
blocks = st.tuples(kinds, st.sets(st.integers(0, 2), min_size=1)).flatmap(
    lambda drawn: st.permutations([drawn[0][k] for k in sorted(drawn[1])])
)
upstreams = st.sampled_from([{}, {"branches": True}, {"model": "mmoe"}])


@settings(max_examples=100, deadline=None)
@given(blocks, st.sampled_from(["stacked", "parallel", "gated"]), upstreams, st.data())
def test_every_block_has_a_full_that_is_read(
    layers: Any, structure: str, upstream: dict[str, Any], data: st.DataObject
) -> None:
    config = config_of(list(layers), structure, **upstream)
    names = config.upstream.layer_names(TASKS)
    stored = data.draw(st.none() | st.lists(st.sampled_from(names), unique=True))
    part = config.representations.model_copy(update={"layers": stored})
    config = config.model_copy(update={"representations": part})
    run: Any = SimpleNamespace(config=config, spec=SimpleNamespace(features={}, task_names=TASKS))
    method = read_method(run, "full")  # refuses what is not stored
    ((kind, sources),) = method.parts
    stream = reads_towers(config.downstream.network.block)  # that a gate could be of
    assert kind == ("gate" if stream else "gate_fields") and {"UR", "IR"} <= set(sources)
    found = {layer_of(s) for s in sources} - {""}
    own = [n for n in (names if stored is None else stored) if not n.startswith("content.")]
    assert bool(found) == bool(own)
    crosses = [n for n in own if "cross_" in n]
    if crosses:
        assert found == {max(crosses)}
    assert (method.warm_start is None) == (config.upstream.model == "mmoe")


@pytest.mark.parametrize(
    "config",
    [
        config_of([CROSS], "parallel", branches=True),
        config_of([FM, DNN], "gated"),
        config_of([FM]),
        config_of(model="mmoe"),
        changed(config_of(), omit=["age"]),
    ],
    ids=["branches", "gated", "one_layer", "mmoe", "omit"],
)
def test_the_model_is_built_started_and_called(config: RunConfig, ads: Any) -> None:
    layout = ads.cache.layout
    upstream = build.upstream(layout, config, seed=0)
    found = upstream.represent(example_batch(layout))
    run: Any = SimpleNamespace(config=config, spec=ads.spec)
    method = read_method(run, "full")
    assert list(representation_names(config.representations, upstream.layer_names))
    dims = {s: int(found[layer_of(s) or s].shape[-1]) for s in method.sources}
    model = build.downstream(layout, config, method, dims, seed=0)
    if method.warm_start is not None:
        copied = warm_start(upstream, model, method.warm_start.level, {0: 1.0})
        assert "heads" in copied.layers
    batch = example_batch(layout, dims)
    logits = model(batch).numpy()
    assert logits.shape == (1, len(layout.tasks)) and np.isfinite(logits).all()
