"""Sets of embeddings that interact set by set, against NumPy in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.merging import merged_model
from lfm4ads_tf.export.tower_model import TowerModel
from lfm4ads_tf.interactions.block import InteractionBlock
from lfm4ads_tf.interactions.config import BlockConfig
from lfm4ads_tf.interactions.inputs import BlockInputs
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.models.multi_embedding import MultiEmbedding
from lfm4ads_tf.models.registry import UPSTREAMS
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.optim.variable_paths import path_of
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.named_method import read_method
from lfm4ads_tf.strict import parse
from lfm4ads_tf.transfer.downstream import DownstreamModel
from lfm4ads_tf.transfer.isomorphic import IsomorphicModule
from tests.rounding import assert_close
from tests.small_models import LAYOUT, random_batch

pytestmark = pytest.mark.processor

Randomize = Callable[..., None]
FM, IPNN = {"type": "fm", "dim": 4}, {"type": "ipnn", "dim": 4, "units": 5}
CROSS, DNN = {"type": "cross", "depth": 2}, {"type": "dnn", "units": [6, 5]}
TOWERS = {"user_tower": [6, 4], "item_tower": [3]}


def network(layers: Any = None, towers: bool = True, **block: Any) -> NetworkConfig:
    options = {"set_dim": 6, "layers": layers or [FM, CROSS, IPNN, DNN], **block}
    raw = {"block": options, **(TOWERS if towers else {})}
    return parse(NetworkConfig, raw, source="network")


def tables(sets: int, shards: int = 1) -> EmbeddingsConfig:
    return EmbeddingsConfig(dim=4, init_scale=0.5, sets=sets, shards=shards)


def made(randomize: Randomize, sets: int = 2, layers: Any = None, **options: Any) -> MultiEmbedding:
    """A model with random weights."""
    model = MultiEmbedding(LAYOUT, network(layers, **options), tables(sets), seed=1)
    model(random_batch())
    randomize(model)
    return model


class Oracle:
    """The forward pass, from the tables on; `magnitudes` adds all terms up without their signs."""

    def __init__(self, model: Any, magnitudes: bool) -> None:
        self.model = model
        self.magnitudes = magnitudes

    def number(self, value: Any) -> np.ndarray:
        array = np.asarray(value, np.float64)
        return np.abs(array) if self.magnitudes else array

    def relu(self, value: np.ndarray) -> np.ndarray:
        return np.maximum(value, 0)

    def dense(self, x: np.ndarray, layer: Any) -> np.ndarray:
        y = x @ self.number(layer.kernel)
        return y + self.number(layer.bias) if layer.use_bias else y

    def field(self, name: str, batch: Mapping[str, Any], table: np.ndarray) -> np.ndarray:
        """(B, K, D)."""
        singles = [f.name for f in LAYOUT.single]
        if name in singles:
            return table[batch["ids"].numpy()[:, singles.index(name)]]  # -1 reads the last row
        ids, weights = batch["bags"][name]
        rows = []
        for k, row in enumerate(ids):
            factors = np.ones(len(row)) if weights is None else self.number(weights[k])
            total = np.einsum("l,lkd->kd", factors, table[row.numpy()])
            rows.append(total / max(len(row), 1) if name == "history" else total)
        return np.stack(rows)

    def tower(self, tower: Any, x: np.ndarray, k: int) -> np.ndarray:
        if len(tower.layers) and isinstance(tower.layers[0], tf.keras.layers.Layer):
            layers = [(layer.kernel, layer.bias) for layer in tower.layers]
        else:
            layers = [(kernel[k], bias[k, 0]) for kernel, bias in tower.layers]
        for n, (kernel, bias) in enumerate(layers, start=1):
            x = x @ self.number(kernel) + self.number(bias)
            x = self.relu(x) if n < len(layers) else x
        return x

    def inputs(self, batch: Mapping[str, Any], k: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """x^k (B, d), and the fields of set k, each (B, w), width by width."""
        embeddings = self.model.backbone.embeddings
        owner, sides, fields = {f.name: f for f in LAYOUT.fields}, {}, []
        for side in ("user", "item", "context"):
            sides[side] = []
        for dim in embeddings.dims:
            for name in embeddings.fields(dim):
                table = self.number(embeddings.read_table(owner[name].table))
                value = self.field(name, batch, table)[:, k]
                fields.append(value)
                sides[owner[name].owner].append(value)
        dense = self.number(batch["dense"])
        x = {
            side: np.concatenate([*parts, dense[:, LAYOUT.dense_columns(side)]], axis=1)
            for side, parts in sides.items()
        }
        backbone = self.model.backbone
        user = self.tower(backbone.user_tower, x["user"], k)
        item = self.tower(backbone.item_tower, x["item"], k)
        return np.concatenate([user, item, x["context"]], axis=1), fields

    def projected(self, fields: Sequence[np.ndarray], layer: Any) -> np.ndarray:
        """(B, F, dim)."""
        kernels = {w: self.number(p.kernel) for w, p in layer.projections.items()}
        given = [(v, kernels.get(str(v.shape[1]))) for v in fields]
        return np.stack([v if kernel is None else v @ kernel for v, kernel in given], axis=1)

    def fm(self, fields: np.ndarray) -> np.ndarray:
        squares = np.square(fields).sum(axis=1)
        return 0.5 * (np.square(fields.sum(axis=1)) + (squares if self.magnitudes else -squares))

    def interaction(self, block: Any, x: np.ndarray, fields: list[np.ndarray]) -> np.ndarray:
        """I_k."""
        outputs, stream = [], x
        stacked = block.config.structure == "stacked"
        joined = x
        for options, layer in zip(block.config.layers, block._stack, strict=True):
            if options.type == "fm":
                y = self.fm(self.projected(fields, layer))
            elif options.type == "ipnn":
                v = self.projected(fields, layer)
                pairs = combinations(range(v.shape[1]), 2)
                products = np.stack([(v[:, i] * v[:, j]).sum(axis=1) for i, j in pairs], axis=1)
                y = products @ self.number(layer.kernel) + self.number(layer.bias)
            elif options.type == "cross":
                y = stream
                for cross in layer.layers:
                    y = stream * self.dense(y, cross.dense) + y
            else:
                y = stream if stacked else joined
                for dense in layer.layers:
                    y = self.relu(self.dense(y, dense))
            outputs.append(y)
            joins = options.type in ("fm", "ipnn")
            joined = np.concatenate([joined, y], axis=1) if joins else joined
            if stacked:
                stream = np.concatenate([stream, y], axis=1) if joins else y
        return stream if stacked else np.concatenate(outputs, axis=1)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Activations and logits."""
        block, sets = self.model.backbone.block, self.model.backbone.embeddings.sets
        found, towers, total = {}, [], np.zeros(())
        bank = block._set_mean.non_linear
        for k in range(sets):
            x, fields = self.inputs(batch, k)
            towers.append(x)
            found[f"set_{k}"] = interacted = self.interaction(block._of_sets[k], x, fields)
            kernel, bias = self.number(bank.kernel), self.number(bank.bias)
            w, b = (kernel, bias) if sets == 1 else (kernel[k], bias[k, 0])
            total = total + self.relu(interacted @ w + b) / sets
        found |= {"towers": np.concatenate(towers, axis=1), "mean": total}
        shared = block._set_mean.shared
        for n, layer in enumerate(shared.layers if shared is not None else (), start=1):
            found[f"shared_{n}"] = self.dense(total, layer)
            total = self.relu(found[f"shared_{n}"])
        heads, scenario = self.model.heads, batch["scenario"].numpy()
        every = self.dense(total, heads.own).reshape(len(total), 3, 2)
        own = np.where(scenario[:, None] < 0, 0, every[np.arange(len(total)), scenario])
        return {**found, "logits": self.dense(total, heads.shared) + own}


