"""Time-decayed aggregation of sample-level representations per key."""

from __future__ import annotations

import numpy as np

_EPSILON = 1e-6


class DecayedSum:
    """Mergeable state (S, W, t) per key: a sum of vectors that fades with time.

        S(t) = sum_n 2^(-(t - t_n) / h) v_n,    W(t) = sum_n 2^(-(t - t_n) / h)

    An update with any set of events, in any order, gives the state that all events together
    give, since every term is decayed from its own time to the latest.

    Args:
        keys: Number of keys K.
        dim: Width d of the vectors.
        half_life: h, in the unit of the times.

    Source: LFM4Ads (arXiv 2508.14948), time-interval decaying aggregation of CR.
    """

    def __init__(self, keys: int, dim: int, half_life: float) -> None:
        self.half_life = half_life
        self.sum = np.zeros((keys, dim), np.float64)
        self.weight = np.zeros(keys, np.float64)
        self.time = np.full(keys, -np.inf)

    def update(self, key: np.ndarray, values: np.ndarray, time: np.ndarray) -> None:
        """Adds events.

        Args:
            key: Key of each event, (N,) integer.
            values: v, (N, d).
            time: t, (N,).
        """
        if not len(key):
            return
        order = np.argsort(key, kind="stable")
        key, values, time = key[order], values[order], time[order]
        starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
        touched = key[starts]
        latest = np.maximum(np.maximum.reduceat(time, starts), self.time[touched])
        lengths = np.diff(np.append(starts, len(key)))
        fade = self._fade(np.repeat(latest, lengths) - time)
        self._advance(touched, latest)
        self.sum[touched] += np.add.reduceat(values * fade[:, None], starts, axis=0)  # (K', d)
        self.weight[touched] += np.add.reduceat(fade, starts)

    def merge(self, other: DecayedSum) -> None:
        """Adds the events of another state over the same keys."""
        latest = np.maximum(self.time, other.time)
        seen = np.flatnonzero(np.isfinite(latest))
        self._advance(seen, latest[seen])
        fade = self._fade(latest[seen] - other.time[seen])
        self.sum[seen] += other.sum[seen] * fade[:, None]  # (K', d)
        self.weight[seen] += other.weight[seen] * fade

    def read(self, keys: np.ndarray, *, layer_norm: bool) -> np.ndarray:
        """The aggregate S / W of some keys, layer-normalised over its channels on request.

        Returns:
            (len(keys), d) float32; zeros for a key without events.
        """
        weight = self.weight[keys]
        mean = self.sum[keys] / np.where(weight > 0, weight, 1.0)[:, None]  # (K', d)
        if layer_norm:
            centred = mean - mean.mean(axis=1, keepdims=True)
            mean = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + _EPSILON)
        return mean.astype(np.float32)

    def _advance(self, keys: np.ndarray, to: np.ndarray) -> None:
        """Decays the state of some keys to a later time."""
        fade = self._fade(to - self.time[keys])
        self.sum[keys] *= fade[:, None]
        self.weight[keys] *= fade
        self.time[keys] = to

    def _fade(self, age: np.ndarray) -> np.ndarray:
        """2^(-age / h); a key without events has nothing to fade."""
        known = np.isfinite(age)
        return np.where(known, np.exp2(-np.where(known, age, 0.0) / self.half_life), 0.0)
