from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.spec_file import parse_spec
from lfm4ads_tf.interactions.block import InteractionBlock
from lfm4ads_tf.interactions.block_reads import BlockReads
from lfm4ads_tf.interactions.columns import Carried
from lfm4ads_tf.interactions.config import BlockConfig
from lfm4ads_tf.interactions.field_group import FieldGroup
from lfm4ads_tf.interactions.inputs import BlockInputs
from lfm4ads_tf.interactions.mixer import Mixer
from lfm4ads_tf.interactions.mixer_block import MixerBlock, Mixing
from lfm4ads_tf.interactions.mixer_config import MixerConfig
from lfm4ads_tf.interactions.repeated import repeated
from lfm4ads_tf.interactions.token_groups import permuted, runs
from lfm4ads_tf.interactions.token_mixing import mix, rank_after_mixing, unmix
from lfm4ads_tf.interactions.token_network import TokenNetwork
from lfm4ads_tf.interactions.token_sizes import TokenSizes
from lfm4ads_tf.models.backbone import check_towers
from lfm4ads_tf.models.candidate_towers import CandidateTowers
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.models.two_towers import TwoTowers
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.strict import parse
from lfm4ads_tf.transfer.adapters.cross import CrossAdapter
from lfm4ads_tf.transfer.adapters.token import TokenAdapter
from lfm4ads_tf.transfer.downstream import DownstreamModel
from tests.conftest import ADS_SPEC
from tests.rounding import assert_close
from tests.small_models import EMBEDDINGS, LAYOUT, random_batch

pytestmark = pytest.mark.processor


class Seen(Carried):
    """Takes what is carried over and keeps nothing."""

    def add(self, *_: Any) -> None:
        """Nothing."""


B = 6
SHAPES = [("user", 3, 4), ("item", 2, 4), ("item", 3, 6)]
"""Owner, fields and width K D of each group of fields; K = 2."""
FIRST_GROUPS = {
    "a": ["user00", "item10", "item22"],
    "b": ["user01", "user02", "item20"],
    "c": ["item11", "item21"],
}
SEQUENCES = ["user02", "item21"]
"""The multi-valued ones of the fields."""
_erf = np.vectorize(math.erf)


def inputs(seed: int = 0, rows: int = B, user_rows: int | None = None) -> BlockInputs:
    rng = np.random.default_rng(seed)
    fields, numbers = [], {}
    for g, (owner, count, width) in enumerate(SHAPES):
        size = user_rows if user_rows and owner == "user" else rows
        values = rng.normal(size=(rows, count, width)).astype(np.float32)
        values[:] = values[:1] if user_rows and owner == "user" else values
        names = [f"{owner}{g}{k}" for k in range(count)]
        fields.append(FieldGroup(tf.constant(values[:size]), names, [owner] * count, 2))
    for owner, width in (("user", 2), ("context", 1)):
        values = rng.normal(size=(rows, width)).astype(np.float32)
        values[:] = values[:1] if user_rows and owner == "user" else values
        size = user_rows if user_rows and owner == "user" else rows
        numbers[owner] = tf.constant(values[:size])
    towers = tf.zeros([rows, 1])
    return BlockInputs(towers, towers, None, fields, numbers=numbers, multi_valued=SEQUENCES)


def mixer(**options: Any) -> Mixer:
    """A mixer whose weights are all drawn, those that start at zero too."""
    sizes = {"tokens": 3, "dim": 12, "expansion": 2, "depth": 2}
    return filled(Mixer(MixerConfig(**{**sizes, **options}), name="mixer"))


def filled(layer: Mixer) -> Mixer:
    layer.interact(tf.zeros([B, 1]), inputs())
    rng = np.random.default_rng(1)
    for variable in layer.variables:
        variable.assign(rng.normal(size=variable.shape, scale=0.5).astype(np.float32))
    return layer


# --- NumPy, in float64 and row by row as the formulas are written: X is (B, N, D)


def weights(layer: Any) -> dict[str, np.ndarray]:
    return {v.name.split(":")[0].rpartition("/")[2]: v.numpy().astype(np.float64) for v in layer}


def np_norm(x: np.ndarray, layer: Any) -> np.ndarray:
    mean = x.mean(-1, keepdims=True)
    deviation = np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-5)
    scale, bias = layer.scale.numpy(), layer.bias.numpy()
    return (x - mean) / deviation * (1.0 + scale) + bias


def np_mix(x: np.ndarray, heads: int) -> np.ndarray:
    part = x.shape[2] // heads
    rows = [[x[:, n, h * part : (h + 1) * part] for n in range(x.shape[1])] for h in range(heads)]
    return np.stack([np.concatenate(row, axis=-1) for row in rows], axis=1)


def np_network(x: np.ndarray, layer: TokenNetwork) -> np.ndarray:
    found, w, e = np.zeros_like(x), weights(layer.variables), layer.experts
    for n, j in itertools.product(range(x.shape[1]), range(e)):
        # an expert's columns; swiglu's values stand behind the gates of all experts
        h = w["kernel_2"].shape[1] // e
        of_expert = slice(j * h, (j + 1) * h)
        read = x[:, n] @ w["kernel_1"][n][:, of_expert]
        if layer.kind == "gelu":
            read += w["bias_1"][n, 0, of_expert]
            hidden = 0.5 * read * (1.0 + _erf(read / math.sqrt(2.0)))
            made = hidden @ w["kernel_2"][n][of_expert] + w["bias_2"][n, j]
        else:
            value = x[:, n] @ w["kernel_1"][n][:, e * h :][:, of_expert]
            made = (read / (1.0 + np.exp(-read)) * value) @ w["kernel_2"][n][of_expert]
        found[:, n] += made * np_routes(x, layer)[:, n, j, np.newaxis]
    return found


