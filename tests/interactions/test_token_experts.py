"""Several networks of each token, the routes to them, and what a mixer adds to the loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.interactions.config import BlockConfig
from lfm4ads_tf.interactions.mixer import Mixer
from lfm4ads_tf.interactions.mixer_block import MixerBlock
from lfm4ads_tf.interactions.mixer_config import MixerConfig
from lfm4ads_tf.interactions.token_correlation import token_correlation
from lfm4ads_tf.interactions.token_network import TokenNetwork
from lfm4ads_tf.strict import parse
from tests.diagnostics.test_rank import erank
from tests.interactions.test_mixer import (
    VARIANTS,
    B,
    Seen,
    inputs,
    mixer,
    np_block,
    np_tokens,
)
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

ROUTED = [options for options in VARIANTS if "experts" in options]


def np_correlation(x: np.ndarray) -> float:
    """Mean squared cosine over the pairs of different tokens of one row (N, D)."""
    unit = [token / np.linalg.norm(token) for token in x]
    pairs = [(m, n) for m in range(len(x)) for n in range(len(x)) if m != n]
    return float(np.mean([(unit[m] @ unit[n]) ** 2 for m, n in pairs]))


@pytest.mark.parametrize("options", [*ROUTED, {"norm": "pre"}])
def test_what_a_row_adds_to_the_loss(options: dict[str, Any]) -> None:
    weights = {"experts_l1": 0.5} if "experts" in options else {}
    layer, given_inputs = mixer(**options, **weights, decorrelation=3.0), inputs()
    plain = layer.interact(tf.zeros([B, 1]), given_inputs)
    *same, penalties = layer.interact_penalised(tf.zeros([B, 1]), given_inputs)
    for found, expected in zip(tf.nest.flatten(same), tf.nest.flatten(plain), strict=True):
        assert np.array_equal(found, expected)
    x, routes = np_tokens(layer, given_inputs), []
    for block in layer.blocks:
        x = np_block(x, block, routes)
    expected = [3.0 * np_correlation(row) for row in x]
    assert_close(penalties["decorrelation"], expected, terms=400)
    if not weights:
        assert list(penalties) == ["decorrelation"]
        return
    assert len(routes) == len(layer.blocks) * (2 if layer.config.norm == "revert" else 1)
    assert all((g == 0).any() and (g > 0).any() for g in routes)
    total = 0.5 * sum(g.sum(axis=(1, 2)) for g in routes)
    assert_close(penalties["experts_l1"], total, terms=400)
    active = [(g > 0) for g in routes]
    shares = layer.observed(tf.zeros([B, 1]), given_inputs)
    names = [n.removeprefix("routes/active_") for n in shares if n.startswith("routes/active_")]
    revert = ["mixed_network_1", "1", "mixed_network_2", "2"]
    assert names == (revert if layer.config.norm == "revert" else ["1", "2"])
    for name, g in zip(names, active, strict=True):
        assert_close(shares[f"routes/active_{name}"], g.mean(axis=(1, 2)), terms=4)
        assert_close(shares[f"routes/passed_{name}"], (~g.any(axis=2)).mean(axis=1), terms=4)
        silent = np.full(B, (~g.any(axis=0)).mean())
        assert_close(shares[f"routes/silent_{name}"], silent, terms=4)


@pytest.mark.parametrize("kind", ["gelu", "swiglu"])
def test_experts_start_open_and_as_large_as_one(kind: Any) -> None:
    """sum_j G_j^2 = 1 of independent networks."""
    tokens = tf.random.stateless_normal([3, 64, 32], [0, 1])
    seen: list[tf.Tensor] = []
    of_one = TokenNetwork(kind, 2, seed=1)(tokens).numpy().std()
    of_four = TokenNetwork(kind, 2, experts=4, seed=1)(tokens, routed=seen.append).numpy().std()
    assert of_four == pytest.approx(of_one, rel=0.15)
    (routes,) = seen
    assert routes.shape == (3, 64, 4) and routes.numpy().min() > 0
    assert routes.numpy().mean() == pytest.approx(0.5, rel=0.05)
    assert routes.numpy().std(axis=1).min() > 0.01  # rows differ from the first step on


@pytest.mark.parametrize("kind", ["gelu", "swiglu"])
def test_a_token_without_an_expert_passes_by_the_residual(kind: Any) -> None:
    block = MixerBlock(3, norm="pre", mixing="none", network=kind, experts=2, seed=1)
    tokens = tf.random.stateless_normal([3, 5, 6], [0, 1])
    block(tokens)
    for variable in block.network.variables:
        variable.assign(tf.random.stateless_normal(variable.shape, [1, 2]))
    closed = np.zeros((3, 1, 2), np.float32)
    closed[1] = -1e3
    block.network.router_bias.assign(closed)
    read = block.first_norm(tokens)
    made = block(tokens)
    assert np.array_equal(made[1], tokens[1] + read[1])
    assert not np.array_equal(made[0], tokens[0] + read[0])


def test_experts_and_routers_are_carried_over() -> None:
    layer, given_inputs = mixer(experts=2, norm="revert", heads=6), inputs()
    other = Mixer(layer.config, seed=5, name="mixer")
    other.interact(tf.zeros([B, 1]), given_inputs)
    layer.carry(other, ([], []), ["mixer_2"], Seen())
    assert len(layer.variables) == len(other.variables)
    for one, copy in zip(layer.variables, other.variables, strict=True):
        assert np.array_equal(one, copy), one.name


TOKENS = st.tuples(st.integers(2, 6), st.integers(1, 5), st.integers(0, 99))


@settings(max_examples=25, deadline=None)
@given(drawn=TOKENS, factor=st.floats(0.01, 100.0))
def test_laws_of_the_correlation_of_tokens(drawn: tuple[int, int, int], factor: float) -> None:
    count, width, seed = drawn
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 4, width))
    d = token_correlation(tf.constant(x)).numpy()
    room = 1e-12
    np.testing.assert_allclose(d, [np_correlation(x[:, b]) for b in range(4)], rtol=0, atol=room)
    assert (d >= 0).all() and (d <= 1 + room).all()
    assert (d >= (count - width) / (width * (count - 1)) - room).all()  # Welch
    lengths = rng.uniform(0.5, 2.0, size=(count, 1, 1)) * factor
    scaled = token_correlation(tf.constant(x * lengths * rng.choice([-1, 1], (count, 1, 1))))
    np.testing.assert_allclose(scaled, d, rtol=0, atol=room)
    moved = token_correlation(tf.constant(x[rng.permutation(count)]))
    np.testing.assert_allclose(moved, d, rtol=0, atol=room)
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    for b in range(4):
        q = np.linalg.svd(unit[:, b], compute_uv=False) ** 2 / count
        bound = count / (1 + (count - 1) * d[b])
        assert 1 / (q**2).sum() == pytest.approx(bound, rel=1e-9)
        assert erank(unit[:, b]) >= bound * (1 - 1e-9)


def test_equal_tokens_correlate_and_orthogonal_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(6, 6)))[0][:4, np.newaxis]  # (4, 1, 6)
    found = [
        float(token_correlation(tf.constant(x, tf.float64))[0])
        for x in (np.eye(4, 6)[:, np.newaxis], 3 * axes, np.repeat(axes[:1], 4, axis=0))
    ]
    assert found[0] == 0.0
    assert found[1:] == pytest.approx([0.0, 1.0], abs=1e-14)
    zero = token_correlation(tf.zeros([3, 1, 4]))
    assert np.array_equal(zero, [0.0])  # of no direction, and no NaN


def test_the_penalty_raises_the_effective_rank() -> None:
    rng = np.random.default_rng(1)
    start = rng.normal(size=(1, 3, 8)) + 0.3 * rng.normal(size=(6, 3, 8))  # nearly one line
    x = tf.Variable(start)
    for _ in range(100):
        with tf.GradientTape() as tape:
            d = tf.reduce_mean(token_correlation(x))
        x.assign_sub(5.0 * tape.gradient(d, x))
    before, after = (
        np.mean([erank(value[:, b]) for b in range(3)]) for value in (start, x.numpy())
    )
    assert after > 1.2 * before


def test_the_l1_of_routes_closes_some_and_still_learns() -> None:
    """Targets of one expert a row: which of four depends on the token's first two signs."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 256, 6)).astype(np.float32)
    maps = rng.normal(size=(4, 6, 6)).astype(np.float32) / np.sqrt(6)
    which = 2 * (x[..., 0] > 0) + (x[..., 1] > 0)
    target = np.tanh(np.einsum("nbd,nbde->nbe", x, maps[which]))

    def trained(weight: float) -> tuple[float, float]:
        """Share of active routes, and of the target's square that is not learnt."""
        network, seen = TokenNetwork("gelu", 2, experts=4, seed=3), []
        network(x)
        optimizer = tf_keras.optimizers.legacy.Adam(0.03)
        variables = network.trainable_variables

        @tf.function
        def step() -> tuple[tf.Tensor, tf.Tensor]:
            seen.clear()
            with tf.GradientTape() as tape:
                error = tf.reduce_mean(tf.square(network(x, routed=seen.append) - target))
                (routes,) = seen
                loss = error + weight * tf.reduce_mean(tf.reduce_sum(routes, axis=[0, 2]))
            gradients = tape.gradient(loss, variables)
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
            return tf.reduce_mean(tf.cast(routes > 0, tf.float32)), error

        for _ in range(60):
            active, error = step()
        return float(active), float(error) / float(np.mean(target**2))

    (free, without), (sparse, with_it) = trained(0.0), trained(0.1)
    assert sparse < 0.8 * free
    assert without < 0.5 and with_it < 0.5


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"experts": 0}, "experts"),
        ({"experts": 2, "experts_l1": -0.1}, "experts_l1"),
        ({"decorrelation": -1}, "decorrelation"),
    ],
)
def test_values_out_of_their_bounds_are_refused(options: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=f"layers.0.{key}: Input should be greater than or equal"):
        parse(BlockConfig, {"layers": [{"type": "mixer", **options}]}, source="block")


def test_the_keys_are_written_where_they_are_set() -> None:
    keys = {"experts", "experts_l1", "decorrelation"}
    assert not keys & MixerConfig().model_dump().keys()
    assert "name" not in MixerConfig().model_dump()
    set_ones = {"experts": 3, "experts_l1": 0.0, "decorrelation": 0.5}
    config = MixerConfig(**set_ones, name="mine")
    assert set_ones | {"name": "mine"} == {
        k: v for k, v in config.model_dump().items() if k in {*keys, "name"}
    }
    assert MixerConfig(**config.model_dump()) == config
    weights = [MixerConfig(experts=2), MixerConfig(experts=2, experts_l1=0.0), MixerConfig()]
    assert [each.routes_weight for each in weights] == [1e-3, 0.0, 0.0]
