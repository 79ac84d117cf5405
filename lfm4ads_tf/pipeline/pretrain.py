"""Stage `pretrain`: the upstream."""

from __future__ import annotations

from typing import Any

import numpy as np

from lfm4ads_tf.data.cache import Refresh
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.pipeline.auto import choose_upstream
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.scenario_rows import scenario_rows
from lfm4ads_tf.pipeline.scoring import predict_rows
from lfm4ads_tf.pipeline.small_scenarios import warn_small_scenarios
from lfm4ads_tf.pipeline.training_labels import TrainingLabels
from lfm4ads_tf.pipeline.upstream_training import UpstreamTraining
from lfm4ads_tf.training.schedule import Phase, chain, epochs
from lfm4ads_tf.training.trainer import TrainingResult


def pretrain(run: Run, seed: int) -> None:
    """Trains the upstream of one seed, keeps its snapshots, and scores valid and test rows.

    `OUT/upstream/seed_<s>/` holds `weights/`, `snapshots/<period>/`, `manifest.json` of the
    tables, `predictions.npz` and, when all is done, `results.json`.
    """
    Pretraining(run, seed, f"upstream seed {seed}").complete()


class Pretraining(UpstreamTraining):
    """The upstream of one seed from its initial weights; see `pretrain`."""

    def choose(self) -> None:
        """Refuses an impossible schedule and labels, then chooses what is left open.

        Then the batch size is known, and with it which scenarios are small.
        """
        check_training(self.run)
        choose_upstream(self.run)
        config = self.run.config
        if self.folder == self.run.upstream(config.seed):  # the first seed tells it for all
            warn_small_scenarios(self.run.cache, config.upstream, "upstream")

    def phases(self) -> list[Phase]:
        """The chain over the periods, or epochs."""
        training, cache = self.run.config.upstream.training, self.run.cache
        if training.schedule == "chain":
            return chain(training, cache)
        auxiliary = cache.auxiliary_rows
        first = [Phase(f"auxiliary_{k}", auxiliary) for k in range(training.auxiliary_passes)]
        return (first if len(auxiliary) else []) + epochs(training, cache.train_rows)

    def probabilities(self, rows: np.ndarray, refresh: Refresh) -> np.ndarray:
        """Those of the final weights."""
        return predict_rows(self.model, self.run.cache, rows, refresh=refresh)

    def report(self, result: TrainingResult) -> dict[str, Any]:
        """Curves too, see `UpstreamTraining`."""
        history = {"history": result.history, "curve": result.curve}
        return {**history, **super().report(result)}


def check_training(run: Run) -> None:
    """Refuses what the upstream cannot be trained by, or on.

    That is a schedule whose weights cannot be point in time where they must be, and labels or
    scenarios that the model cannot learn from: the data may have been encoded for another model.

    Raises:
        UserError: It cannot.
    """
    upstream = run.config.upstream
    training = upstream.training
    if training.schedule == "epochs" and run.config.representations.snapshots == "daily":
        raise UserError(
            "Daily snapshots need the `chain` schedule: weights that saw all periods cannot be "
            "point in time.",
            received="upstream.training.schedule: epochs, representations.snapshots: daily",
            fix="set upstream.training.schedule=chain, or representations.snapshots=single for a "
            "comparison",
        )
    upstream.model_class.check_labels(upstream, TrainingLabels(run.cache))
    upstream.model_class.check_scenario_rows(upstream, scenario_rows(run.cache))
