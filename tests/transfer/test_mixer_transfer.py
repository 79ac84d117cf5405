"""A mixer's weights in a warm start and in the isomorphic module: tokens stay what they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.config import DownstreamConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.block import refitted_block
from lfm4ads_tf.interactions.mixer import Mixer
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.models.spec_reads import layout_reads
from lfm4ads_tf.strict import parse
from lfm4ads_tf.transfer.downstream import DownstreamModel
from lfm4ads_tf.transfer.isomorphic import IsomorphicModule, module_reads
from lfm4ads_tf.transfer.methods import parse_method
from lfm4ads_tf.transfer.warm_start import start_module, warm_start
from tests.rounding import assert_close
from tests.small_models import EMBEDDINGS, LAYOUT, random_batch

pytestmark = pytest.mark.processor

SCENARIO, ROWS = 1, 12
TWO_SETS = EMBEDDINGS.model_copy(update={"sets": 2})
GROUPS = {"a": ["user", "city"], "b": ["history", "item", "tab"], "c": ["tags", "brand"]}
ORDERS: list[dict[str, Any]] = [
    {"order": "spec", "sequence_tokens": True},
    {"order": "semantic", "groups": GROUPS},
    {"order": "scalars", "norm": "pre"},
    {"order": "permuted", "sets": "each", "global_token": "mlp", "norm": "pre", "readout": "task"},
]


def network(structure: str = "stacked", **options: Any) -> NetworkConfig:
    layer = {"type": "mixer", "tokens": 3, "head_dim": 2, "expansion": 2, "depth": 1, **options}
    block = {"structure": structure, "layers": [layer]}
    return parse(NetworkConfig, {"block": block}, source="network")


def mixer_of(block: Any) -> Any:
    return next(layer for layer in block.submodules if isinstance(layer, Mixer))


def trained(sizes: NetworkConfig, fill: Any, tables: Any = TWO_SETS) -> tuple[FoundationModel, Any]:
    batch = random_batch(ROWS)
    batch["scenario"] = tf.fill([ROWS], tf.constant(SCENARIO, tf.int64))
    upstream = FoundationModel(LAYOUT, sizes, tables, seed=1)
    upstream(batch)
    fill(upstream, seed=4)
    return upstream, batch


def tokens(backbone: Any, batch: Any, zero: Any = ()) -> tf.Tensor:
    """X_0, where asked with the embeddings of some fields zero."""
    inputs = backbone._block_inputs(backbone.towers(batch))
    fields = [
        replace(g, values=g.values * np.array([[n not in zero] for n in g.names], np.float32))
        for g in inputs.fields
    ]
    inputs = replace(inputs, fields=fields)
    return mixer_of(backbone.block).tokens(inputs, tf.constant(ROWS))


@pytest.mark.parametrize("options", ORDERS)
def test_a_warm_start_and_a_module_of_an_equal_mixer_carry_all(
    options: dict[str, Any], randomize: Any
) -> None:
    """A module reads numbers too: those of a side without layers stand in its representation."""
    sizes = network(**options)
    upstream, batch = trained(sizes, randomize)
    theirs = upstream.represent(batch)
    ones = tf.ones([ROWS, 1])
    batch["representations"] = {n: tf.concat([theirs[n], ones], -1) for n in ("UR", "IR")}
    module = IsomorphicModule(LAYOUT, LAYOUT, sizes, TWO_SETS, head=True, seed=3)
    module(batch)
    start_module(upstream, module, {SCENARIO: 1.0})
    model = DownstreamModel(LAYOUT, sizes, TWO_SETS, seed=5)
    before, expected = model(batch), upstream(batch)
    warm_start(upstream, model, "output", {SCENARIO: 1.0})
    of_upstream = mixer_of(upstream.block).variables
    for block in (model.backbone.block, module.block):
        copied = mixer_of(block).variables
        for mine, other in zip(of_upstream, copied, strict=True):
            assert mine.name.rpartition("/")[2] == other.name.rpartition("/")[2]
            assert np.array_equal(mine, other), mine.name
    assert np.array_equal(tokens(upstream.backbone, batch), tokens(model.backbone, batch))
    assert np.abs(before - expected).max() > 0.1
    assert_close(tf.sigmoid(model(batch)), tf.sigmoid(expected), terms=64)
    for name, value in module.activations(batch)[0].items():
        assert_close(value, theirs[name], terms=64, what=name)
    assert_close(tf.sigmoid(module(batch)[1]), tf.sigmoid(expected), terms=64)


def refitted(sizes: NetworkConfig, layout: FeatureLayout, names: Any = ("tokens",)) -> Any:
    before, reads = layout_reads(LAYOUT), layout_reads(layout)
    block = refitted_block(sizes.block, before, reads, names, "here")
    return sizes.model_copy(update={"block": block})


def test_semantic_groups_may_lose_fields(randomize: Any) -> None:
    """What is not read is as if its embedding were zero; `tab` is the one field of its width."""
    sizes = network(order="semantic", groups=GROUPS, number_tokens=0, global_token="mean")
    upstream, batch = trained(sizes, randomize)
    less = LAYOUT.without(["city", "tab"])
    fewer = refitted(sizes, less)
    assert fewer.block.layers[0].groups == {**GROUPS, "a": ["user"], "b": ["history", "item"]}
    model = DownstreamModel(less, fewer, TWO_SETS, seed=5)
    model(batch)
    warm_start(upstream, model, "output", {SCENARIO: 1.0})
    found = tokens(model.backbone, batch)
    whole = tokens(upstream.backbone, batch)
    missing = tokens(upstream.backbone, batch, zero=("city", "tab"))
    assert np.array_equal(found[3], whole[3])  # of the group that keeps all
    assert np.abs(found[1] - whole[1]).max() > 0.1
    assert_close(found[1:], missing[1:], terms=40)
    # a mean over the fields that there are
    assert_close(found[0] * len(less.fields), missing[0] * len(LAYOUT.fields), terms=64)
    blocks = [mixer_of(block).blocks[0] for block in (upstream.block, model.backbone.block)]
    for mine, copied in zip(*(block.variables for block in blocks), strict=True):
        assert np.array_equal(mine, copied)


@pytest.mark.parametrize(
    ("options", "left_out", "message"),
    [
        ({"order": "spec"}, ["city"], "would make other tokens of other fields"),
        ({"order": "permuted"}, ["tab"], "would make other tokens of other fields"),
        ({"order": "scalars"}, ["tab"], "would make other tokens of other fields"),
        ({"order": "semantic", "groups": GROUPS}, ["user", "city"], "other tokens of other fields"),
        ({"order": "semantic", "groups": GROUPS}, ["v"], "tokens of numbers that are not read"),
        (
            {"order": "semantic", "groups": {"a": ["user", "city", "item", "brand", "tab"]}}
            | {"sequence_tokens": True},
            ["tags"],
            "would make other tokens of other fields",
        ),
    ],
)
def test_inputs_that_would_regroup_tokens_are_refused(
    options: dict[str, Any], left_out: list[str], message: str
) -> None:
    sizes, less = network(**options), LAYOUT.without(left_out)
    with pytest.raises(UserError, match=message) as refused:
        refitted(sizes, less)
    told = str(refused.value)
    assert left_out[-1] in told and ("order: semantic" in told or "number_tokens: 0" in told)
    assert refitted(sizes, LAYOUT) == sizes
    # where no token is copied they are made anew
    anew = refitted(sizes, less, ()).block.layers[0]
    named = [name for group in anew.groups.values() for name in group]
    assert not {*named} & {*left_out} and bool(named) == ("groups" in options)


def test_scalars_of_other_fields_are_refused_whatever_their_width(randomize: Any) -> None:
    """25 numbers and 23 in 3 slices: of 9 and of 8; in 2 slices of 13 and 12; in 4 of 7 and 6."""
    sizes = network(order="scalars", tokens=5, number_tokens=0)
    upstream, batch = trained(sizes, randomize, EMBEDDINGS)
    less = LAYOUT.without(["tab"])
    model = DownstreamModel(less, sizes, EMBEDDINGS, seed=5)
    model(batch)
    kernels = [
        mixer_of(b).input_tokens.fields.kernel for b in (upstream.block, model.backbone.block)
    ]
    assert kernels[0].shape == kernels[1].shape
    with pytest.raises(UserError, match="its fields make other tokens there"):
        warm_start(upstream, model, "output", {SCENARIO: 1.0})


def test_what_a_module_reads_in_place_of_the_upstreams_inputs() -> None:
    before, own = layout_reads(LAYOUT), layout_reads(LAYOUT.without(["tab", "hour", "city"]))
    plain = module_reads(before, own, network())
    assert plain.fields == [name for name in before.fields if name != "tab"]
    assert plain.numbers == ["age", "v", "hour"]
    units = network().model_copy(update={"user_tower": [4]})
    block = {"structure": "parallel", "layers": [*units.block.layers, {"type": "cross"}]}
    units = parse(NetworkConfig, {"user_tower": [4], "block": block}, source="network")
    towers = module_reads(before, before, units)
    assert towers.fields == ["item", "tags", "brand", "tab", "user tower"]
    assert towers.numbers == ["v", "hour"]
    with pytest.raises(UserError, match="other tokens of other fields") as refused:
        refitted_block(units.block, before, towers, ["tokens"], "module/isomorphic")
    assert "towers without units" in str(refused.value)


@pytest.mark.parametrize(
    ("method", "structure"), [("feature/linear/UR+IR", "stacked"), ("feature/mlp/UR", "parallel")]
)
def test_what_joins_no_stream_that_is_read_is_a_token(method: str, structure: str) -> None:
    """In a block of a mixer alone; beside a layer that reads x_0 it joins that."""
    sizes = network(structure)
    if structure == "parallel":
        block = {"structure": structure, "layers": [*sizes.block.layers, {"type": "cross"}]}
        sizes = parse(NetworkConfig, {"block": block}, source="network")
    batch = random_batch(ROWS)
    rng = np.random.default_rng(3)
    stored = {n: rng.normal(size=(ROWS, 5)).astype(np.float32) for n in ("UR", "IR")}
    batch["representations"] = {n: tf.constant(v) for n, v in stored.items()}
    adapters = parse_method(method, ["towers"]).adapters(DownstreamConfig(), 5)
    model, none = (DownstreamModel(LAYOUT, sizes, EMBEDDINGS, adapters=a) for a in (adapters, ()))
    before = model(batch)
    none(batch)
    more = 0 if structure == "parallel" else method.count("R")
    made = [mixer_of(m.backbone.block).input_tokens.sizes.count for m in (model, none)]
    assert made[0] == made[1] + more
    with tf.GradientTape() as tape:
        loss = tf.add_n(list(model.loss_terms(batch).values()))
    gradients = tape.gradient(loss, model.adapters[0].trainable_variables)
    assert all(g is not None and np.any(g) for g in gradients)
    batch["representations"]["UR"] = tf.constant(stored["UR"] + 1.0)
    assert np.abs(model(batch) - before).max() > 1e-4
