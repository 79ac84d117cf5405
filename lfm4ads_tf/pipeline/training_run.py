"""The one way in which a stage's model is trained, scored and written."""

from __future__ import annotations

import abc
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lfm4ads_tf.files import write_arrays, write_json
from lfm4ads_tf.pipeline.learning_check import Entries, warn_unlearnt
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.stored_results import RESULTS
from lfm4ads_tf.training.checkpoints import write_weights
from lfm4ads_tf.training.schedule import Phase
from lfm4ads_tf.training.trainer import Trainer, TrainingResult


@dataclass(frozen=True)
class Scores:
    """What a trained model is worth.

    Attributes:
        entries: Entries of `metrics.json`.
        predictions: The arrays of `predictions.npz`; None where none are kept.
    """

    entries: list[dict[str, Any]]
    predictions: dict[str, np.ndarray] | None = None


class TrainingRun(abc.ABC):
    """One model of a stage, from its configuration to its `results.json`.

    A folder with the `results.json` of this model is left alone, and one with another model's is
    emptied. Then the settings are chosen, the model is trained phase by phase (a killed training
    resumes at its checkpoint), its `weights/` are written, valid and test rows are scored, and
    `predictions.npz` and at last `results.json` are written. Of processes that train together one
    does all of this; the others only train.

    Args:
        run: The run.
        folder: Folder of the model.
        label: Name of the training in messages.
    """

    def __init__(self, run: Run, folder: Path, label: str) -> None:
        self.run, self.folder, self.label = run, folder, label

    def complete(self) -> None:
        """Trains, scores and writes the model unless that is done."""
        execution = self.run.execution
        if execution.agreed(self.is_made):
            return
        if execution.first:
            if (self.folder / RESULTS).exists():
                self.discard()
            self.choose()  # by searches of this process, whatever trains the model then
        execution.wait()
        if not execution.first:
            self.run.take_choices()
        with execution.scope():
            self._train()

    def _train(self) -> None:
        began = time.perf_counter()
        trainer = self.trainer()
        if trainer is None:
            return
        result = trainer.fit(self.phases(), self.run.take_resume_from())
        if not self.run.execution.first:
            return
        write_weights(trainer.model, self.folder / "weights")
        wall = time.perf_counter() - began
        scores = self.score(round(wall, 2))
        if scores.predictions is not None:
            write_arrays(self.folder / "predictions.npz", scores.predictions)
        report = self.report(result)
        poor = self.unlearnt(scores.entries)
        if poor is not None:
            report["unlearnt"] = poor
        write_json(self.folder / RESULTS, {**report, "entries": scores.entries})
        self.tell(result, wall)
        if poor is not None:
            warn_unlearnt(self.label, poor)

    def is_made(self) -> bool:
        """Whether the folder holds the finished model."""
        return (self.folder / RESULTS).exists()

    def discard(self) -> None:
        """Removes a finished model that is not this one."""
        shutil.rmtree(self.folder)

    def choose(self) -> None:  # noqa: B027 - most stages have nothing to choose or to tell
        """Chooses the settings that the configuration leaves open; its time is not the model's."""

    @abc.abstractmethod
    def trainer(self) -> Trainer | None:
        """Makes the model and its trainer; None where there is nothing to train it on."""

    @abc.abstractmethod
    def phases(self) -> Sequence[Phase]:
        """The phases, once there is a trainer."""

    @abc.abstractmethod
    def score(self, wall: float) -> Scores:
        """Scores the trained model.

        Args:
            wall: Seconds of making and training it, for the entries.
        """

    @abc.abstractmethod
    def report(self, result: TrainingResult) -> dict[str, Any]:
        """What `results.json` says beside the entries, in order."""

    def unlearnt(self, entries: Entries) -> Entries | None:
        """Where the model is no better than a constant; None where that is not asked."""
        return None

    def tell(self, result: TrainingResult, wall: float) -> None:  # noqa: B027
        """Logs that the model is made."""
