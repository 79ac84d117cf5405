"""What is trained on, in which order: the phases of a training run."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.seeding import derive
from lfm4ads_tf.training.config import TrainingConfig


@dataclass(frozen=True)
class Phase:
    """One pass over some rows.

    Attributes:
        name: Unique within the schedule; the shuffle depends on it.
        rows: Rows in time order.
        validate: Whether validation follows it.
        snapshot: Period from which on a snapshot taken after it is valid; None for no snapshot.
        rate: Factor of the learning rates.
        watch: Rows that the weights after it are scored on for the curve in TensorBoard and report:
            rows that are not learnt yet. They decide nothing.
    """

    name: str
    rows: np.ndarray
    validate: bool = False
    snapshot: int | None = None
    rate: float = 1.0
    watch: np.ndarray | None = None

    def order(self, seed: int, shuffle: bool, window: int | None = None) -> np.ndarray:
        """Rows in the order of training, a function of the arguments and the phase alone.

        Args:
            seed: Seed of the run.
            shuffle: Whether rows are shuffled; time order otherwise.
            window: Shuffles inside each stretch of this many consecutive rows instead of over the
                whole phase, so that a log larger than memory is read from front to back.

        Returns:
            (M,), a permutation of `rows`.
        """
        if not shuffle:
            return self.rows
        draw = np.random.default_rng(derive(seed, self.name))
        if window is None or window >= len(self.rows):
            return draw.permutation(self.rows)
        order = self.rows.copy()
        for start in range(0, len(order), window):
            draw.shuffle(order[start : start + window])
        return order


def epochs(config: TrainingConfig, rows: np.ndarray) -> list[Phase]:
    """Epochs over all rows, each validated."""
    return [Phase(f"epoch_{k}", rows, validate=True) for k in range(1, config.epochs + 1)]


def chain(config: TrainingConfig, cache: EncodedCache) -> list[Phase]:
    """Auxiliary rows, the periods in time order with their replay, then the final passes.

    The snapshot after period d - 1 has seen no row of period d or later. The first snapshot, valid
    from the first period on, comes after the auxiliary rows; there is none without them. The last
    one, valid from the first held-out period on, comes after the final passes.

    Every period is watched by the snapshot before it, validation rows by the last one.
    """
    phases: list[Phase] = []
    rows, valid = cache.train_rows, cache.rows_of("valid")
    period = cache.period[rows]
    values = np.unique(period)
    if len(cache.auxiliary_rows) and config.auxiliary_passes:
        phases += _passes(
            "auxiliary",
            cache.auxiliary_rows,
            config.auxiliary_passes,
            snapshot=cache.first_period,
            watch=rows[period == values[0]],
        )
    for k, value in enumerate(values):
        last = k == len(values) - 1
        phases += _passes(
            f"period_{value}",
            rows[np.isin(period, values[max(0, k - config.replay) : k + 1])],
            config.passes,
            snapshot=None if last and config.final_passes else int(value) + 1,
            watch=valid if last else rows[period == values[k + 1]],
        )
    for k in range(config.final_passes):
        phase = final_pass(config, rows, k)
        snapshot = int(values[-1]) + 1 if k == config.final_passes - 1 else None
        phases.append(replace(phase, snapshot=snapshot, watch=valid))
    return phases


def walk(config: TrainingConfig, rows: np.ndarray, period: np.ndarray) -> list[Phase]:
    """The chain's steps over some rows (M,) of some periods (M,), without snapshots."""
    values = np.unique(period)
    phases: list[Phase] = []
    for k, value in enumerate(values):
        window_rows = rows[np.isin(period, values[max(0, k - config.replay) : k + 1])]
        phases += _passes(f"period_{value}", window_rows, config.passes)
    return phases


def final_pass(config: TrainingConfig, rows: np.ndarray, k: int) -> Phase:
    """The k-th pass over all rows after the chain, from 0 on."""
    return Phase(f"final_{k + 1}", rows, rate=config.final_decay ** (k + 1))


def continuation(config: TrainingConfig, cache: EncodedCache, first: int) -> list[Phase]:
    """The chain's steps over the periods from one on, held-out rows included.

    Rows of scenarios that the model has no head for are left out.
    """
    rows = np.flatnonzero((cache.period >= 0) & (cache.scenario >= 0))
    period = cache.period[rows]
    values = np.unique(period)
    phases: list[Phase] = []
    for k in np.flatnonzero(values >= first):
        window = values[max(0, k - config.replay) : k + 1]
        window_rows = rows[np.isin(period, window)]
        phases += _passes(
            f"period_{values[k]}", window_rows, config.passes, snapshot=int(values[k]) + 1
        )
    return phases


def _passes(
    name: str,
    rows: np.ndarray,
    count: int,
    *,
    snapshot: int | None = None,
    watch: np.ndarray | None = None,
) -> list[Phase]:
    last = count - 1
    return [
        Phase(
            f"{name}_pass_{k}",
            rows,
            snapshot=snapshot if k == last else None,
            watch=watch if k == last else None,
        )
        for k in range(count)
    ]