def np_routes(x: np.ndarray, layer: TokenNetwork) -> np.ndarray:
    """G (B, N, e), 1 of a single expert."""
    if layer.experts == 1:
        return np.ones((*x.shape[:2], 1))
    w = weights(layer.variables)
    scores = np.einsum("bnd,nde->bne", x, w["router"])
    return np.maximum(scores + w["router_bias"][:, 0], 0.0)


def np_mixing(x: np.ndarray, block: MixerBlock) -> np.ndarray:
    if block.mixing == "none":
        return x
    if block.mixing == "transpose":
        return np_mix(x, block.heads)
    w, rows, width = weights(block.mixer.variables), x.shape[0], x.shape[2]
    if block.mixing == "full":
        return x + (x.reshape(rows, -1) @ w["kernel"]).reshape(x.shape)
    query, key, value = (x @ part for part in np.split(w["read"], 3, axis=-1))
    found, part = np.zeros_like(x), width // block.heads
    for h in range(block.heads):
        s = slice(h * part, (h + 1) * part)
        scores = query[..., s] @ key[..., s].transpose(0, 2, 1) / math.sqrt(part)
        odds = np.exp(scores - scores.max(-1, keepdims=True))
        found[..., s] = odds / odds.sum(-1, keepdims=True) @ value[..., s]
    return found @ w["output"]


def np_block(
    x: np.ndarray, block: MixerBlock, routes: list[np.ndarray] | None = None
) -> np.ndarray:
    def run(read: np.ndarray, layer: TokenNetwork) -> np.ndarray:
        if routes is not None:
            routes.append(np_routes(read, layer))
        return np_network(read, layer)

    if block.norm == "post":
        s = np_norm(x + np_mixing(x, block), block.first_norm)
        return np_norm(s + run(s, block.network), block.second_norm)
    read = np_norm(x, block.first_norm)
    if block.norm == "pre":
        y = x + np_mixing(read, block)
    else:
        inner = run(np_mix(read, block.heads), block.mixed_network)
        y = x + np_mix(inner, x.shape[1])
    return y + run(np_norm(y, block.second_norm), block.network)


def np_tokens(layer: Mixer, given: BlockInputs) -> np.ndarray:
    config, tokens = layer.config, []
    value_of = {
        name: group.values.numpy()[:, k].astype(np.float64)
        for group in given.fields
        for k, name in enumerate(group.names)
    }
    numbers = {o: v.numpy().astype(np.float64) for o, v in given.numbers.items()}
    if config.global_token is not None:
        w = {
            n: d.kernel.numpy().astype(np.float64)
            for n, d in layer.input_tokens.all_fields.made.items()
        }
        bias = {n: d.bias for n, d in layer.input_tokens.all_fields.made.items()}
        v = np.stack([e @ w[f"project_{e.shape[-1]}"] for e in value_of.values()], axis=1)
        pooled = v.mean(axis=1)
        if config.global_token == "fm":
            pooled = (v.sum(axis=1) ** 2 - (v**2).sum(axis=1)) / (2 * v.shape[1])
        if config.global_token == "mlp":
            read = pooled @ w["hidden"] + bias["hidden"].numpy()
            pooled = 0.5 * read * (1.0 + _erf(read / math.sqrt(2.0)))
        if config.global_token in ("mlp", "fm"):
            tokens.append(pooled @ w["output"] + bias["output"].numpy())
        elif config.global_token == "cross":
            tokens.append(pooled * (pooled @ w["output"] + bias["output"].numpy()) + pooled)
        else:
            tokens.append(pooled)
    if config.order == "scalars":
        w = weights(layer.input_tokens.fields.variables)
        flat = np.concatenate(list(value_of.values()), axis=-1)
        width = w["kernel"].shape[1]
        flat = np.pad(flat, [(0, 0), (0, 3 * width - flat.shape[1])])
        tokens += [
            flat[:, n * width : (n + 1) * width] @ w["kernel"][n] + w["bias"][n] for n in range(3)
        ]
    else:
        fields, bias = (
            layer.input_tokens.fields,
            layer.input_tokens.fields.bias.numpy().astype(np.float64),
        )
        kernel = {
            name: fields.kernels[width].numpy().astype(np.float64)[row]
            for width, rows in fields._plan.rows.items()
            for name, row in rows.items()
        }
        views = [""] if config.sets == "joined" else ["#0", "#1"]
        groups = [(group, view) for view in views for group in fields.groups]
        for n, (group, view) in enumerate(groups):
            token = np.tile(bias[n], (B, 1))
            for name in group:
                e = value_of[name]
                if view:
                    e = np.split(e, 2, axis=-1)[int(view[1:])]
                token += e @ kernel[name + view]
            tokens.append(token)
    if config.number_tokens:
        w = weights(layer.input_tokens.numbers.variables)
        made = sum(numbers[owner] @ w[f"kernel_{owner}"] for owner in numbers)
        for p, piece in enumerate(np.split(made, config.number_tokens, axis=-1)):
            tokens.append(piece + w["bias"][p])
    return np.stack(tokens, axis=1)