BLOCKS = {
    "fm": [FM],
    "cross": [CROSS],
    "dnn": [DNN],
    "ipnn": [IPNN],
    "all": [FM, CROSS, IPNN, DNN],
}


@pytest.mark.parametrize(
    ("kind", "structure", "towers", "sets"),
    [
        ("fm", "stacked", True, 2),
        ("cross", "stacked", False, 2),
        ("dnn", "stacked", False, 2),
        ("ipnn", "parallel", False, 3),
        ("all", "parallel", True, 2),
        ("all", "stacked", False, 1),
    ],
)
def test_the_forward_pass(
    kind: str, structure: str, towers: bool, sets: int, randomize: Randomize
) -> None:
    """With missing values and an unknown scenario, within 1e-5 of the terms' magnitudes."""
    options = {"structure": structure, "towers": towers, "shared_units": [4, 3]}
    model, batch = made(randomize, sets, BLOCKS[kind], **options), random_batch()
    assert (batch["scenario"].numpy() == -1).any() and (batch["ids"].numpy() == -1).any()
    found = {**model.represent(batch), "logits": model(batch)}
    expected, magnitude = Oracle(model, False)(batch), Oracle(model, True)(batch)
    for name, value in expected.items():
        assert found[name].shape == value.shape
        assert np.all(np.abs(found[name] - value) <= 1e-5 * magnitude[name]), name
        assert np.abs(value).max() > 0.1, name
    names = ["UR", "IR", "towers", *(f"set_{k}" for k in range(sets)), "mean"]
    assert list(found)[:-1] == [*names, "shared_1", "shared_2"]
    assert model.layer_names == list(found)[2:-1]


