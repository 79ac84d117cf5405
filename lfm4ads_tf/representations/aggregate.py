"""Aggregated vectors of keys, kept as a state that events and other states are added to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lfm4ads_tf.representations.aggregations.aggregation import Aggregation, Fold
from lfm4ads_tf.representations.aggregations.event_groups import EventGroups
from lfm4ads_tf.representations.key_sums import KeySums

_EPSILON = 1e-6


class Aggregate:
    """State (S, W, mark) of every key; S holds a vector per layer.

        S = sum_n w_n v_n,   W = sum_n w_n

    The weights w are the aggregation's. Merging the states of partial logs gives the state of the
    whole log, see the aggregation for the orders in which. S is kept as float32, W and the mark
    as float64.

    Args:
        aggregation: The weights.
        keys: Number of keys K.

    Attributes:
        sums: Layer -> S, (K, d) float32.
        weight: W, (K,).
        mark: What the aggregation needs to add further events, (K,).
    """

    def __init__(self, aggregation: Aggregation, keys: int) -> None:
        self.aggregation = aggregation
        self.sums: dict[str, np.ndarray] = {}
        self.weight = np.zeros(keys, np.float64)
        self.mark = np.full(keys, aggregation.empty)

    def begin(self, events: EventGroups, time: np.ndarray) -> Fold:
        """Makes the states ready for events, whose vectors follow by `add` in any portions.

        Args:
            events: The events, in time order.
            time: Their times, (N,).
        """
        keys = events.keys
        fold = self.aggregation.fold(self.mark[keys], events, time)
        total = np.bincount(events.index, fold.weight, minlength=len(keys))
        self.weight[keys] = self.weight[keys] * fold.fade + total
        self.mark[keys] = fold.mark
        if (fold.fade != 1).any():
            for layer in self.sums.values():
                layer[keys] *= fold.fade[:, None].astype(np.float32)  # (K', d)
        return fold

    def add(self, layer: str, events: KeySums, values: np.ndarray) -> None:
        """Adds weighted vectors.

        Args:
            layer: Name of the layer.
            events: The vectors' keys and weights.
            values: Vectors, (N, d) float32.
        """
        if layer not in self.sums:
            self.sums[layer] = np.zeros((len(self.weight), values.shape[1]), np.float32)
        events.add_to(self.sums[layer], values)  # (K, d)

    def update(self, key: np.ndarray, values: Mapping[str, np.ndarray], time: np.ndarray) -> None:
        """Adds events at once.

        Args:
            key: Key of each event, (N,) integer.
            values: Layer -> vectors, (N, d).
            time: (N,).
        """
        events = EventGroups(key)
        fold = self.begin(events, time)
        summed = KeySums(key, fold.weight)
        for layer, vectors in values.items():
            self.add(layer, summed, np.asarray(vectors, np.float32))

    def merge(self, other: Aggregate) -> None:
        """Adds the events of another state over the same keys."""
        our_factor, their_factor, mark = self.aggregation.join(self.mark, other.mark)
        for layer, values in other.sums.items():
            mine = self.sums.setdefault(layer, np.zeros_like(values))
            mine *= our_factor[:, None].astype(np.float32)
            mine += values * their_factor[:, None].astype(np.float32)  # (K, d)
        for layer in self.sums.keys() - other.sums.keys():
            self.sums[layer] *= our_factor[:, None].astype(np.float32)
        self.weight = self.weight * our_factor + other.weight * their_factor
        self.mark = mark

    def read(self, layer: str, keys: np.ndarray, *, layer_norm: bool) -> np.ndarray:
        """The aggregate of some keys: S / W, layer-normalised over its channels on request.

        Returns:
            (len(keys), d) float32; zeros for a key without events.
        """
        values = self.sums[layer][keys]  # (K', d)
        if not (layer_norm and self.aggregation.normed_sum):
            weight = self.weight[keys]
            values /= np.where(weight > 0, weight, 1.0)[:, None].astype(np.float32)
        if layer_norm:
            values -= values.mean(axis=1, keepdims=True)
            variance = np.einsum("kd,kd->k", values, values) / values.shape[1]
            values /= np.sqrt(variance + _EPSILON)[:, None]
        return values
