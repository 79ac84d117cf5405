"""One training loop for upstream, downstream and retrieval."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.execution import current
from lfm4ads_tf.data.input import RepresentationJoin, batches
from lfm4ads_tf.embeddings.table import ShardedEmbedding
from lfm4ads_tf.optim.gradient_registry import released_gradients
from lfm4ads_tf.optim.loss_sums import LossSums
from lfm4ads_tf.optim.model_optimizers import ModelOptimizers
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.optim.step import StepLosses, step_of
from lfm4ads_tf.progress import Progress
from lfm4ads_tf.training.checkpoints import TrainingCheckpoint, write_weights
from lfm4ads_tf.training.config import TrainingConfig
from lfm4ads_tf.training.divergence import Divergence
from lfm4ads_tf.training.row_weights import checked_weights
from lfm4ads_tf.training.schedule import Phase

_LOG = logging.getLogger(__name__)
START = "start"
"""Name of the weights before the first step among the validated phases."""
_SUMMARY_EVERY = 10  # steps between two points of the loss curve


@dataclass
class TrainingResult:
    """What a run of the trainer did.

    Attributes:
        history: One entry per validated phase: `phase`, `value`, `step`, and `losses`: name -> mean
            of a loss over the phase's batches; without `losses` before the first step, and in a
            phase that began in a version that did not keep them.
        curve: One entry per watched phase: `phase`, `value`, `step`, `rows`, and `losses` as above.
        best: Name of the phase whose weights the model holds; None without validation.
        steps: Optimizer steps, those before a resume included.
        examples_per_s: Training examples a second of this process, None when it trained nothing.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    best: str | None = None
    steps: int = 0
    examples_per_s: float | None = None