def test_ur_is_of_user_features_alone_and_ir_of_item_features(randomize: Randomize) -> None:
    model, batch, other = made(randomize), random_batch(), random_batch(seed=1)
    owners = [f.owner for f in LAYOUT.single]
    dense = [d.owner for d in LAYOUT.dense for _ in range(d.width)]

    def mixed(side: str) -> dict[str, Any]:
        """The side's features of one batch, all others of the other one."""
        keep = {"ids": [o == side for o in owners], "dense": [o == side for o in dense]}
        columns = {k: tf.where(np.array(v), batch[k], other[k]) for k, v in keep.items()}
        bag = {"user": "history", "item": "tags"}[side]
        return {**other, **columns, "bags": {**other["bags"], bag: batch["bags"][bag]}}

    for name, side in (("UR", "user"), ("IR", "item")):
        found = model.represent(batch)[name]
        np.testing.assert_array_equal(model.represent(mixed(side))[name], found)
        assert not np.allclose(model.represent(other)[name], found)


def of_set(gradients: Sequence[Any], k: int, sets: int) -> list[np.ndarray]:
    """The part of one set in gradients of tables."""
    dense = [tf.convert_to_tensor(g).numpy() for g in gradients]
    return [g.reshape(len(g), sets, -1)[:, k] for g in dense]


@pytest.mark.parametrize("kind", ["fm", "cross", "dnn", "ipnn"])
def test_sets_do_not_interact_before_the_non_linearity(kind: str, randomize: Randomize) -> None:
    """d^2 z / dE_0 dE_1 = 0 for linear heads, and so for the mean with shared layers above it:
    neither the embeddings nor the weights of set 1 change a bit of the gradient of set 0."""
    model, batch = made(randomize, 2, BLOCKS[kind], towers=False), random_batch()
    cases: list[tuple[Any, str]] = [(model, "logits")]
    control: Any = None
    if kind == "fm":  # what is above the mean, and what joined sets do, is the same for all
        control = FoundationModel(LAYOUT, network(BLOCKS[kind]), tables(2), seed=1)
        control(batch)
        randomize(control)
        cases += [(made(randomize, 2, BLOCKS[kind], shared_units=[4]), "mean"), (control, "logits")]

    def gradients(each: Any, what: str) -> list[np.ndarray]:
        parts = each.backbone.embeddings.all_parts()
        with tf.GradientTape() as tape:
            value = each(batch) if what == "logits" else each.backbone(batch)[0][what]
            total = tf.reduce_sum(value * tf.cast(tf.range(1, value.shape[1] + 1), tf.float32))
        return of_set(tape.gradient(total, parts), 0, 2)

    def move(each: Any) -> None:
        """Other embeddings of set 1."""
        for part in each.backbone.embeddings.all_parts():
            width = part.shape[1] // 2
            part.assign(tf.concat([part[:, :width], 1.5 * part[:, width:] + 0.25], axis=1))

    for each, what in cases:
        before = gradients(each, what)
        assert any(np.any(g) for g in before)
        move(each)
        if each is not control:
            block = each.backbone.block
            for variable in block._of_sets[1].trainable_variables:
                variable.assign(1.5 * variable + 0.25)
            bank = block._set_mean.non_linear
            bank.kernel.assign(tf.stack([bank.kernel[0], 2 * bank.kernel[1]]))
        same = [np.array_equal(x, y) for x, y in zip(before, gradients(each, what), strict=True)]
        assert all(same) == (each is not control)


def test_rows_of_a_set_without_a_gradient_stay(randomize: Randomize) -> None:
    """Set 1 is behind a relu that is closed: it gives the mean nothing, and learns nothing."""
    model, batch = made(randomize), random_batch()
    bias = model.backbone.block._set_mean.non_linear.bias
    bias.assign(tf.stack([bias[0], tf.fill(bias[1].shape, -1e6)]))
    model.compile(run_eagerly=True)
    before = {n: model.backbone.embeddings.read_table(n) for n in ("user", "item", "tags", "tab")}
    for _ in range(2):
        model.train_on_batch(batch)
    for name, table in before.items():
        after = model.backbone.embeddings.read_table(name)  # (rows + 1, K, D)
        np.testing.assert_array_equal(after[:, 1], table[:, 1])
        assert (after[:, 0] != table[:, 0]).any()


