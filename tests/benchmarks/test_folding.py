"""torch-rechub's weights in our models, against its networks in NumPy; torch is not needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import peer_functions
from benchmarks.folding import folded
from benchmarks.peer_functions import BOUND, NETWORKS, compare, draw_rows, our_logits
from benchmarks.peers.task_network import MODELS, TaskNetwork, random_state
from benchmarks.reference_network import ReferenceNetwork, Terms, joint
from tests.rounding import assert_close

Shapes = dict[str, tuple[int, ...]]
ROWS = 64


def linear(name: str, below: int, above: int, *, bias: bool = True) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (above, below)}
    return shapes | ({f"{name}.bias": (above,)} if bias else {})


def layers(name: str, below: int, units: tuple[int, ...], *, logit: bool = False) -> Shapes:
    """Linear, batch norm, relu, dropout for each width, as torch names them."""
    shapes: Shapes = {}
    for k, above in enumerate(units):
        shapes |= linear(f"{name}.mlp.{4 * k}", below, above)
        norm = f"{name}.mlp.{4 * k + 1}"
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{part}"] = (above,)
        shapes[f"{norm}.num_batches_tracked"] = ()
        below = above
    return shapes | (linear(f"{name}.mlp.{4 * len(units)}", below, 1) if logit else {})


def shapes_of(network: TaskNetwork) -> Shapes:
    """What a state of the library's model holds."""
    width, h, tasks = len(network.columns), network.units[-1], range(network.tasks)
    found: Shapes = {
        f"embedding.embed_dict.{name}.weight": (rows + 1, network.dim)
        for name, _, rows in network.fields
    }
    if network.model == "esmm":
        units = (*network.units, *network.tower)
        names = ("tower_ctr", "tower_cvr")
        return found | {k: v for n in names for k, v in layers(n, width, units, logit=True).items()}
    for t in tasks:
        found |= layers(f"towers.{t}", h, network.tower, logit=True)
    if network.model == "shared_bottom":
        found |= layers("bottom_mlp", width, network.units)
    elif network.model == "mmoe":
        for e in range(network.experts):
            found |= layers(f"experts.{e}", width, network.units)
        for t in tasks:
            found |= layers(f"gates.{t}", width, (network.experts,))
    elif network.model == "ple":
        for level in range(network.levels):
            name, below = f"cgc_layers.{level}", h if level else width
            seen = network.own + network.shared
            every = network.tasks * network.own + network.shared
            for k in range(network.tasks * network.own):
                found |= layers(f"{name}.experts_specific.{k}", below, network.units)
            for k in range(network.shared):
                found |= layers(f"{name}.experts_shared.{k}", below, network.units)
            for t in tasks:
                found |= layers(f"{name}.gates_specific.{t}", below, (seen,))
            if level < network.levels - 1:
                found |= layers(f"{name}.gate_shared", below, (every,))
    else:
        for t in tasks:
            found |= layers(f"bottoms.{t}", width, network.units)
        for t in range(network.tasks - 1):
            found |= layers(f"info_gates.{t}", h, (h,))
            for part in "qkv":
                found |= linear(f"aits.{t}.{part}_layer", h, h, bias=False)
    return found


class Watched(dict[str, np.ndarray]):
    """A state that knows what was read of it."""

    def __init__(self, state: dict[str, np.ndarray]) -> None:
        super().__init__(state)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> np.ndarray:
        self.read.add(key)
        return super().__getitem__(key)


def cases() -> Iterator[Any]:
    for name, network in NETWORKS.items():
        yield pytest.param(network, id=name)
    yield pytest.param(replace(NETWORKS["ple"], levels=1, own=3, shared=1), id="ple of one level")
    yield pytest.param(replace(NETWORKS["mmoe"], tower=(), units=(9,)), id="mmoe without towers")
    yield pytest.param(replace(NETWORKS["aitm"], tasks=2, tower=(6, 5)), id="aitm of two tasks")
    context = (*NETWORKS["mmoe"].fields, ("hour", "context", 4))
    yield pytest.param(replace(NETWORKS["mmoe"], fields=context), id="mmoe with a context")


def longest(network: TaskNetwork) -> int:
    """Additions on the way from an input to a logit, see `tests.rounding`."""
    mixed = network.experts + network.tasks * network.own + network.shared
    level = 3 * sum(network.units) + mixed
    return len(network.columns) + network.levels * level + sum(network.tower) + 8


@pytest.mark.processor
@pytest.mark.parametrize("network", cases())
def test_our_model_with_folded_weights_is_the_network_with_batch_norm(
    network: TaskNetwork,
) -> None:
    state = Watched(random_state(shapes_of(network), seed=3))
    ids, numbers = draw_rows(network, ROWS, seed=4)
    options = {"output": "conditional"} if network.model == "esmm" else {}
    found = our_logits(network, state, ids, numbers, **options)
    unread = {name for name in state if name not in state.read}
    assert all(name.endswith("num_batches_tracked") for name in unread)
    oracle = ReferenceNetwork(network, state).logits(ids, numbers)
    assert found.shape == oracle.values.shape == (ROWS, network.tasks)
    compared = compare(network.model, found, oracle.values, oracle)
    assert compared.above == 0 and compared.allowed < 1e-3  # rows differ by more than it allows
    terms = longest(network)
    assert_close(found, oracle.values, terms=terms, magnitude=oracle.magnitudes)
    if network.model == "esmm":
        both = our_logits(network, state, ids, numbers, output="joint")
        expected = joint(oracle)
        assert_close(both, expected.values, terms=terms + 8, magnitude=expected.magnitudes)


