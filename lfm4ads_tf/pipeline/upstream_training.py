"""The training of an upstream, from its initial weights or from an earlier version's."""

from __future__ import annotations

import abc
import logging
from typing import Any

import numpy as np

from lfm4ads_tf.data.cache import EncodedCache, Refresh
from lfm4ads_tf.diagnostics.token_diagnosis import erank_line, token_numbers
from lfm4ads_tf.files import write_json
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.global_entries import global_entries
from lfm4ads_tf.pipeline.learning_check import Entries, unlearnt
from lfm4ads_tf.pipeline.pretrained_tables import load_pretrained_tables
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.scoring import mean_auc, observed_means, predict_rows, targets_of
from lfm4ads_tf.pipeline.table_abundance import table_abundances
from lfm4ads_tf.pipeline.token_sample import TokenSample
from lfm4ads_tf.pipeline.training_run import Scores, TrainingRun
from lfm4ads_tf.training.trainer import Trainer, TrainingResult

_LOG = logging.getLogger(__name__)


class UpstreamTraining(TrainingRun, abc.ABC):
    """What `pretrain` and `refresh` share: model, trainer and entries of one seed's upstream.

    Args:
        run: The run.
        seed: The upstream's seed.
        label: Name of the training in messages.
    """

    model: UpstreamModel

    def __init__(self, run: Run, seed: int, label: str) -> None:
        super().__init__(run, run.upstream(seed), label)
        self.seed = seed
        self._means: dict[str, float] | None = None
        self._tokens: list[dict[str, Any]] | None = None
        self._abundance: list[dict[str, Any]] | None = None

    def trainer(self) -> Trainer:
        """The trainer of the model at its initial weights; writes `manifest.json` of its tables."""
        run, training = self.run, self.run.config.upstream.training
        cache = run.cache
        self.model = model = build.upstream(cache.layout, run.config, self.seed)
        embeddings = model.backbone.embeddings
        load_pretrained_tables(run, embeddings, run.config.upstream.embeddings)
        if run.execution.first:
            write_json(self.folder / "manifest.json", embeddings.manifest())
        return Trainer(
            model,
            model.all_embeddings,
            Objective(model.loss_terms, model.optimizers(training.optimizer)),
            cache,
            training,
            seed=self.seed,
            label=self.label,
            folder=self.folder,
            tensorboard=run.tensorboard(self.folder),
            validate=lambda: _auc(model, cache, cache.rows_of("valid")),
            watch=lambda rows: _auc(model, cache, rows),
            observe=TokenSample(model, cache, self.seed).numbers,
            quiet=run.quiet,
        )

    @abc.abstractmethod
    def probabilities(self, rows: np.ndarray, refresh: Refresh) -> np.ndarray:
        """Probabilities (M, T) of held-out rows (M,)."""

    def score(self, wall: float) -> Scores:
        """Entries for all rows, each scenario and each segment, on valid and test, both refreshes.

        Args:
            wall: Seconds of training.
        """
        self.observed_means()  # now: scoring may leave earlier weights in the model
        self.tokens()
        self.abundance()
        entries, predictions = global_entries(
            self.run,
            self.probabilities,
            targets=targets_of(self.model),
            stage="upstream",
            method="upstream",
            seed=self.seed,
            wall_s=wall,
        )
        return Scores(entries, predictions)

    def unlearnt(self, entries: Entries) -> Entries:
        """The tasks and splits on which the upstream is no better than a constant."""
        return unlearnt(self.run.cache, entries, targets=targets_of(self.model))

    def report(self, result: TrainingResult) -> dict[str, Any]:
        """Validation by epoch, steps and speed, what the model is observed by, and its tables."""
        observed = self.observed_means() | token_numbers(self.tokens())
        return {
            "history": result.history,
            "steps": result.steps,
            "examples_per_s": result.examples_per_s,
            **({"observed": observed} if observed else {}),
            **({"tokens": self.tokens()} if self.tokens() else {}),
            "abundance": self.abundance(),
        }

    def observed_means(self) -> dict[str, float]:
        """Means over the validation rows of numbers that the model is observed by."""
        if self._means is None:
            cache = self.run.cache
            self._means = observed_means(self.model, cache, cache.rows_of("valid"))
        return self._means

    def tokens(self) -> list[dict[str, Any]]:
        """What is told of the model's tokens, see `token_entries`; none without tokens."""
        if self._tokens is None:
            self._tokens = TokenSample(self.model, self.run.cache, self.seed).entries()
        return self._tokens

    def abundance(self) -> list[dict[str, Any]]:
        """Information abundance of the model's tables over what it was trained on.

        See `table_abundances`.
        """
        if self._abundance is None:
            self._abundance = table_abundances(
                self.model.all_embeddings, self.run.cache, self.rows_seen()
            )
        return self._abundance

    def rows_seen(self) -> np.ndarray:
        """Rows of the log that the weights were trained on, in order, each once."""
        seen = np.zeros(self.run.cache.rows, bool)
        for phase in self.phases():
            seen[phase.rows] = True
        return np.flatnonzero(seen)

    def tell(self, result: TrainingResult, wall: float) -> None:
        """Logs steps and seconds, what the model is observed by, and its tokens' ranks."""
        _LOG.info("%s: %d steps in %.0f s", self.label, result.steps, wall)
        for name, value in self.observed_means().items():
            _LOG.info("%s: %s: %.3f", self.label, name, value)
        for entry in self.tokens():
            told, layer = erank_line(entry), entry["layer"]
            _LOG.info("%s: erank / min(N, D) of %s: %s", self.label, layer, told)


def _auc(model: UpstreamModel, cache: EncodedCache, rows: np.ndarray) -> float | None:
    return mean_auc(cache, rows, predict_rows(model, cache, rows), targets=targets_of(model))