def test_one_set_is_one_block_one_relu_layer_and_the_shared_layers(randomize: Randomize) -> None:
    """The block is that of joined sets: the same layers, with the same weights, the same bits."""
    model, batch = made(randomize, 1, shared_units=[4]), random_batch()
    towers = model.backbone.towers(batch)
    inputs = BlockInputs(
        towers.user, towers.item, towers.context, towers.fields, stream=towers.stream
    )
    alone = InteractionBlock(network().block, seed=7)
    alone(inputs)
    block = model.backbone.block
    for one, other in zip(block._of_sets[0].variables, alone.variables, strict=True):
        other.assign(one)
    activations, interacted = alone(inputs)
    found = model.represent(batch)
    np.testing.assert_array_equal(found["towers"], activations["towers"])
    np.testing.assert_array_equal(found["set_0"], interacted)
    bank, (layer,) = block._set_mean.non_linear, block._set_mean.shared.layers
    relu = np.maximum(interacted.numpy() @ bank.kernel.numpy() + bank.bias.numpy(), 0)
    assert_close(found["mean"], relu, terms=40)
    hidden = found["mean"].numpy() @ layer.kernel.numpy() + layer.bias.numpy()
    assert_close(found["shared_1"], hidden, terms=12)
    logits = model.heads(tf.nn.relu(found["shared_1"]), batch["scenario"])
    np.testing.assert_array_equal(model(batch), logits)


def test_the_foundation_with_a_block_of_each_set_is_the_same_model(randomize: Randomize) -> None:
    sizes, batch = network(shared_units=[4], sets="each"), random_batch()
    models: list[Any]
    models = [cls(LAYOUT, sizes, tables(3), seed=1) for cls in (FoundationModel, MultiEmbedding)]
    np.testing.assert_array_equal(*(model(batch) for model in models))
    found = [model.represent(batch) for model in models]
    for name, value in found[0].items():
        np.testing.assert_array_equal(found[1][name], value)
    paths = [[path_of(v).partition("/")[2] for v in m.trainable_variables] for m in models]
    assert paths[0] == paths[1]
    assert {p for p in paths[0] if "set_mean" in p} == {
        f"block/set_mean/{layer}/{kind}"
        for layer in ("sets", "shared/shared_1")
        for kind in ("kernel", "bias")
    }
    assert {p.split("/")[1] for p in paths[0] if p.startswith("block")} == {
        *("set_0", "set_1", "set_2", "set_mean")
    }


def test_sets_start_at_weights_of_their_own() -> None:
    model = MultiEmbedding(LAYOUT, network(), tables(2), seed=1)
    model(random_batch())
    block = model.backbone.block
    pairs = zip(*(b.trainable_variables for b in block._of_sets), strict=True)
    assert all(np.any(one != other) for one, other in pairs if np.any(one))
    wider = MultiEmbedding(LAYOUT, network(), tables(3), seed=1)
    wider(random_batch())
    one_more = wider.backbone.block
    for k in (0, 1):  # one set more leaves those of the others
        sides = (b._of_sets[k].trainable_variables for b in (block, one_more))
        for one, other in zip(*sides, strict=True):
            np.testing.assert_array_equal(one, other)
    kernels = [b._set_mean.non_linear.kernel.numpy() for b in (block, one_more)]
    np.testing.assert_array_equal(kernels[0], kernels[1][:2])


def test_branches_have_blocks_of_each_set(randomize: Randomize) -> None:
    sizes, batch = network([CROSS], sets="each"), random_batch()
    model = FoundationModel(LAYOUT, sizes, tables(2), branches=True, seed=1)
    branch = tf.constant([0, 1] * 6, tf.int64)
    model({**batch, "branch": branch})
    randomize(model)
    found = model.represent(batch)
    assert list(found)[2:] == model.layer_names
    assert model.layer_names[1:4] == ["content.set_0", "content.set_1", "content.mean"]
    ads = model.heads(found["ad.mean"], batch["scenario"])
    content = model.content_heads(found["content.mean"], batch["scenario"])
    expected = tf.where(branch[:, tf.newaxis] == 1, ads, content)
    assert_close(model({**batch, "branch": branch}), expected, terms=80)


def config_of(name: str = "multi_embedding", of: int = 2, **options: Any) -> RunConfig:
    upstream = {"model": name, "network": network(**options), "embeddings": tables(of, shards=3)}
    return RunConfig(upstream=UpstreamConfig(**upstream))