class Trainer:
    """Trains a model phase by phase; kills and restarts do not change the result.

    The checkpoint holds weights, optimizer slots and the data position (phase, batch). A phase's
    order depends only on the seed and the phase, so a resumed run reads the rows that an
    uninterrupted one would.

    Args:
        model: The model; its tables are found through `embeddings`.
        embeddings: The model's sharded tables.
        objective: The losses and their optimizers.
        cache: The encoded cache.
        config: Batch size, optimizer, stopping rule.
        seed: Seed of the order of rows.
        label: Name of the run in messages.
        folder: Where checkpoint, best weights and snapshots go.
        tensorboard: Where the TensorBoard logs go.
        representations: Lookup of stored representations, None without transfer.
        validate: Returns the value to maximise; needed when a phase validates.
        validate_start: Whether the weights before the first step are validated too, as the phase
            `start`: copied weights may be better than what training makes of them.
        watch: Rows -> the value that a phase's watched rows have, None where it is undefined.
        observe: Gives named numbers for TensorBoard at the end of each phase that is validated or
            watched.
        row_weights: Factors of the losses of the cache's N rows, (N,) or (N, T) float32; None
            weights none. Validation is not weighted.
        quiet: Whether to hide the progress bar.

    Raises:
        UserError: The objective's optimizers do not fit the model, see `ModelOptimizers`; or the
            row weights do not fit the cache, or are negative or not finite.
    """

    def __init__(
        self,
        model: tf_keras.Model,
        embeddings: Sequence[ShardedEmbedding],
        objective: Objective,
        cache: EncodedCache,
        config: TrainingConfig,
        *,
        seed: int,
        label: str,
        folder: Path,
        tensorboard: Path,
        representations: RepresentationJoin | None = None,
        validate: Callable[[], float | None] | None = None,
        validate_start: bool = False,
        watch: Callable[[np.ndarray], float | None] | None = None,
        observe: Callable[[], Mapping[str, float]] | None = None,
        row_weights: np.ndarray | None = None,
        quiet: bool = False,
    ) -> None:
        self.model = model
        self.objective = objective
        self.cache = cache
        self.config = config
        self.seed = seed
        self.label = label
        self.folder = folder
        self.representations = representations
        self.validate = validate
        self.validate_start = validate_start
        self.watch = watch
        self.observe = observe
        self.quiet = quiet
        self.row_weights = None if row_weights is None else checked_weights(row_weights, cache)
        self.optimizers = ModelOptimizers(objective, model, embeddings)
        self._execution = current()
        self.checkpoint = TrainingCheckpoint(
            folder,
            model,
            self.optimizers,
            keep=config.keep_checkpoints,
            writes=self._execution.first,
        )
        self._sums = LossSums()
        self._sums_are_whole = True  # whether they hold every batch of the phase
        self._tensorboard = tensorboard
        self._step_function: Any = None
        self._surplus = 0  # steps of the optimizers beyond those of the phases

    def fit(self, phases: Sequence[Phase], resume_from: int | None = None) -> TrainingResult:
        """Trains the phases that the checkpoint has not finished.

        Args:
            phases: All phases in order.
            resume_from: Number of a kept checkpoint to go on from; None goes on from the latest.

        Raises:
            Divergence: The loss is not finite.
            UserError: There is no such checkpoint, or it cannot be restored.
        """
        with released_gradients():
            return self._fit(phases, resume_from)

    def _fit(self, phases: Sequence[Phase], resume_from: int | None) -> TrainingResult:
        position = self.checkpoint.restore(resume_from)
        if position.step:
            _LOG.info(
                "resumed %s at step %d (phase %s, batch %d)",
                self.label,
                position.step,
                phases[position.phase].name if position.phase < len(phases) else "end",
                position.batch,
            )
        self._surplus = self._made() - position.step
        finished = {START, *(phase.name for phase in phases[: position.phase])}
        result = TrainingResult(
            history=self.checkpoint.history(finished), curve=self.checkpoint.curve(finished)
        )
        result.steps = position.step
        seen, busy = 0, 0.0
        writer = tf.summary.create_noop_writer()
        if self._execution.first:
            writer = tf.summary.create_file_writer(str(self._tensorboard))
        total = sum(self._steps(p) for p in phases)
        with writer.as_default(), Progress(self.label, total, quiet=self.quiet) as progress:
            progress.advance(position.step)
            if self.validate_start and not result.history:
                self._validate(START, result, progress, 0)
                self.checkpoint.write_history(result.history)
            for index in range(position.phase, len(phases)):
                phase = phases[index]
                if self._stopped(result):
                    break
                start = position.batch if index == position.phase else 0
                before = position.losses if start else {}
                self._sums_are_whole = before is not None
                self._sums.start(before or {})
                began = time.perf_counter()
                result.steps = self._train_phase(phase, index, start, result.steps, progress)
                busy += time.perf_counter() - began
                seen += len(phase.rows) - start * self.config.batch_size
                self._finish_phase(phase, index, result, progress)
        writer.close()
        if seen:
            result.examples_per_s = seen / busy
        if result.history:
            result.best = max(result.history, key=lambda h: h["value"])["phase"]
            self._execution.wait()  # for who writes the best weights
            self.checkpoint.restore_best(result.best)
        return result

    def _train_phase(
        self, phase: Phase, index: int, start: int, step: int, progress: Progress
    ) -> int:
        """Trains one phase from a batch on; returns the step reached."""
        dataset = batches(
            self.cache,
            phase.order(self.seed, self.config.shuffle, self.config.shuffle_window),
            self.config.batch_size,
            start=start,
            representations=self.representations,
            window=self.config.shuffle_window,
            weights=self.row_weights,
        )
        self.optimizers.scale_rates(phase.rate)
        steps = self._execution.steps(self._compiled(dataset), dataset)
        losses: StepLosses | None = None
        batch, end, every = start, self._steps(phase), self.config.checkpoint_every
        while batch < end:
            count = min(end - batch, every - step % every)
            for finished in steps.take(count):
                losses = finished.losses
                earlier, step = step, step + finished.steps
                progress.advance(finished.steps)
                if step // _SUMMARY_EVERY > earlier // _SUMMARY_EVERY:
                    self._summarise(losses, step, phase)
            batch += count
            if step % every == 0 and losses is not None:
                self._wait(step)
                self._finite(losses, step, phase)
                losses_so_far = self._sums.values() if self._sums_are_whole else None
                self.checkpoint.save(index, batch, step, losses=losses_so_far)
        self._wait(step)
        if losses is not None:
            self._finite(losses, step, phase)
        return step

    def _wait(self, step: int) -> None:
        """Waits for all steps; tells of those that were made again, as when a worker was lost."""
        self._execution.wait()
        surplus = self._made() - step
        if surplus > self._surplus:
            again = surplus - self._surplus
            _LOG.warning("%s: %d batches up to step %d were learned twice", self.label, again, step)
        self._surplus = surplus

    def _made(self) -> int:
        """Steps that the optimizers made."""
        return max(int(o.iterations.numpy()) for o in self.optimizers.optimizers.values())

    def _finish_phase(
        self, phase: Phase, index: int, result: TrainingResult, progress: Progress
    ) -> None:
        """Snapshot, validation and checkpoint at the end of a phase."""
        if phase.snapshot is not None and self._execution.first:
            write_weights(self.model, self.folder / "snapshots" / str(phase.snapshot))
        if phase.validate:
            self._validate(phase.name, result, progress, self._steps(phase))
        if phase.watch is not None and len(phase.watch) and self.watch is not None:
            self._watch(phase, phase.watch, result, progress)
        observe = self.observe if self._execution.first else None
        if observe is not None and (phase.validate or phase.watch is not None):
            for name, number in observe().items():
                tf.summary.scalar(f"observed/{name}", number, step=result.steps)
        # Checkpoints at the end of short phases would cost more than the phases themselves.
        if phase.validate or phase.snapshot is not None or phase.watch is not None:
            self.checkpoint.save(index + 1, 0, result.steps, result.history, result.curve)

    def _validate(
        self, name: str, result: TrainingResult, progress: Progress, batches_of_phase: int
    ) -> None:
        """Validates and keeps the weights if they are the best so far."""
        value = None if self.validate is None else self._execution.agreed(self.validate)
        if value is None:
            return
        entry: dict[str, Any] = {"phase": name, "value": value, "step": result.steps}
        result.history.append(entry | self._mean_losses(batches_of_phase))
        entry = result.history[-1]
        tf.summary.scalar("valid/objective", value, step=result.steps)
        progress.note(f"valid {value:.4f}")
        # The first of equal values is the best one, here and in `fit`.
        if max(result.history, key=lambda h: h["value"]) is entry:
            self.checkpoint.save_best(name)

    def _mean_losses(self, batches_of_phase: int) -> dict[str, dict[str, float]]:
        """`losses`: the mean of each loss over a phase's batches, where all of them are known."""
        if not batches_of_phase or not self._sums_are_whole:
            return {}
        sums = self._sums.values()
        return {"losses": {name: total / batches_of_phase for name, total in sums.items()}}

    def _watch(
        self, phase: Phase, rows: np.ndarray, result: TrainingResult, progress: Progress
    ) -> None:
        """Adds a point to the curve of rows that are not learnt yet."""
        watch = self.watch
        value = None if watch is None else self._execution.agreed(lambda: watch(rows))
        if value is not None:
            entry = {"phase": phase.name, "value": value, "step": result.steps, "rows": len(rows)}
            result.curve.append(entry | self._mean_losses(self._steps(phase)))
            tf.summary.scalar("valid/unlearnt", value, step=result.steps)
            progress.note(f"next rows {value:.4f}")

    def _stopped(self, result: TrainingResult) -> bool:
        """Whether validation has not gained for `patience` phases."""
        values = [h["value"] for h in result.history if h["phase"] != START]
        if len(values) <= self.config.patience:
            return False
        recent = values[-self.config.patience :]
        return max(recent) <= max(values[: -self.config.patience]) + self.config.min_gain

    def _compiled(self, dataset: tf.data.Dataset) -> Any:
        """The training step, traced once for batches of any size."""
        if self._step_function is None:
            step = step_of(self.objective, self.optimizers, self.config.precision, self._sums)
            self._step_function = self._execution.compiled(step, dataset)
        return self._step_function

    def _summarise(self, losses: StepLosses, step: int, phase: Phase) -> None:
        """A point of the loss curve, and of each loss where there are several."""
        tf.summary.scalar("train/loss", self._finite(losses, step, phase), step=step)
        if len(losses.terms) > 1:
            for name, term in losses.terms.items():
                tf.summary.scalar(f"train/{name}", float(term), step=step)

    def _finite(self, losses: StepLosses, step: int, phase: Phase) -> float:
        """The loss as a number; weights that diverged reach no checkpoint and no snapshot."""
        value = float(losses.total)
        if not np.isfinite(value):
            poor = [name for name, term in losses.terms.items() if not np.isfinite(float(term))]
            raise Divergence(
                f"Training of {self.label} diverged at step {step}.",
                received=f"loss {value} in {phase.name}, of {', '.join(poor) or 'the sum alone'}",
                fix="lower the learning rates, or set clip_norm in the optimizer's configuration",
            )
        return value

    def _steps(self, phase: Phase) -> int:
        return -(-len(phase.rows) // self.config.batch_size)
