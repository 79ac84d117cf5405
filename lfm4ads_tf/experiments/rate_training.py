"""One training of a comparison: a model, a learning rate and a seed."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from lfm4ads_tf.files import write_json
from lfm4ads_tf.pipeline.learning_check import Entries
from lfm4ads_tf.pipeline.pretrain import Pretraining
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.stored_results import RESULTS, stored_results
from lfm4ads_tf.pipeline.training_run import Scores
from lfm4ads_tf.training.divergence import Divergence
from lfm4ads_tf.training.trainer import TrainingResult

_LOG = logging.getLogger(__name__)


class RateTraining(Pretraining):
    """An upstream from its initial weights, by epochs, of which validation picks the best.

    No test row is read. Its `results.json` holds `valid`, the mean validation AUC over tasks, with
    how it came about; `weights/` are those of the best epoch.

    Args:
        run: The run, whose configuration holds the learning rates.
        folder: Folder of the training.
        seed: The seed.
        label: Name of the training in messages.
    """

    def __init__(self, run: Run, folder: Path, seed: int, label: str) -> None:
        super().__init__(run, seed, label)
        self.folder = folder
        self._wall = 0.0

    def outcome(self) -> dict[str, Any]:
        """Trains it unless that is done, and returns what `results.json` holds.

        A training whose loss is not finite is no failure of the comparison: `valid` is null and
        `diverged` says where.
        """
        try:
            self.complete()
        except Divergence as error:
            report: dict[str, Any] = {
                "valid": None,
                "diverged": str(error).splitlines()[0],
                "entries": [],
            }
            write_json(self.folder / RESULTS, report)
        for name in ("checkpoint", "best"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        return stored_results(self.folder / RESULTS)

    def score(self, wall: float) -> Scores:
        """Nothing yet: test rows are for the model of the chosen rate."""
        self._wall = wall
        return Scores([])

    def report(self, result: TrainingResult) -> dict[str, Any]:
        """Validation by epoch, and what the training cost."""
        values = [entry["value"] for entry in result.history]
        return {
            "valid": max(values, default=None),
            "epochs": len(values),
            "best_epoch": 1 + values.index(max(values)) if values else None,
            "seconds": self._wall,
            **super().report(result),
        }

    def unlearnt(self, entries: Entries) -> Entries:
        """Nothing: no row was scored."""
        return []

    def tell(self, result: TrainingResult, wall: float) -> None:
        """Logs validation AUC, epochs and seconds."""
        found = self.report(result)
        value = "undefined" if found["valid"] is None else f"{found['valid']:.4f}"
        _LOG.info(
            "%s: valid AUC %s, best of %d epochs: %s, %.0f s",
            self.label,
            value,
            found["epochs"],
            found["best_epoch"],
            wall,
        )
