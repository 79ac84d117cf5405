"""What rounding alone may make of a model's outputs, measured on the model's own arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.export.verify_child import EPS, ROUNDINGS, allowed_difference

_DRAWS = 4
_STEP = 2.0**-12  # far above float32's rounding, far below what bends a model
_SAFETY = 32
"""How many roundings each term stands for. A sum of n products, summed one after the other, is off
as if each product were changed by 0.2 sqrt(n) EPS (its partial sums are a random walk): by 6 EPS at
1,000 terms, and four deviations of that are 26. Sums in vector lanes and blocks lose less."""

Change = Callable[[Any], Any]
"""Changes each number of a tensor by `_STEP` of itself, up or down."""


@dataclass(frozen=True)
class Rounding:
    """How far two float32 computations of one output may be apart.

    Attributes:
        of: `logit` where the output is its sigmoid, `value` else.
        bound: What the logit, or the value, may differ.
    """

    of: Literal["logit", "value"]
    bound: float = 0.0

    def allowed(self, expected: np.ndarray) -> np.ndarray:
        """What each value may differ, of the shape of `expected`; see `allowed_difference`."""
        return allowed_difference(expected, self.bound, self.of)


def rounding_bound(
    outputs: Callable[[Change], np.ndarray],
    variables: Iterable[tf.Variable],
    embeddings: Sequence[Any] = (),
) -> float:
    """How far rounding may move a model's outputs.

    A float32 sum of products equals the exact sum of products that are changed by a few EPS of
    themselves each (backward error), so it is off by a few EPS times the root of the sum of its
    squared terms, however much they cancel; what follows in the model passes that on. Both are
    measured at once: all weights, embedded values and inputs are changed by +-delta of themselves
    at random, R times.

        bound = SAFETY EPS max_o sqrt(1/R sum_r (f_o(w (1 + delta s_r)) - f_o(w))^2) / delta

    Args:
        outputs: Gives the outputs; what it is fed passes the change that it is given.
        variables: The model's dense weights; they are as before afterwards.
        embeddings: Its embedding layers; what they give is changed, not their tables.

    Returns:
        The largest over all outputs, in their unit.

    Source: Higham, Accuracy and Stability of Numerical Algorithms, 3.1; the random signs are
    those of Monte Carlo arithmetic (Parker, 1997).
    """
    held = [(v, v.numpy()) for v in variables if v.dtype.is_floating]
    exact = outputs(lambda values: values).astype(np.float64)
    total = np.zeros_like(exact)
    for draw in range(_DRAWS):
        rng = np.random.default_rng([11, draw])

        def change(values: Any, rng: np.random.Generator = rng) -> Any:
            signs = rng.integers(0, 2, tuple(np.shape(values))) * 2 - 1
            return values * (1.0 + _STEP * signs).astype(np.float32)

        try:
            for variable, value in held:
                variable.assign(change(value).astype(value.dtype))
            with _changed_outputs(embeddings, change):
                moved = outputs(change).astype(np.float64)
        finally:
            for variable, value in held:
                variable.assign(value)
        apart = np.where(np.isfinite(exact), moved - exact, 0.0)  # -inf pads a list of items
        total += (apart / _STEP) ** 2
    return float(_SAFETY * EPS * np.sqrt(total.max(initial=0.0) / _DRAWS))


def score_limit(contract: Mapping[str, Any], task: str, expected: np.ndarray) -> np.ndarray:
    """What served probabilities may differ from those of the run.

    Args:
        contract: `contract.json` of the export.
        task: The task.
        expected: The run's probabilities.

    Returns:
        What rounding allows, and what smaller tables may change: 4 tolerances in log odds, see
        `Evaluation`; of the shape of `expected`.
    """
    told = contract["rounding"][task]
    moved = 4 * float(contract["tolerance"])
    p = expected.astype(np.float64)
    rounding_limit = Rounding(told["of"], float(told["bound"])).allowed(expected)
    return np.asarray(rounding_limit + moved * np.exp(moved) * p * (1 - p))


def encoded_rounding(shift: float) -> Rounding:
    """Rounding of a standardised number x' = (x - m) / d, one difference and one product.

        |x| / d <= |x'| + |m| / d

    Args:
        shift: |m| / d; 0 where the number is not standardised.
    """
    return Rounding("value", 2 * ROUNDINGS * EPS * shift)


def changed_batch(batch: EncodedBatch, change: Change) -> EncodedBatch:
    """A batch whose numbers and stored representations are changed; its ids are not."""
    stored = batch.get("representations", {})
    return {
        **batch,
        "dense": change(batch["dense"]),
        "representations": {
            # the last column flags presence
            name: tf.concat([change(values[:, :-1]), values[:, -1:]], axis=1)
            for name, values in stored.items()
        },
    }


@contextmanager
def _changed_outputs(layers: Sequence[Any], change: Change) -> Iterator[None]:
    """Embedding layers whose outputs are changed."""

    def changed(call: Any) -> Any:
        return lambda *arguments, **more: {
            d: change(v) for d, v in call(*arguments, **more).items()
        }

    for layer in layers:
        layer.__dict__["call"] = changed(layer.call)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["call"]
