"""All that is told of the tokens of a model's layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lfm4ads_tf.diagnostics.correlation import pair_mean, token_correlations
from lfm4ads_tf.diagnostics.mutual_information import (
    CLUSTERS,
    label_information,
    pair_informations,
    token_codes,
)
from lfm4ads_tf.diagnostics.rank import sample_eranks, token_ranks
from lfm4ads_tf.interactions.observed_tokens import ObservedTokens

_PAIRS = ("mutual_information", "mutual_information_shuffled")
_TOLD = (
    *(f"{name}{end}" for end in ("", "_share") for name in ("erank", "centred", "stable")),
    *("token_erank", "token_erank_share", "correlation", *_PAIRS),
)
"""Numbers of a place, in order."""
_DIGITS = 4  # of the many numbers of single tokens and pairs

_Place = tuple[tf.Tensor, ObservedTokens]
"""Values (N, B, D) of the tokens at a place, and what they are."""


def token_entries(
    observed: Mapping[str, ObservedTokens], labels: Mapping[str, NDArray[Any]], *, seed: int
) -> list[dict[str, Any]]:
    """What the tokens of a sample tell, layer by layer.

    Args:
        observed: `<layer>/<place>` -> its tokens, the places of a layer in order.
        labels: Task -> labels of the same rows (B,), NaN where unknown.
        seed: Seed of k-means and of shuffled rows.

    Returns:
        One entry per layer: `layer`, `rows` B, `width` D, `names` of the N tokens, and `places`,
        each with `place`; means over the rows of `token_ranks`; `token_eranks` (`sample_eranks`),
        their mean `token_erank` and that over min(B, D); `correlation`, the mean over the pairs
        of `token_correlations`, None where undefined. The first and the last place also hold
        `pairs`, the two matrices of `pair_informations`, and the means of both over the pairs,
        `mutual_information` and `mutual_information_shuffled`, None with one token. `tasks` is
        `label_information` of each task's token at the last place, with the task as `task`.
        Nothing is told of a model that holds a number which is not finite.
    """
    layers: dict[str, dict[str, _Place]] = {}
    for name, tokens in observed.items():
        layer, _, place = name.rpartition("/")
        values = tf.cast(tokens.values, tf.float32)
        if not tf.reduce_all(tf.math.is_finite(values)):
            return []
        layers.setdefault(layer, {})[place] = (values, tokens)
    return [_entry(layer, places, labels, seed) for layer, places in layers.items()]


def token_numbers(entries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The single numbers of `token_entries`, without those that are undefined.

    Returns:
        `<layer>/<place>/<name>`, and `<layer>/task_<task>/<name>` -> number.
    """
    numbers = {}
    for entry in entries:
        for place in entry["places"]:
            for name in _TOLD:
                if place.get(name) is not None:
                    numbers[f"{entry['layer']}/{place['place']}/{name}"] = place[name]
        for task in entry["tasks"]:
            for name in _PAIRS:
                numbers[f"{entry['layer']}/task_{task['task']}/{name}"] = task[name]
    return numbers


def erank_line(entry: Mapping[str, Any]) -> str:
    """The effective ranks of a layer in a line: `D / N 64 / 16, tokens 0.42 -> mix_1 0.55`.

    With as many heads as tokens mixing lifts a collapsed input to D / N dimensions at most.
    """
    ranks = " -> ".join(f"{p['place']} {p['erank_share']:.2f}" for p in entry["places"])
    return f"D / N {entry['width']} / {len(entry['names'])}, {ranks}"


def _entry(
    layer: str,
    places: Mapping[str, _Place],
    labels: Mapping[str, NDArray[Any]],
    seed: int,
) -> dict[str, Any]:
    told, tasks = [], []
    for k, (place, (values, tokens)) in enumerate(places.items()):
        found = {"place": place, **_alone(values)}
        last = k == len(places) - 1
        if last or not k:
            codes = token_codes(values, seed=seed)
            found |= _pairs(codes, seed)
        if last:
            of_tasks = codes[len(codes) - len(tokens.tasks) :]
            tasks = [
                {"task": task, **label_information(code, labels[task], seed=seed)}
                for task, code in zip(tokens.tasks, of_tasks, strict=True)
            ]
        told.append(found)
    return {
        "layer": layer,
        "rows": values.shape[1],
        "width": values.shape[2],
        "names": list(tokens.names),
        "clusters": CLUSTERS,
        "places": told,
        "tasks": tasks,
    }


def _alone(values: tf.Tensor) -> dict[str, Any]:
    """Numbers of one place's tokens (N, B, D)."""
    eranks = sample_eranks(values)
    return {
        **{name: float(of_rows.mean()) for name, of_rows in token_ranks(values).items()},
        "token_erank": float(eranks.mean()),
        "token_erank_share": float(eranks.mean()) / min(values.shape[1:]),
        "token_eranks": eranks.round(_DIGITS).tolist(),
        "correlation": pair_mean(token_correlations(values)),
    }


def _pairs(codes: NDArray[np.int64], seed: int) -> dict[str, Any]:
    """Mutual information between tokens of codes (N, B)."""
    matrices = dict(zip(_PAIRS, pair_informations(codes, seed=seed), strict=True))
    return {
        **{name: pair_mean(matrix) for name, matrix in matrices.items()},
        "pairs": {name: matrix.round(_DIGITS).tolist() for name, matrix in matrices.items()},
    }