VARIANTS: list[dict[str, Any]] = [
    {},
    {"norm": "pre", "network": "swiglu", "order": "permuted", "global_token": "mlp", "tokens": 2},
    {"norm": "revert", "heads": 6, "global_token": "mean", "readout": "flatten"},
    {"norm": "revert", "network": "swiglu", "heads": 2, "sets": "each", "number_tokens": 0},
    {"norm": "pre", "mixing": "attention", "heads": 3, "global_token": "fm", "number_tokens": 2},
    {"norm": "post", "mixing": "full", "global_token": "cross", "order": "scalars"},
    {"norm": "post", "mixing": "none", "sets": "each", "readout": "flatten"},
    {
        "order": "semantic",
        "groups": {"a": ["user00", "item10"], "b": ["user01", "user02", "item20"]}
        | {"c": ["item11", "item21", "item22"]},
    },
    {"experts": 2},
    {"experts": 3, "norm": "pre", "network": "swiglu"},
    {"experts": 2, "norm": "revert", "heads": 6},
    {"sequence_tokens": True, "tokens": 2, "order": "permuted", "norm": "pre", "dim": 10},
    {"sequence_tokens": True, "tokens": 2, "sets": "each", "global_token": "mean", "dim": 20},
]


@pytest.mark.parametrize("options", VARIANTS)
def test_the_forward_pass(options: dict[str, Any]) -> None:
    layer, given = mixer(**options), inputs()
    named, output = layer.interact(tf.zeros([B, 1]), given)
    x = np_tokens(layer, given)
    means = [x.mean(axis=1)]
    for block in layer.blocks:
        x = np_block(x, block)
        means.append(x.mean(axis=1))
    assert list(named) == ["tokens", "mixer_1", "mixer_2"]
    for found, expected in zip(named.values(), means, strict=True):
        assert_close(found, expected, terms=400)
    if layer.last_norm is not None:
        x = np_norm(x, layer.last_norm)
    expected = x.mean(axis=1)
    if layer.flat is not None:
        kernel, bias = layer.flat.kernel.numpy(), layer.flat.bias.numpy()
        expected = x.reshape(B, -1) @ kernel.astype(np.float64) + bias
    assert_close(output, expected, terms=400)


@pytest.mark.parametrize("norm", ["post", "pre", "revert"])
@pytest.mark.parametrize("network", ["gelu", "swiglu"])
def test_every_block(norm: Any, network: Any) -> None:
    """With every mixing; `revert` takes `transpose` back and goes with no other."""
    rng = np.random.default_rng(3)
    x = tf.constant(rng.normal(size=(4, B, 8)).astype(np.float32))
    for mixing in ("transpose",) if norm == "revert" else get_args(Mixing):
        heads = 2 if norm == "revert" or mixing == "attention" else 4
        block = MixerBlock(heads, norm=norm, mixing=mixing, network=network, expansion=1.5)
        block(x)
        for variable in block.variables:
            variable.assign(rng.normal(size=variable.shape, scale=0.5).astype(np.float32))
        expected = np_block(x.numpy().transpose(1, 0, 2).astype(np.float64), block)
        found = tf.transpose(block(x), [1, 0, 2])
        assert_close(found, expected, terms=200, what=mixing)
        mixers = {"attention": 2, "full": 1}  # the kernels of those that have some
        parts = [block.network, *([block.mixed_network] if norm == "revert" else [])]
        others = 4 + mixers.get(mixing, 0)  # and scale and bias of both norms
        assert len(block.variables) == others + sum(len(part.variables) for part in parts)


SIZES = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 4))


@settings(max_examples=30, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 9))
def test_mixing_changes_places_alone(sizes: tuple[int, int, int], seed: int) -> None:
    tokens, heads, part = sizes
    x = tf.constant(np.random.default_rng(seed).normal(size=(tokens, 3, heads * part)))
    mixed = mix(x, heads)
    assert mixed.shape == (heads, 3, tokens * part)
    row_by_row = np_mix(x.numpy().transpose(1, 0, 2), heads).transpose(1, 0, 2)
    assert np.array_equal(mixed, row_by_row)
    assert np.array_equal(unmix(mixed, tokens), x)
    assert np.array_equal(np.sort(np.ravel(mixed)), np.sort(np.ravel(x)))  # so its norm stays
    if heads == tokens:
        assert np.array_equal(mix(mixed, heads), x)


