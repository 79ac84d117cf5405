"""torch-rechub's multi-task networks in NumPy, with the sum of each logit's terms' magnitudes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.peers.task_network import TaskNetwork

EPSILON = 1e-5
"""What batch norm adds to a variance; the default of torch, which torch-rechub keeps."""


@dataclass(frozen=True)
class Terms:
    """Numbers that are sums.

    Attributes:
        values: The numbers.
        magnitudes: What the absolute values of all their terms add up to, through all layers: the
            same network with absolute values of weights and activations. It bounds what roundings
            do, and grows with the layers.
        last: What the absolute values of the terms of the last sum add up to, |w| |u| + |c| of a
            logit w u + c: how large a number is before its terms cancel.
    """

    values: np.ndarray
    magnitudes: np.ndarray
    last: np.ndarray


class ReferenceNetwork:
    """One network with the weights of a torch module, in evaluation mode and in float64.

    Batch norm is computed as it is written, (W x + b - mean) / sqrt(var + eps) * gamma + beta, and
    nothing is folded. Magnitudes are of the layers as they are when it is folded; relu keeps a
    magnitude, and a gate's weights stand as they are: they are positive and add up to one.

    Args:
        network: The network.
        state: Name in the torch module's state -> values.
    """

    def __init__(self, network: TaskNetwork, state: Mapping[str, np.ndarray]) -> None:
        self._network = network
        self._state = {name: np.asarray(value, np.float64) for name, value in state.items()}

    def logits(self, ids: np.ndarray, numbers: np.ndarray) -> Terms:
        """Logits of all tasks, each (N, T); of esmm those of click and of conversion given click.

        Args:
            ids: (N, F), -1 for missing.
            numbers: (N, numbers).
        """
        network = self._network
        tables = [
            self._state[f"embedding.embed_dict.{name}.weight"] for name, _, _ in network.fields
        ]
        fields = [table[column + 1] for table, column in zip(tables, ids.T, strict=True)]
        x = np.concatenate([*fields, numbers], axis=1)
        per_task = getattr(self, f"_{network.model}")(Terms(x, np.abs(x), np.abs(x)))
        return Terms(
            np.concatenate([z.values for z in per_task], axis=1),
            np.concatenate([z.magnitudes for z in per_task], axis=1),
            np.concatenate([z.last for z in per_task], axis=1),
        )

    def _shared_bottom(self, x: Terms) -> list[Terms]:
        bottom = self._layers("bottom_mlp", x)
        return [self._tower(f"towers.{t}", bottom) for t in range(self._network.tasks)]

    def _mmoe(self, x: Terms) -> list[Terms]:
        outputs = [self._layers(f"experts.{e}", x) for e in range(self._network.experts)]
        return [
            self._tower(f"towers.{t}", self._mixed(f"gates.{t}", x, outputs))
            for t in range(self._network.tasks)
        ]

    def _ple(self, x: Terms) -> list[Terms]:
        network = self._network
        read = [x] * (network.tasks + 1)  # of each task, then of the shared experts
        for level in range(network.levels):
            name = f"cgc_layers.{level}"
            own = [
                [
                    self._layers(f"{name}.experts_specific.{t * network.own + k}", read[t])
                    for k in range(network.own)
                ]
                for t in range(network.tasks)
            ]
            shared = [
                self._layers(f"{name}.experts_shared.{k}", read[-1]) for k in range(network.shared)
            ]
            mixed = [
                self._mixed(f"{name}.gates_specific.{t}", read[t], own[t] + shared)
                for t in range(network.tasks)
            ]
            if level < network.levels - 1:
                every = [output for of_task in own for output in of_task] + shared
                mixed.append(self._mixed(f"{name}.gate_shared", read[-1], every))
            read = mixed
        return [self._tower(f"towers.{t}", read[t]) for t in range(network.tasks)]

    def _aitm(self, x: Terms) -> list[Terms]:
        network = self._network
        vectors = [self._layers(f"bottoms.{t}", x) for t in range(network.tasks)]
        for t in range(1, network.tasks):
            told = self._layers(f"info_gates.{t - 1}", vectors[t - 1])
            vectors[t] = self._attended(f"aits.{t - 1}", [vectors[t], told])
        return [self._tower(f"towers.{t}", vectors[t]) for t in range(network.tasks)]

    def _esmm(self, x: Terms) -> list[Terms]:
        return [self._tower("tower_ctr", x), self._tower("tower_cvr", x)]

    def _attended(self, name: str, read: list[Terms]) -> Terms:
        """The values of two vectors, each by its own product of query and key."""
        query, key, value = (
            [self._linear(f"{name}.{k}_layer", vector) for vector in read] for k in "qkv"
        )
        width = read[0].values.shape[1]
        scores = [
            (q.values * k.values).sum(axis=1) / np.sqrt(width)
            for q, k in zip(query, key, strict=True)
        ]
        return _mixture(np.stack(scores, axis=1), value)

    def _mixed(self, gate: str, read: Terms, outputs: list[Terms]) -> Terms:
        """The experts' outputs by a gate's softmax."""
        return _mixture(self._normed(f"{gate}.mlp.0", f"{gate}.mlp.1", read).values, outputs)

    def _tower(self, name: str, read: Terms) -> Terms:
        """Layers and one logit (N, 1)."""
        return self._linear(f"{name}.mlp.{4 * self._depth(name)}", self._layers(name, read))

    def _layers(self, name: str, read: Terms) -> Terms:
        """Linear layer, batch norm and relu, as often as the module has them."""
        for k in range(self._depth(name)):
            read = self._normed(f"{name}.mlp.{4 * k}", f"{name}.mlp.{4 * k + 1}", read)
            read = Terms(np.maximum(read.values, 0.0), read.magnitudes, read.last)
        return read

    def _depth(self, name: str) -> int:
        return sum(f"{name}.mlp.{4 * k + 1}.weight" in self._state for k in range(len(self._state)))

    def _normed(self, linear: str, norm: str, read: Terms) -> Terms:
        state = self._state
        plain = self._linear(linear, read)
        deviation = np.sqrt(state[f"{norm}.running_var"] + EPSILON)
        centred = (plain.values - state[f"{norm}.running_mean"]) / deviation
        factor = state[f"{norm}.weight"] / deviation
        weights = np.abs(factor[:, np.newaxis] * state[f"{linear}.weight"])  # (out, in)
        bias = factor * (state[f"{linear}.bias"] - state[f"{norm}.running_mean"])
        bias = np.abs(bias + state[f"{norm}.bias"])
        return Terms(
            centred * state[f"{norm}.weight"] + state[f"{norm}.bias"],
            read.magnitudes @ weights.T + bias,
            np.abs(read.values) @ weights.T + bias,
        )

    def _linear(self, name: str, read: Terms) -> Terms:
        weights = self._state[f"{name}.weight"]  # (out, in)
        bias = self._state.get(f"{name}.bias", np.zeros(len(weights)))
        return Terms(
            read.values @ weights.T + bias,
            read.magnitudes @ np.abs(weights).T + np.abs(bias),
            np.abs(read.values) @ np.abs(weights).T + np.abs(bias),
        )


def joint(logits: Terms) -> Terms:
    """esmm's logits (N, 2) with that of click and conversion in the place of the second.

        z_ab = -ln(exp(-z_a) + exp(-z_b) + exp(-z_a - z_b))

    Its derivatives by z_a and z_b lie in [0, 1], so the terms' magnitudes add up.
    """
    first, second = logits.values.T
    both = -np.logaddexp(np.logaddexp(-first, -second), -first - second)
    return Terms(
        np.stack([first, both], axis=1),
        np.cumsum(logits.magnitudes, axis=1),
        np.cumsum(logits.last, axis=1),
    )


def _mixture(scores: np.ndarray, outputs: list[Terms]) -> Terms:
    """sum_e softmax(scores (N, E))_e o_e, each o_e (N, h)."""
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)

    def mixed(parts: list[np.ndarray]) -> np.ndarray:
        found: np.ndarray = np.einsum("ne,enh->nh", weights, np.stack(parts))
        return found

    values = [o.values for o in outputs]
    magnitudes = [o.magnitudes for o in outputs]
    return Terms(mixed(values), mixed(magnitudes), mixed([np.abs(each) for each in values]))
