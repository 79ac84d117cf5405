"""Cross tokens: products of a user's and an item's stored representation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.config import DownstreamConfig, RunConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.models.registry import UPSTREAMS
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.named_method import read_method
from lfm4ads_tf.pipeline.sweep_candidate import sweep_candidates
from lfm4ads_tf.pipeline.sweep_options import SweepOptions
from lfm4ads_tf.strict import parse
from lfm4ads_tf.transfer.adapters.cross import CrossAdapter
from lfm4ads_tf.transfer.adapters.dot_product_upstream import DotProductUpstream
from lfm4ads_tf.transfer.downstream import DownstreamModel
from lfm4ads_tf.transfer.methods import parse_method
from lfm4ads_tf.transfer.warm_start import warm_start
from tests.rounding import assert_close
from tests.small_models import EMBEDDINGS, LAYOUT, random_batch
from tests.terms import Terms

pytestmark = pytest.mark.processor

ROWS, DIM, WIDTH = 12, 3, 5
SOURCES = ["UR", "CR_item@cross_1"]
FLAGS = np.array([[1, 1], [1, 0], [0, 1], [0, 0]] * 3, np.float32)
"""Of user and item, three rows of each kind."""


def stored(user: int = 4, item: int = 4) -> dict[str, np.ndarray]:
    """Random vectors; a side that is missing has numbers too, which only the flag tells."""
    rng = np.random.default_rng(0)
    return {
        name: np.c_[rng.normal(1, 2, (ROWS, d)), FLAGS[:, [k]]].astype(np.float32)
        for k, (name, d) in enumerate(zip(SOURCES, (user, item), strict=True))
    }


def tensors(values: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {name: tf.constant(v) for name, v in values.items()}


def kernels(adapter: CrossAdapter) -> list[np.ndarray]:
    """A and B, where there are some, and W_o."""
    return [w.numpy().astype(np.float64) for w in adapter.weights]


@pytest.mark.parametrize("width", [WIDTH, None])
def test_the_token_and_its_flag(width: int | None) -> None:
    values = stored(user=4, item=4 if width is None else 2)
    adapter = CrossAdapter(SOURCES, dim=DIM, width=width, seed=3)
    adapted = adapter(tensors(values), width=1)
    a, b = (Terms.of(v[:, :-1]) for v in values.values())
    *projections, out = kernels(adapter)
    assert len(projections) == (0 if width is None else 2)
    if projections:
        a, b = a.affine(projections[0], 0), b.affine(projections[1], 0)
    both = FLAGS.prod(axis=1, keepdims=True)
    expected = (a * b * Terms.of(both)).affine(out, 0)
    (token,), (joined, flag) = adapted.tokens, adapted.extra
    expected.holds(token)
    np.testing.assert_array_equal(joined, token)
    np.testing.assert_array_equal(flag, both)
    assert adapted.gate is None
    missing = both[:, 0] == 0
    assert not np.any(token[missing]) and np.all(token[~missing])


def test_its_gradients_end_at_its_weights() -> None:
    """For L = <G, e>: dA = a^T (G W_o^T * B b p), dB likewise, dW_o = (A a * B b p)^T G."""
    values, rng = stored(item=2), np.random.default_rng(1)
    adapter, given = CrossAdapter(SOURCES, dim=DIM, width=WIDTH, seed=3), tensors(values)
    factor = rng.normal(size=(ROWS, DIM)).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(given)
        loss = tf.reduce_sum(factor * adapter(given, width=1).tokens[0])
    of_stored, found = tape.gradient(loss, (list(given.values()), adapter.trainable_variables))
    assert of_stored == [None, None]
    (a, b), g = (Terms.of(v[:, :-1]) for v in values.values()), Terms.of(factor)
    to_a, to_b, out = kernels(adapter)
    both = Terms.of(FLAGS.prod(axis=1, keepdims=True))
    user, item, back = a.affine(to_a, 0), b.affine(to_b, 0), g.affine(out.T, 0)

    def outer(x: Terms, y: Terms) -> Terms:
        """x^T y over the rows."""
        return Terms(x.value.T @ y.value, x.size.T @ y.size)

    expected = (
        outer(a, back * item * both),
        outer(b, back * user * both),
        outer(user * item * both, g),
    )
    for gradient, terms in zip(found, expected, strict=True):
        terms.holds(gradient)


@pytest.mark.parametrize("width", [WIDTH, None])
def test_a_users_one_row_is_projected_once(width: int | None) -> None:
    values = stored()
    adapter = CrossAdapter(SOURCES, dim=DIM, width=width)
    one = {**values, "UR": values["UR"][:1]}
    same = {**values, "UR": np.repeat(one["UR"], ROWS, axis=0)}
    found, expected = (adapter(tensors(v), width=1) for v in (one, same))
    for ours, theirs in zip(found.extra, expected.extra, strict=True):
        assert_close(ours, theirs, terms=4 + WIDTH)
    traced = tf.function(lambda stored: adapter(stored, width=1).tokens).get_concrete_function(
        {"UR": tf.TensorSpec([1, 5]), SOURCES[1]: tf.TensorSpec([None, 5])}
    )
    products = [op for op in traced.graph.get_operations() if op.type == "MatMul"]
    rows = [op.inputs[0].shape[0] for op in products]
    assert rows == ([None] if width is None else [1, None, None])


def network(*layers: str) -> NetworkConfig:
    options: dict[str, dict[str, Any]] = {
        "fm": {"dim": DIM}, "cross": {"depth": 2}, "dnn": {"units": [5]},
        "ipnn": {"dim": DIM, "units": 4},
    }  # fmt: skip
    block = {"layers": [{"type": name, **options[name]} for name in layers]}
    return parse(NetworkConfig, {"item_tower": [3], "block": block}, source="network")


def downstream(method: str, sizes: NetworkConfig) -> DownstreamModel:
    config = DownstreamConfig(token_dim=DIM, adapter_options={"cross": {"width": WIDTH}})
    adapters = parse_method(method, ["cross_1"]).adapters(config, 5)
    return DownstreamModel(LAYOUT, sizes, EMBEDDINGS, adapters=adapters, seed=5)


METHOD = "feature/cross/UR+CR_item@cross_1"


@pytest.mark.parametrize("layer", ["fm", "cross", "dnn"])
def test_every_block_reads_the_token(layer: str, randomize: Any) -> None:
    model = downstream(METHOD, network(layer))
    batch = {**random_batch(), "representations": tensors(stored())}
    model(batch)
    randomize(model)
    (token,) = model.adapters[0](batch["representations"], width=1).tokens
    with tf.GradientTape() as tape:
        activations, output = model.activations(batch)
    gradients = tape.gradient(output, model.adapters[0].trainable_variables)
    assert len(gradients) == 3 and all(np.any(g) for g in gradients)
    tail = np.concatenate([token, FLAGS.prod(axis=1, keepdims=True)], axis=1)
    np.testing.assert_array_equal(activations["towers"][:, -DIM - 1 :], tail)
    if layer == "fm":  # the token, of the machine's width, meets every field
        rest, _ = model.backbone.interact(model.backbone.towers(batch))
        fm = next(m for m in model.backbone.block.submodules if m.name == "fm")
        groups = [g.values for g in model.backbone.towers(batch).fields]
        projected = [fm.projections.get(str(g.shape[-1]), tf.identity)(g) for g in groups]
        total = tf.reduce_sum(tf.concat(projected, axis=1), axis=1)
        expected = rest["fm"] + token * total
        size = np.abs(rest["fm"]) + np.abs(token * total) + np.square(np.abs(total) + np.abs(token))
        assert_close(activations["fm"], expected, terms=40, magnitude=size)


def test_a_mixer_has_a_token_for_it() -> None:
    block = {"structure": "parallel", "layers": [{"type": "mixer", "tokens": 3}, {"type": "dnn"}]}
    sizes = parse(NetworkConfig, {"block": block}, source="network")
    model, plain = downstream(METHOD, sizes), downstream("none", sizes)
    batch = {**random_batch(), "representations": tensors(stored())}
    with tf.GradientTape() as tape:
        named, _ = model.activations(batch)
        value = tf.reduce_sum(named["mixer_2"] ** 2)
    plain.activations(batch)
    of_mixer = [m.backbone.block._stack[0].input_tokens.sizes.count for m in (model, plain)]
    assert of_mixer[0] == of_mixer[1] + 1
    gradients = tape.gradient(value, model.adapters[0].trainable_variables)
    assert len(gradients) == 3 and all(np.any(g) for g in gradients)


def test_a_warm_start_beside_it_starts_at_the_upstreams_logits(randomize: Any) -> None:
    sizes = network("ipnn", "cross", "dnn")
    batch = {**random_batch(), "scenario": tf.ones([ROWS], tf.int64)}
    upstream = FoundationModel(LAYOUT, sizes, EMBEDDINGS, seed=1)
    upstream(batch)
    randomize(upstream)
    expected = upstream(batch)
    batch["representations"] = tensors(stored())
    model = downstream(f"{METHOD} & module/warm_start/output", sizes)
    before = model(batch)
    assert model.extra_width == DIM + 1
    warm_start(upstream, model, "output", {1: 1.0})
    assert np.abs(before - expected).max() > 0.1
    assert_close(tf.sigmoid(model(batch)), tf.sigmoid(expected), terms=64)
    with tf.GradientTape() as tape:
        loss = tf.add_n(list(model.loss_terms(batch).values()))
    cross = next(m for m in model.backbone.block.submodules if m.name == "cross_1")
    own = len(model.backbone.stream_labels())
    gradient = tape.gradient(loss, cross.dense.kernel)
    joined, both = slice(own, own + DIM + 1), slice(0, own)  # what only it has, and what both have
    assert not np.any(cross.dense.kernel[joined, both])
    assert np.all(np.any(gradient[joined, both], axis=1))  # what reads token and flag leaves zero


def run_of(upstream: dict[str, Any] | None = None, **downstream: Any) -> Any:
    raw = {"upstream": upstream or {}, "downstream": downstream}
    config = parse(RunConfig, raw, source="run")
    return SimpleNamespace(
        config=config, spec=SimpleNamespace(features={}, task_names=["click", "buy"])
    )


DIRECT = {"cross": {"direct": True}}
UNEQUAL = "A direct cross multiplies representations of one width.\n"


class DotUpstream(FoundationModel):
    """An upstream that says that it has a loss of <UR, IR>."""

    @classmethod
    def dot_product_pairs(cls, config: UpstreamConfig) -> list[tuple[str, str]]:
        return [("UR", "IR")]


def test_a_direct_cross_is_for_one_dot_product_space() -> None:
    with pytest.raises(UserError) as refused:
        read_method(run_of(adapter_options=DIRECT), "feature/cross/UR+IR")
    assert "not trained as one dot-product space" in str(refused.value)
    assert "pairs that 'foundation' trains as one space: none" in str(refused.value)
    with UPSTREAMS.added("dot", DotUpstream):
        run = run_of({"model": "dot"}, adapter_options=DIRECT, token_dim=DIM)
        with pytest.raises(UserError, match="'dot' trains as one space: UR\\+IR"):
            read_method(run, "feature/cross/CR_user@cross_1+CR_item@cross_1")
        method = read_method(run, "feature/cross/UR+IR")
        read_method(run, "feature/cross/IR+UR")
        model = build.downstream(LAYOUT, run.config, method, {"UR": 4, "IR": 4}, seed=1)
        assert [v.shape.as_list() for v in model.adapters[0].weights] == [[4, DIM]]
        with pytest.raises(UserError, match=f"^{UNEQUAL}"):
            build.downstream(LAYOUT, run.config, method, {"UR": 4, "IR": 3}, seed=1)
    with pytest.raises(UserError, match=f"^{UNEQUAL}"):
        CrossAdapter(SOURCES, dim=DIM, width=None)(tensors(stored(item=3)), width=1)


def test_no_upstream_of_the_package_claims_one_space() -> None:
    """All have an interaction block, experts or projections between their towers and a loss."""
    claims = [name for name in UPSTREAMS if isinstance(UPSTREAMS[name], DotProductUpstream)]
    assert not claims and isinstance(DotUpstream, DotProductUpstream)


@pytest.mark.parametrize(
    "sources", ["UR", "IR", "UR+CR_user@cross_1", "IR+CR_item@cross_1", "UR+IR+CR_item@cross_1"]
)
def test_it_reads_one_of_each_side(sources: str) -> None:
    message = "multiplies two representations, one of the user and one of the item"
    with pytest.raises(UserError, match=message) as refused:
        read_method(run_of(), f"feature/cross/{sources}")
    assert f"Received: {sources}" in str(refused.value)
    if sources.count("+") != 1:
        with pytest.raises(UserError, match=message):
            CrossAdapter(sources.split("+"), dim=DIM, width=WIDTH)


def test_options_and_their_defaults() -> None:
    run = run_of(adapter_units=[7, 6])
    method = read_method(run, "feature/cross/UR+IR")
    assert method.widens and method.sources == ["UR", "IR"]
    (adapter,) = method.adapters(run.config.downstream, 0)
    adapter({name: tf.ones([2, 4]) for name in ("UR", "IR")}, width=1)
    assert [v.shape.as_list() for v in adapter.weights] == [[3, 7], [3, 7], [7, 6]]
    with pytest.raises(UserError, match="direct: nothing is projected to a width"):
        run_of(adapter_options={"cross": {"direct": True, "width": 3}})
    zero = run_of(adapter_zero_init=True)
    for name, starts_at_zero in (("", True), (" & module/warm_start/towers", False)):
        method = read_method(zero, f"feature/cross/UR+IR{name}")
        (adapter,) = method.adapters(zero.config.downstream, 0)
        token = adapter({name: tf.ones([2, 4]) for name in ("UR", "IR")}, width=1).tokens[0]
        assert np.any(token) != starts_at_zero


def test_a_sweep_takes_it_for_both_sides() -> None:
    options = SweepOptions("feature", "towers", "cross", sides="both")
    names = [c.method.name for c in sweep_candidates(run_of(), options)]
    assert "feature/cross/CR_user@towers+CR_item@towers" in names
    with pytest.raises(UserError, match="in a sweep, --sides both"):
        sweep_candidates(run_of(), SweepOptions("feature", "towers", "cross"))