@pytest.mark.parametrize(("tokens", "width"), [(4, 32), (4, 16), (8, 16), (8, 8), (6, 12)])
def test_a_collapsed_input_is_lifted_to_few_dimensions(tokens: int, width: int) -> None:
    """rank(Mix(u v^T)) = rank of v as (H, D/H): D/H for H = N >= D/N, and 1 where D = N."""
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=tokens), rng.normal(size=width)
    x = np.outer(u, v)
    mixed = mix(tf.constant(x[:, np.newaxis]), tokens).numpy()[:, 0]
    expected = np.linalg.matrix_rank(v.reshape(tokens, width // tokens))
    assert np.linalg.matrix_rank(mixed) == expected == rank_after_mixing(width, tokens)
    flat = np.tile(rng.normal(size=width // tokens), tokens)  # equal heads: still one dimension
    mixed = mix(tf.constant(np.outer(u, flat)[:, np.newaxis]), tokens).numpy()[:, 0]
    assert np.linalg.matrix_rank(mixed) == 1


def test_a_narrow_width_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "lfm4ads_tf"):
        mixer()
    assert "D / H = 12 / 4: mixing lifts a collapsed input to 3 dimensions at most" in caplog.text


@pytest.mark.parametrize("kind", ["gelu", "swiglu"])
def test_every_token_has_a_network_of_its_own(kind: Any) -> None:
    layer, x = TokenNetwork(kind, 2, seed=3), tf.random.stateless_normal([3, 2, 4], [0, 1])
    with tf.GradientTape() as tape:
        tape.watch(x)
        made = layer(x)
    jacobian = tape.jacobian(made, x).numpy()  # (N, B, D, N, B, D)
    for n, m in itertools.product(range(3), range(3)):
        assert np.any(jacobian[n, :, :, m]) == (n == m)


@pytest.mark.parametrize("options", [VARIANTS[n] for n in (0, 1, 2, 4, 5)])
def test_after_one_block_every_token_depends_on_every_other(options: dict[str, Any]) -> None:
    layer = mixer(**options)
    x = layer.tokens(inputs(), tf.constant(B))
    with tf.GradientTape() as tape:
        tape.watch(x)
        made = layer.blocks[0](x)
    jacobian = tape.jacobian(made, x).numpy()  # (N, B, D, N, B, D)
    for n, m in itertools.product(range(len(x)), repeat=2):
        assert np.abs(jacobian[n, :, :, m]).max() > 0


def parameters(tokens: int, width: int, k: float, depth: int) -> float:
    """Of the token networks with gelu, in all blocks."""
    return depth * tokens * (2 * k * width**2 + k * width + width)


def test_the_size_that_is_called_100_m_has_151_m() -> None:
    assert parameters(16, 768, 4, 2) == 151_117_824


@pytest.mark.parametrize(("tokens", "width", "k", "depth"), [(4, 64, 4, 2), (8, 128, 1.5, 1)])
def test_parameter_counts_are_the_formulas(tokens: int, width: int, k: float, depth: int) -> None:
    def count(norm: Any, network: Any, experts: int = 1) -> int:
        x = tf.zeros([tokens, 1, width])
        found = 0
        for _ in range(depth):
            block = MixerBlock(tokens, norm=norm, network=network, expansion=k, experts=experts)
            block(x)
            parts = [block.network, *([block.mixed_network] if norm == "revert" else [])]
            found += sum(int(tf.size(v)) for part in parts for v in part.variables)
            others = [v for v in block.variables if "norm" in v.name]
            assert len(block.variables) == len(others) + sum(len(p.variables) for p in parts)
        return found

    gelu = parameters(tokens, width, k, depth)
    assert count("post", "gelu") == count("pre", "gelu") == gelu
    assert count("revert", "gelu") == 2 * gelu
    assert count("pre", "swiglu") == pytest.approx(gelu, rel=0.01)
    router = depth * tokens * (width + 1)
    assert count("post", "gelu", experts=3) == 3 * (gelu + router)
    assert count("revert", "gelu", experts=2) == 2 * 2 * (gelu + router)
    alone = count("pre", "swiglu")
    assert count("pre", "swiglu", experts=2) == 2 * (alone + router)


def test_one_row_of_a_user_stands_for_all() -> None:
    for options in VARIANTS:
        layer = mixer(**options)
        wide, narrow = inputs(2), inputs(2, user_rows=1)
        for group, other in zip(wide.fields, narrow.fields, strict=True):
            if group.owners[0] == "user":
                assert other.values.shape[0] == 1
        same = inputs(2, user_rows=B)
        found = layer.interact(tf.zeros([B, 1]), narrow)[1]
        assert_close(found, layer.interact(tf.zeros([B, 1]), same)[1], terms=400)


SPLIT: list[dict[str, Any]] = [
    {"order": "permuted", "global_token": "mlp", "tokens": 2},
    {"sets": "each", "global_token": "fm", "number_tokens": 2},
    {"order": "scalars", "tokens": 4},
]


@pytest.mark.parametrize("options", SPLIT)
def test_what_a_user_gives_is_multiplied_as_one_row(options: dict[str, Any]) -> None:
    """By the shapes of a traced graph: those of products that read the user know no number of rows.

    W_n [e_u; e_i] = W_n^u e_u + W_n^i e_i, the numbers likewise; what follows in the global token
    is a function of both.
    """
    sizes = {"tokens": 3, "dim": 6, "depth": 1, "expansion": 1, "mixing": "none"}
    layer, given = Mixer(MixerConfig(**{**sizes, **options}), name="mixer"), inputs(user_rows=1)
    # stored representations of the user and of the item
    stored = [tf.ones([1, 1, 5]), tf.ones([B, 1, 7])]
    beside = [FieldGroup(v, [f"token_{k}"], ["representation"]) for k, v in enumerate(stored)]
    given = replace(given, fields=[*given.fields, *beside])
    layer.tokens(given, tf.constant(B))
    values = [*(group.values for group in given.fields), *given.numbers.values()]
    specs = [tf.TensorSpec([v.shape[0] if v.shape[0] == 1 else None, *v.shape[1:]]) for v in values]

    @tf.function(input_signature=specs)
    def tokens(*values: tf.Tensor) -> tf.Tensor:
        count = len(given.fields)
        groups = zip(given.fields, values[:count], strict=True)
        fields = [replace(group, values=v) for group, v in groups]
        numbers = dict(zip(given.numbers, values[count:], strict=True))
        return layer.tokens(replace(given, fields=fields, numbers=numbers), tf.constant(B))

    graph = tokens.get_concrete_function().graph
    of_user = {t.name for t, spec in zip(graph.inputs, specs, strict=False) if spec.shape[0] == 1}
    products = {
        op.name: op.outputs[0].shape.as_list()
        for op in graph.get_operations()
        if ("MatMul" in op.type and not {"hidden", "output"} & set(op.name.split("/")))
        or (op.type == "Mul" and "mixer_fields" in op.name)  # whose sums are products of one row
    }
    reached = {
        name: read
        for name in products
        if (read := ancestors(graph.get_operation_by_name(name)) & of_user)
    }
    assert set().union(*reached.values()) == of_user
    assert all((None not in shape) == (name in reached) for name, shape in products.items())
    assert 0 < len(reached) < len(products)
    # a graph of one row and one of B rows give the same tokens
    rows = [repeated(v, tf.constant(B)) for v in values]
    fields = [replace(g, values=v) for g, v in zip(given.fields, rows, strict=False)]
    numbers = dict(zip(given.numbers, rows[len(fields) :], strict=True))
    whole = layer.tokens(replace(given, fields=fields, numbers=numbers), tf.constant(B))
    assert_close(tokens(*values), whole, terms=64)


def ancestors(op: tf.Operation) -> set[str]:
    """Names of all tensors that an op is made from."""
    names: set[str] = set()
    waiting = [op]
    while waiting:
        for read in waiting.pop().inputs:
            if read.name not in names:
                names.add(read.name)
                waiting.append(read.op)
    return names


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", ["gelu", "swiglu"])
def test_the_networks_of_all_tokens_are_two_batched_products(kind: Any, training: bool) -> None:
    for count in (2, 5):
        layer = TokenNetwork(kind, 2)
        traced = tf.function(lambda x, layer=layer: layer(x, training=training))
        graph = traced.get_concrete_function(tf.TensorSpec([count, None, 4])).graph
        products = [op.type for op in graph.get_operations() if "MatMul" in op.type]
        assert products == ["BatchMatMulV2"] * 2
        assert not list(graph.as_graph_def().library.function)  # none is hidden in a function


def of_one_user(batch: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The user of a batch's first row, as one row, and that user beside every row's item."""
    first = {name: batch[name][:1] for name in ("ids", "dense")}
    bags = batch["bags"].items()
    first["bags"] = {n: (i[:1], None if w is None else w[:1]) for n, (i, w) in bags}
    ids, dense = batch["ids"].numpy(), batch["dense"].numpy()
    users = [k for k, field in enumerate(LAYOUT.single) if field.owner == "user"]
    ids[:, users], dense[:, LAYOUT.dense_columns("user")] = ids[0, users], dense[0, 0]
    same = tf.gather(batch["bags"]["history"][0], tf.zeros(len(ids), tf.int32))
    rows = {**batch, "ids": tf.constant(ids), "dense": tf.constant(dense)}
    return first, {**rows, "bags": {**batch["bags"], "history": (same, None)}}


def test_ranking_many_items_of_a_user_reads_numbers_and_fields_of_both() -> None:
    towers = TwoTowers(LAYOUT, [], [], EMBEDDINGS, seed=1)
    batch = random_batch(5)
    first, _ = of_one_user(batch)
    rows, ranked = towers.towers(batch), CandidateTowers(towers)(first, batch)
    assert set(ranked.numbers) == set(rows.numbers) == {"user", "item", "context"}
    assert ranked.numbers["user"].shape[0] == 1
    assert np.array_equal(ranked.numbers["item"], rows.numbers["item"])
    assert np.array_equal(ranked.numbers["user"], rows.numbers["user"][:1])


@pytest.mark.parametrize(
    "options",
    [
        {"sets": "each", "order": "permuted", "global_token": "mlp", "readout": "task"},
        {"sets": "joined", "global_token": "cross", "norm": "pre", "network": "swiglu"},
    ],
)
def test_a_ranking_gives_what_rows_of_one_user_do(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two sets, numbers, and stored representations as tokens; the user's stay one row."""
    layer = {"type": "mixer", "tokens": 3, "head_dim": 4, "depth": 1, **options}
    network = parse(NetworkConfig, {"block": {"layers": [layer]}}, source="network")
    adapters = [
        TokenAdapter(["UR", "IR"], units=[5], seed=1),
        CrossAdapter(["UR", "IR"], dim=5, width=6, seed=1),
    ]
    tables = EMBEDDINGS.model_copy(update={"sets": 2})
    model = DownstreamModel(LAYOUT, network, tables, adapters=adapters, seed=2)
    batch = random_batch()
    user, rows = of_one_user(batch)
    rng = np.random.default_rng(4)
    one, many = (tf.constant(rng.normal(size=(n, 4)), tf.float32) for n in (1, 12))
    rows["representations"] = {"UR": tf.repeat(one, 12, axis=0), "IR": many}
    expected = model(rows)
    read: list[tuple[bool, bool]] = []
    interact = Mixer.interact

    def seen(self: Mixer, stream: tf.Tensor, given: BlockInputs, **how: Any) -> Any:
        for group in given.fields:
            of_user = {*group.owners} == {"user"} or group.names == ["token_0"]
            read.append((of_user, group.values.shape[0] == 1))
        return interact(self, stream, given, **how)

    monkeypatch.setattr(Mixer, "interact", seen)
    asked = {**rows, "representations": {"UR": one, "IR": many}}
    towers = CandidateTowers(model.backbone)
    found = model.logits(asked, towers=lambda gate: towers(user, rows, gate=gate))
    assert {*read} == {(True, True), (False, False)}
    assert len({*np.ravel(found)}) > 12
    assert_close(found, expected, terms=400)


def test_carried_weights_give_the_same_bits_and_other_tokens_are_refused() -> None:
    layer = mixer(order="permuted")
    other = Mixer(layer.config, seed=5, name="mixer")
    other.interact(tf.zeros([B, 1]), inputs())
    carried = Seen()
    layer.carry(other, ([], []), ["mixer_2"], carried)
    assert np.array_equal(
        other.interact(tf.zeros([B, 1]), inputs())[1], layer.interact(tf.zeros([B, 1]), inputs())[1]
    )
    apart = Mixer(layer.config.model_copy(update={"permutation": 1}), name="mixer")
    apart.interact(tf.zeros([B, 1]), inputs())
    with pytest.raises(UserError, match="its fields make other tokens there"):
        layer.carry(apart, ([], []), ["mixer_2"], carried)


@pytest.mark.parametrize(
    ("options", "message", "fix"),
    [
        ({"dim": 15}, "no multiple of its heads", "set dim: 16"),
        ({"dim": 13}, "no multiple of its heads", "set dim: 12"),
        ({"dim": 3}, "no multiple of its heads", "set dim: 4"),
        ({"heads": 2}, "as many heads as it has tokens", "set heads: 4"),
        ({"heads": 2, "norm": "pre"}, "as many heads as it has tokens", "set heads: 4"),
        ({"norm": "revert", "mixing": "none"}, "takes `mixing: transpose` back", "norm: pre"),
        ({"mixing": "full", "dim": 600}, "more than 4,000,000 weights", "lower `tokens`"),
        ({"tokens": 9, "dim": 10}, "more tokens than fields", "ask for 8 tokens or fewer"),
        (
            {"tokens": 9, "dim": 10, "order": "scalars"},
            "more tokens than fields",
            "ask for 8 tokens or fewer",
        ),
        ({"order": "scalars", "sets": "each"}, "no set has tokens of its own", "leave sets out"),
        ({"experts_l1": 0.1}, "weighs the routes to several experts", "experts to 2 or more"),
        (
            {"decorrelation": 0.1, "tokens": 1, "number_tokens": 0},
            "is between tokens, and there is one",
            "have more tokens",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    options: dict[str, Any], message: str, fix: str
) -> None:
    fields = [name for group in inputs().fields for name in group.names]
    config = MixerConfig(**{"tokens": 3, "dim": 12, "expansion": 2, **options})
    with pytest.raises(UserError, match=message) as error:
        Mixer.settled(config, BlockReads(fields, numbers=["n"]))
    with pytest.raises(UserError, match=message):
        mixer(**options)
    assert fix in str(error.value)


def test_a_block_hands_out_its_tokens_at_every_place() -> None:
    layer = {"type": "mixer", "tokens": 3, "dim": 12, "depth": 2}
    config = parse(BlockConfig, {"layers": [layer]}, source="block")
    block, given = InteractionBlock(config, seed=1), inputs()
    activations, _ = block(given)
    found = block.observed(given)
    places = ["tokens", "mix_1", "network_1", "mix_2", "network_2"]
    assert list(found) == [f"mixer/{place}" for place in places]
    x = np_tokens(block._stack[0], given)
    assert_close(found["mixer/tokens"].values.numpy(), x.transpose(1, 0, 2), terms=400)
    for k in (1, 2):
        mean = tf.reduce_mean(found[f"mixer/network_{k}"].values, axis=0)
        assert np.array_equal(mean, activations[f"mixer_{k}"])


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({}, ["numbers_1"]),
        ({"order": "permuted", "number_tokens": 2}, ["numbers_1", "numbers_2"]),
        ({"sets": "each"}, ["numbers_1"]),
        (
            {"global_token": "mean", "readout": "task"},
            ["global", "numbers_1", "task_click", "task_buy"],
        ),
    ],
)
def test_a_token_has_the_names_of_what_it_is_made_of(
    options: dict[str, Any], more: list[str]
) -> None:
    block = mixed_block(depth=1, **{"dim": None, **options})
    given = inputs()
    block(given)
    before = block.observed(given)["mixer/tokens"]
    names = before.names
    assert len(names) == len(before.values) == 3 * (1 + (options.get("sets") == "each")) + len(more)
    assert [n for n in names if "user" not in n and "item" not in n] == more
    assert before.tasks == (("click", "buy") if "readout" in options else ())
    for g, group in enumerate(given.fields):
        for k, field in enumerate(group.names):
            values = group.values.numpy()
            width = values.shape[2] // 2
            values[:, k, width:] += 1.0  # of set 1 alone
            moved = replace(group, values=tf.constant(values))
            fields = [*given.fields[:g], moved, *given.fields[g + 1 :]]
            after = block.observed(replace(given, fields=fields))["mixer/tokens"].values
            changed = np.any(after != before.values, axis=(1, 2))
            for name, differs in zip(names, changed, strict=True):
                read = name.partition("#")[0].split("+")
                of_set = "#" not in name or name.endswith("#1")
                assert differs == (name == "global" or field in read and of_set), name


def test_a_named_group_and_a_slice_have_their_names() -> None:
    given = inputs()
    for options, names in (
        ({"order": "semantic", "groups": FIRST_GROUPS, "tokens": None}, [*FIRST_GROUPS]),
        ({"order": "scalars"}, ["slice_1", "slice_2", "slice_3"]),
    ):
        block = mixed_block(depth=1, number_tokens=0, **options)
        block(given)
        assert list(block.observed(given)["mixer/mix_1"].names) == names


def mixed_block(**options: Any) -> InteractionBlock:
    layer = {"type": "mixer", "tokens": 3, "dim": 12, "depth": 1, **options}
    config = parse(BlockConfig, {"layers": [layer]}, source="block")
    return InteractionBlock(config, tasks=("click", "buy"), seed=1)


@pytest.mark.parametrize("units", [[], [5]])
def test_every_task_reads_its_token_and_the_mean(units: list[int]) -> None:
    block, given = mixed_block(readout="task", read_units=units), inputs()
    named, output = block(given)
    layer: Any = block._stack[0]
    assert list(named) == ["towers", "tokens", "mixer_1", "task_click", "task_buy"]
    assert list(named) == block.layer_names
    x = np_tokens(layer, given)
    learned = layer.input_tokens.of_tasks.numpy().astype(np.float64)
    tasks = np.tile(learned[:, 0], (B, 1, 1))
    x = np_block(np.concatenate([x, tasks], axis=1), layer.blocks[0])
    for t, name in enumerate(("task_click", "task_buy")):
        expected = np.concatenate([x[:, t - 2], x.mean(axis=1)], axis=-1)
        if units:
            bank = layer.task_towers
            kernel, bias = bank.kernel.numpy()[t], bank.bias.numpy()[t]
            expected = np.maximum(expected @ kernel + bias, 0.0)
        assert_close(named[name], expected, terms=400)
    assert np.array_equal(output, tf.concat([named["task_click"], named["task_buy"]], axis=-1))


def test_a_token_of_one_task_alone_is_told(caplog: pytest.LogCaptureFixture) -> None:
    config = parse(
        BlockConfig,
        {"layers": [{"type": "mixer", "tokens": 3, "dim": 10, "depth": 1, "readout": "task"}]},
        source="block",
    )
    block = InteractionBlock(config, tasks=("click",), seed=1)
    with caplog.at_level("WARNING", "lfm4ads_tf"):
        named, _ = block(inputs())
    assert "has a token of one task alone" in caplog.text
    assert named["task_click"].shape == (B, 20)


def test_a_task_of_its_own_readout_is_scored_by_it_alone() -> None:
    network = parse(
        NetworkConfig,
        {"block": {"layers": [{"type": "mixer", "tokens": 3, "dim": 12, "readout": "task"}]}},
        source="network",
    )
    model, batch = FoundationModel(LAYOUT, network, EMBEDDINGS, seed=3), random_batch()
    names = UpstreamConfig(network=network).layer_names(LAYOUT.tasks)
    layers = ["towers", "tokens", "mixer_1", "mixer_2", "task_click", "task_buy"]
    assert names == model.layer_names == layers
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(model(batch)[:, 0])
    heads = model.heads.logit_kernel
    gradient = tape.gradient(value, heads).numpy()  # (T, u, 1 + S)
    assert gradient[0].any() and not gradient[1].any()


@pytest.mark.parametrize(
    "block",
    [
        {"structure": "parallel", "layers": [{"type": "mixer", "readout": "task"}]},
        {"layers": [{"type": "mixer", "readout": "task"}, {"type": "dnn"}]},
        {"sets": "each", "layers": [{"type": "mixer", "readout": "task"}]},
    ],
)
def test_tasks_read_the_last_layer_of_a_stacked_block(block: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="it is the last one of a stacked block"):
        InteractionBlock(parse(BlockConfig, block, source="block"), tasks=("a", "b"))


@pytest.mark.parametrize("before", ["fm", "cross"])
def test_no_layer_stands_before_a_mixer_in_a_stack(before: str) -> None:
    block = parse(BlockConfig, {"layers": [{"type": before}, {"type": "mixer"}]}, source="block")
    with pytest.raises(UserError, match="takes the stream's place without reading it"):
        InteractionBlock(block)


@pytest.mark.parametrize(
    ("block", "read"),
    [
        ({"layers": [{"type": "mixer"}]}, False),
        ({"layers": [{"type": "mixer"}, {"type": "dnn"}]}, False),
        ({"layers": [{"type": "fm"}]}, True),
        ({"structure": "parallel", "layers": [{"type": "mixer"}, {"type": "fm"}]}, False),
        ({"structure": "parallel", "layers": [{"type": "mixer"}, {"type": "dnn"}]}, True),
    ],
)
def test_towers_that_no_layer_reads_have_no_units(block: dict[str, Any], read: bool) -> None:
    network = parse(NetworkConfig, {"user_tower": [4], "block": block}, source="network")
    if read:
        check_towers(network)
    else:
        with pytest.raises(UserError, match="reads no tower's output"):
            check_towers(network)
    check_towers(network.model_copy(update={"user_tower": []}))


def test_an_added_field_joins_the_smallest_group_and_no_token_changes() -> None:
    first = mixer(order="permuted", tokens=3, network="swiglu")
    settled = first.config.model_copy(update={"groups": FIRST_GROUPS})
    first = filled(Mixer(settled, name="mixer"))
    given = inputs()
    more = FieldGroup(tf.ones([B, 1, 4]), ["new"], ["item"], 2)
    wider = replace(given, fields=[*given.fields, more])
    names = [name for group in wider.fields for name in group.names]
    groups = Mixer.settled(settled, BlockReads(names)).groups
    smallest = min(FIRST_GROUPS, key=lambda name: len(FIRST_GROUPS[name]))
    assert groups == {**FIRST_GROUPS, smallest: [*FIRST_GROUPS[smallest], "new"]}
    target = Mixer(settled.model_copy(update={"groups": groups}), seed=9, name="mixer")
    target.interact(tf.zeros([B, 1]), wider)
    first.carry(target, ([], []), ["mixer_2"], Seen())
    before, after = (m.tokens(g, tf.constant(B)) for m, g in ((first, given), (target, wider)))
    place = list(groups).index(smallest)
    others = [n for n in range(len(before)) if n != place]
    assert np.array_equal(tf.gather(before, others), tf.gather(after, others))
    # one more term of zeros may be summed in another order
    assert_close(after[place], before[place], terms=40)
    kernels = target.input_tokens.fields
    assert not kernels.kernels["4"].numpy()[kernels._plan.rows["4"]["new"]].any()


def test_a_run_keeps_what_was_drawn() -> None:
    fields = [f"f{k}" for k in range(7)]
    for order in ("spec", "permuted"):
        config = MixerConfig(tokens=3, order=order, permutation=4)
        settled = Mixer.settled(config, BlockReads(fields))
        drawn = runs(fields, 3) if order == "spec" else permuted(fields, 3, 4)
        assert list(settled.groups.values()) == drawn
        assert Mixer.settled(settled, BlockReads(fields)) == settled
    with pytest.raises(UserError, match="in no token group"):
        Mixer.settled(MixerConfig(order="semantic", groups={"a": ["f0"]}), BlockReads(fields))
    assert Mixer.settled(MixerConfig(order="scalars"), BlockReads(fields)).groups == {}


def test_other_fields_than_the_groups_name_are_refused() -> None:
    config = MixerConfig(tokens=3, groups={"a": ["user00"], "b": ["gone"]})
    with pytest.raises(UserError, match="made of other fields here than its groups name"):
        Mixer(config, name="mixer").interact(tf.zeros([B, 1]), inputs())


@pytest.mark.parametrize("sets", ["joined", "each"])
def test_a_stored_representation_has_a_token_of_its_own(sets: Any) -> None:
    given, rng = inputs(), np.random.default_rng(3)
    stored = tf.constant(rng.normal(size=(B, 1, 5)), tf.float32)
    beside = FieldGroup(stored, ["token_0"], ["representation"])
    layer = mixer(sets=sets, mixing="none")
    more = Mixer(layer.config, seed=layer.seed, name="mixer")
    tokens = more.tokens(replace(given, fields=[*given.fields, beside]), tf.constant(B))
    assert len(tokens) == len(layer.tokens(given, tf.constant(B))) + 1
    fields = more.input_tokens.fields
    of_it = stored[:, 0] @ fields.kernels["5"][0] + fields.bias[-1]
    assert_close(tokens[fields.bias.shape[0] - 1], of_it, terms=6)


def test_slices_go_through_stored_representations_too() -> None:
    given, stored = inputs(), np.random.default_rng(3).normal(size=(B, 1, 5)).astype(np.float32)
    beside = FieldGroup(tf.constant(stored), ["token_0"], ["representation"])
    read = replace(given, fields=[*given.fields, beside])
    layer = Mixer(MixerConfig(tokens=3, expansion=2, order="scalars"), name="mixer")
    layer.interact(tf.zeros([B, 1]), read)
    made: Any = layer.input_tokens
    reads = BlockReads([*made.names], numbers=["n"], stored=1)
    tokens = layer.tokens(read, tf.constant(B)).numpy()
    assert len(tokens) == made.sizes.count == TokenSizes.of(layer.config, reads).count == 4
    moved = replace(beside, values=tf.constant(stored + 1.0))
    after = layer.tokens(replace(given, fields=[*given.fields, moved]), tf.constant(B)).numpy()
    assert np.any(after != tokens, axis=(1, 2)).tolist() == [False, True, False, False]


@pytest.mark.parametrize("sets", ["joined", "each"])
def test_a_sequence_has_a_token_of_its_own_and_groups_are_of_the_others(sets: Any) -> None:
    options = {"sequence_tokens": True, "tokens": 2, "order": "permuted", "sets": sets}
    layer, given = mixer(dim=None, **options), inputs()
    fields = [name for group in given.fields for name in group.names]
    others = [name for name in fields if name not in SEQUENCES]
    reads = BlockReads(fields, numbers=["n"], sets=2, multi_valued=SEQUENCES)
    groups = Mixer.settled(layer.config, reads).groups
    assert list(groups.values()) == permuted(others, 2, 0)
    made: Any = layer.input_tokens
    assert made.fields.groups == [*groups.values(), ["user02"], ["item21"]]
    tokens = layer.tokens(given, tf.constant(B))
    times = 2 if sets == "each" else 1
    assert (
        len(tokens) == made.sizes.count == 4 * times + 1 == TokenSizes.of(layer.config, reads).count
    )
    for k, name in enumerate(SEQUENCES):  # W_f e_f + b of that field alone
        group = next(group for group in given.fields if name in group.names)
        views = np.split(group.named(name).numpy(), times, axis=-1)
        for view, e in enumerate(views):
            key = f"{name}#{view}" if times > 1 else name
            width = str(e.shape[-1])
            kernel = made.fields.kernels[width][made.fields._plan.rows[width][key]]
            place = view * 4 + 2 + k
            expected = e.astype(np.float64) @ kernel.numpy() + made.fields.bias[place].numpy()
            assert_close(tokens[place], expected, terms=8)
    grown = replace(reads, fields=[*fields, "more", "seen"], multi_valued=[*SEQUENCES, "seen"])
    smallest = min(groups, key=lambda name: len(groups[name]))
    settled = layer.config.model_copy(update={"groups": groups})
    assert Mixer.settled(settled, grown).groups == {**groups, smallest: [*groups[smallest], "more"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "semantic", "groups": {"s": ["f"]}}, "has the name of a multi-valued feature"),
        ({"order": "scalars"}, "no sequence has a token of its own"),
        (
            {"order": "semantic", "groups": {"a": ["f", "s"]}},
            "The token group 'a' names 's', a multi-valued feature",
        ),
        ({"tokens": 2}, "more tokens than fields"),
    ],
)
def test_what_sequence_tokens_do_not_go_with_is_refused(
    options: dict[str, Any], message: str
) -> None:
    reads = BlockReads(["f", "s"], multi_valued=["s"])
    config = MixerConfig(sequence_tokens=True, **options)
    with pytest.raises(UserError, match=message):
        Mixer.settled(config, reads)
    with pytest.raises(UserError, match="no embedded feature that its tokens could be made of"):
        Mixer.settled(MixerConfig(sequence_tokens=True), replace(reads, fields=["s"]))


def test_a_model_knows_its_multi_valued_features() -> None:
    layer = {"type": "mixer", "tokens": 2, "head_dim": 4, "sequence_tokens": True}
    network = parse(NetworkConfig, {"block": {"layers": [layer]}}, source="network")
    model, batch = FoundationModel(LAYOUT, network, EMBEDDINGS, seed=3), random_batch()
    model(batch)
    made: Any = model.backbone.block._stack[0]
    assert made.input_tokens.fields.groups[2:] == [["tags"], ["history"]]
    settled: Any = FoundationModel.settled(UpstreamConfig(network=network), parse_spec(ADS_SPEC))
    others = ["user_id", "level", "segment", "item_id", "price", "brand", "tab", "segment_brand"]
    assert list(settled.network.block.layers[0].groups.values()) == [others[:4], others[4:]]
