"""Makes the trials of a search: short trainings whose curve is read as it grows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tf_keras

from lfm4ads_tf.batch import read
from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.input import batches
from lfm4ads_tf.embeddings.table import ShardedEmbedding
from lfm4ads_tf.optim.gradient_registry import released_gradients
from lfm4ads_tf.optim.model_optimizers import ModelOptimizers
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.optim.step import training_step
from lfm4ads_tf.seeding import derive
from lfm4ads_tf.training.config import TrainingConfig
from lfm4ads_tf.training.schedule import Phase, final_pass, walk
from lfm4ads_tf.tuning.search import ScheduleKind
from lfm4ads_tf.tuning.settings import Settings


@dataclass(frozen=True)
class TrialModel:
    """A model at its initial weights, and how it is trained."""

    model: tf_keras.Model
    embeddings: Sequence[ShardedEmbedding]
    objective: Objective
    training: TrainingConfig


class Trials:
    """Makes trials on the rows before the held ones.

    Nothing is written: a trial is made again where it was killed. A model and its traced step are
    used again, from the same initial weights, for all settings that leave them as they are; a trial
    is thus what a process of its own would give.

    Args:
        cache: The encoded cache.
        rows: Training rows that are learnt, in time order.
        held: Later training rows, on which the curve is measured.
        auxiliary: Auxiliary rows, passed over first.
        seed: Seed of weights, order and of which users a fraction keeps.
        make: Settings -> a model for them.
        score: Model and rows -> the value to maximise, None where it has none.
    """

    def __init__(
        self,
        cache: EncodedCache,
        rows: np.ndarray,
        held: np.ndarray,
        auxiliary: np.ndarray,
        *,
        seed: int,
        make: Callable[[Settings], TrialModel],
        score: Callable[[tf_keras.Model, np.ndarray], float | None],
    ) -> None:
        self.cache, self.rows, self.held, self.auxiliary = cache, rows, held, auxiliary
        self._seed, self._make, self._score = seed, make, score
        self._last: tuple[tuple[float, ...], _Prepared] | None = None

    def __call__(self, settings: Settings, kind: ScheduleKind, fraction: float) -> Iterator[float]:
        """Values of the curve, see `Trial.values`."""
        prepared = self._prepared(settings)
        training = prepared.training(settings)
        rows, held, auxiliary = (
            self._some(r, fraction) for r in (self.rows, self.held, self.auxiliary)
        )
        for points in self._phases(training, kind, rows, auxiliary):
            with released_gradients():
                for phase in points:
                    order = phase.order(self._seed, training.shuffle, training.shuffle_window)
                    data = batches(
                        self.cache, order, training.batch_size, window=training.shuffle_window
                    )
                    prepared.train(data, settings, phase.rate)
            value = self._score(prepared.made.model, held)
            yield 0.0 if value is None or not np.isfinite(value) else value

    def release(self) -> None:
        """Lets go of the last model; another trial makes one anew."""
        self._last = None

    def _prepared(self, settings: Settings) -> _Prepared:
        """A model at its initial weights."""
        key = settings.of_the_step()
        if self._last is None or self._last[0] != key:
            self._last = None  # one model at a time
            self._last = (key, _Prepared(self._make(settings)))
        else:
            self._last[1].reset()
        return self._last[1]

    def _phases(
        self, training: TrainingConfig, kind: ScheduleKind, rows: np.ndarray, auxiliary: np.ndarray
    ) -> Iterator[list[Phase]]:
        """The phases before each point of the curve; a search ends them."""
        count = training.auxiliary_passes if len(auxiliary) else 0
        first = [Phase(f"auxiliary_{k}", auxiliary) for k in range(count)]
        if kind == "chain":
            first += walk(training, rows, self.cache.period[rows])
            yield first
            first = []
        k = 0
        while True:
            if kind == "chain":
                yield [final_pass(training, rows, k)]
            else:
                yield [*first, Phase(f"epoch_{k + 1}", rows)]
                first = []
            k += 1

    def _some(self, rows: np.ndarray, fraction: float) -> np.ndarray:
        """The rows of a fraction of the users, the same users for any rows and fraction above."""
        if fraction >= 1.0 or not len(rows):
            return rows
        draw = np.random.default_rng(derive(self._seed, "trial users"))
        kept = draw.random(int(self.cache.user.max()) + 1) < fraction
        return rows[kept[self.cache.user[rows]]]


class _Prepared:
    """A model with its optimizers, its traced step and all of their initial values."""

    def __init__(self, made: TrialModel) -> None:
        self.made = made
        self._optimizers = ModelOptimizers(made.objective, made.model, made.embeddings)
        self._step: Callable[[Any], Any] | None = None
        parts = [p for layer in made.embeddings for p in layer.all_parts()]
        known = {id(v): v for v in (*made.model.variables, *parts, *self._optimizers.variables)}
        self._variables = list(known.values())
        self._initial = [v.numpy() for v in self._variables]

    def training(self, settings: Settings) -> TrainingConfig:
        """How the model is trained with the settings."""
        names = ("batch_size", "passes", "replay", "final_passes", "final_decay")
        return self.made.training.model_copy(update={n: getattr(settings, n) for n in names})

    def reset(self) -> None:
        """Back to the initial values of weights, slots and counters."""
        for variable, value in zip(self._variables, self._initial, strict=True):
            variable.assign(value)

    def train(self, data: Any, settings: Settings, rate: float) -> None:
        """One pass."""
        if self._step is None:
            self._step = training_step(
                self.made.objective,
                self._optimizers,
                data.element_spec,
                self.made.training.precision,
            )
        self._optimizers.set_rates(
            settings.table_learning_rate * rate,
            settings.dense_learning_rate * rate,
            instead=self.made.training.optimizer,
        )
        for batch in read(data):
            self._step(batch)