@pytest.mark.processor
@pytest.mark.parametrize("model", ["mmoe", "ple", "aitm"])
def test_two_weights_of_one_shape_are_not_exchanged_unseen(model: str) -> None:
    network = NETWORKS[model]
    shapes = shapes_of(network)
    state = random_state(shapes, seed=5)
    pairs = {
        "mmoe": ("gates.0.mlp.0.weight", "gates.1.mlp.0.weight"),
        "ple": ("cgc_layers.1.gates_specific.0.mlp.0.weight",) * 2,
        "aitm": ("aits.0.q_layer.weight", "aits.0.v_layer.weight"),
    }
    first, second = pairs[model]
    changed = dict(state)
    if first == second:  # own experts in the place of the first shared ones
        changed[first] = np.roll(state[first], 1, axis=0)
    else:
        changed[first], changed[second] = state[second], state[first]
    ids, numbers = draw_rows(network, ROWS, seed=6)
    oracle = ReferenceNetwork(network, state).logits(ids, numbers)
    ours = our_logits(network, changed, ids, numbers)
    assert compare(model, ours, oracle.values, oracle).above == ROWS


@given(
    below=st.integers(1, 9),
    above=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=50, deadline=None)
def test_batch_norm_goes_into_the_layer_before_it(below: int, above: int, seed: int) -> None:
    state = random_state(layers("x", below, (above,)), seed)
    kernel, bias = folded(state, "x.mlp.0", "x.mlp.1")
    read = np.random.default_rng(seed).normal(size=(7, below))
    plain = read @ state["x.mlp.0.weight"].T + state["x.mlp.0.bias"]
    deviation = np.sqrt(state["x.mlp.1.running_var"] + 1e-5)
    factor = state["x.mlp.1.weight"] / deviation
    expected = factor * (plain - state["x.mlp.1.running_mean"]) + state["x.mlp.1.bias"]
    magnitude = np.abs(read) @ np.abs(kernel) + np.abs(state["x.mlp.1.bias"])
    magnitude += np.abs(factor) * (
        np.abs(state["x.mlp.0.bias"]) + np.abs(state["x.mlp.1.running_mean"])
    )
    room = (below + 8) * np.finfo(np.float64).eps * magnitude
    assert (np.abs(read @ kernel + bias - expected) <= room).all()


def test_a_layer_without_batch_norm_stays_as_it_is() -> None:
    state = random_state(linear("out", 4, 1), seed=0)
    kernel, bias = folded(state, "out")
    np.testing.assert_array_equal(kernel, state["out.weight"].T)
    np.testing.assert_array_equal(bias, state["out.bias"])


def test_networks_survive_json() -> None:
    assert set(NETWORKS) == set(MODELS)
    for network in NETWORKS.values():
        document = json.loads(json.dumps(network.to_json()))
        assert TaskNetwork.from_json(document) == network


def test_an_error_is_told_by_row() -> None:
    theirs = np.array([[1.0, 2.0], [3.0, -4.0], [0.5, 0.5]])
    last = np.array([[10.0, 2.0], [3.0, 4.0], [1.0, 1.0]])
    oracle = Terms(theirs, 4 * last, last)
    ours = theirs + [[5e-5, 0], [0, 1e-3], [0, 0]]
    found = compare("m", ours, theirs, oracle)
    assert (found.rows, found.above) == (3, 1)
    assert found.error == pytest.approx(1e-3 / 4)
    assert found.allowed == pytest.approx(1e-4 / theirs[:, 0].std())
    assert found.through == pytest.approx(1e-3 / 16)
    assert found.oracle == 0
    ours[2, 0] = np.nan  # no number is no agreement
    assert compare("m", ours, theirs, oracle).above == 2


def test_the_sum_of_magnitudes_bounds_what_roundings_do() -> None:
    """Weights that are all moved by a factor of at most 1 + e move no logit by more."""
    network = NETWORKS["shared_bottom"]
    state = random_state(shapes_of(network), seed=7)
    ids, numbers = draw_rows(network, ROWS, seed=8)
    oracle = ReferenceNetwork(network, state).logits(ids, numbers)
    rng, step = np.random.default_rng(9), 1e-6
    kept = ("running_var", "running_mean", "mlp.1.bias", "mlp.5.bias", "mlp.0.bias", "mlp.4.bias")
    moved = {
        name: value if name.endswith(kept) else value * (1 + step * rng.uniform(-1, 1, value.shape))
        for name, value in state.items()
    }
    # a linear layer's bias counts with the mean that is taken from it, so both stay
    found = ReferenceNetwork(network, moved).logits(ids, numbers).values
    depth = len(network.units) + len(network.tower)
    factors = 2 * depth + 2  # table, weight and gamma of each layer, and the output
    assert (np.abs(found - oracle.values) <= 1.01 * factors * step * oracle.magnitudes).all()
    assert np.abs(found - oracle.values).max() > 0


def test_exit_codes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert peer_functions.main(["--environments", str(tmp_path)]) == 2
    assert "python -m benchmarks.environments torch_rechub" in capsys.readouterr().err
    values = Terms(np.arange(8.0).reshape(4, 2), np.ones((4, 2)), np.ones((4, 2)))
    for moved, code in ((BOUND / 2, 0), (BOUND * 2, 1)):
        one = compare("mmoe", values.values + moved, values.values, values)
        monkeypatch.setattr(peer_functions, "run", lambda folder, one=one: [one])
        path = tmp_path / "new" / "functions.json"
        assert peer_functions.main(["--json", str(path)]) == code
        (function,) = json.loads(path.read_text("utf-8"))["functions"]
        assert function["name"] == "mmoe"
        assert function["above"] == 4 * code
    assert "mmoe" in capsys.readouterr().out