def test_sharded_tables_merge_and_towers_cut_out_as_an_export_needs(randomize: Randomize) -> None:
    config, batch = config_of(), random_batch()
    model = build.upstream(LAYOUT, config, 0)
    assert UPSTREAMS.name_of(type(model)) == "multi_embedding"
    assert config.upstream.layer_names(LAYOUT.tasks) == model.layer_names
    assert model.configuration().network == config.upstream.network
    randomize(model)
    merged = merged_model(
        model,
        lambda shards, storage: build.upstream(LAYOUT, config, 5, shards=shards, storage=storage),
        batch,
    )
    assert merged is not model and merged.backbone.embeddings.shards == 1
    assert_close(merged(batch), model(batch), terms=60)
    found = model.represent(batch)
    for side, representation in (("user", "UR"), ("item", "IR")):
        tower = TowerModel(model.backbone, side)  # type: ignore[arg-type]
        assert_close(tower(batch), found[representation], terms=60)


@pytest.mark.parametrize("name", ["multi_embedding", "foundation"])
def test_a_warm_start_above_the_tables_is_refused_by_name(name: str) -> None:
    """A downstream reads all sets together: the towers and blocks of each fit nothing in it."""
    run: Any = SimpleNamespace(
        config=config_of(name, sets="each" if name == "foundation" else "joined"),
        spec=SimpleNamespace(features={}, task_names=list(LAYOUT.tasks)),
    )
    for level in ("output", "mean", "set_0", "towers"):
        with pytest.raises(UserError, match=level) as refused:
            read_method(run, f"module/warm_start/{level}")
        assert "embeddings" in str(refused.value)
    assert read_method(run, "module/warm_start/embeddings").warm_start is not None
    with pytest.raises(UserError, match=f"'{name}' has no mix tower") as refused:
        read_method(run, "module/isomorphic")
    assert "use module/warm_start/embeddings, or" in str(refused.value)


def test_full_hands_the_last_shared_layer_over() -> None:
    upstream = config_of(shared_units=[4]).upstream
    stored = upstream.layer_names(LAYOUT.tasks)
    handed_over = upstream.model_class.handed_over
    assert handed_over(upstream, LAYOUT.tasks, stored) == ["shared_1"]
    assert handed_over(upstream, LAYOUT.tasks, stored[:-1]) == ["mean"]


def test_one_set_lets_a_downstream_start_at_its_towers() -> None:
    upstream = config_of(of=1).upstream
    assert list(upstream.warm_start_levels(LAYOUT.tasks)) == ["embeddings", "towers"]


def test_a_block_of_each_set_is_for_upstreams_without_gates() -> None:
    gated = network(structure="gated", sets="each")
    with pytest.raises(UserError, match="Gates mix the layers of one interaction block"):
        FoundationModel(LAYOUT, gated, tables(2))
    config = config_of(structure="gated")
    with pytest.raises(UserError, match="Gates mix the layers of one interaction block"):
        config.upstream.model_class.check(config.upstream, ads=False)
    each = network(sets="each")
    with pytest.raises(UserError, match="block of a downstream reads all sets"):
        DownstreamModel(LAYOUT, each, tables(2))
    with pytest.raises(UserError, match="block of the isomorphic module reads all sets"):
        IsomorphicModule(LAYOUT, LAYOUT, each, tables(2))
    twice = network([CROSS, CROSS], sets="each")
    with pytest.raises(UserError, match="called 'cross'"):
        FoundationModel(LAYOUT, twice, tables(2))
    with pytest.raises(UserError, match="'multi_embedding' has no branches"):
        branched = config.upstream.model_copy(update={"branches": True, "network": network()})
        config.upstream.model_class.check(branched, ads=True)


def test_a_gate_or_joined_part_belongs_to_no_set() -> None:
    block = InteractionBlock(network([CROSS], sets="each").block, sets=2, name="block")
    for more in ({"gate": tf.ones([3, 6])}, {"extra": (tf.ones([3, 1]),)}):
        with pytest.raises(ValueError, match="belong to no set"):
            block(BlockInputs(tf.ones([3, 4]), tf.ones([3, 2]), None, [], **more))


def test_what_joined_sets_do_not_read_is_in_no_document() -> None:
    assert list(BlockConfig().model_dump(mode="json")) == ["structure", "mix_dim", "layers"]
    each = parse(BlockConfig, {"sets": "each"}, source="block").model_dump(mode="json")
    assert {k: each[k] for k in ("sets", "set_dim", "shared_units")} == {
        "sets": "each",
        "set_dim": 64,
        "shared_units": [],
    }
    assert parse(BlockConfig, each, source="block").model_dump(mode="json") == each
    wide = parse(BlockConfig, {"set_dim": 9}, source="block").model_dump(mode="json")
    assert wide["set_dim"] == 9 and "sets" not in wide
