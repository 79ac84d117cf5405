"""Differences in test AUC between compared models: over seeds, and over users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lfm4ads_tf.metrics import Resampled, auc, auc_resamples, holm, paired_comparison
from lfm4ads_tf.metrics.bootstrap import RESAMPLES
from lfm4ads_tf.metrics.detectable_difference import detectable_difference

LEVEL = 0.05
Scores = Mapping[str, Mapping[int, np.ndarray]]
"""Model -> seed -> scores (M,)."""


@dataclass(frozen=True)
class ComparedScores:
    """The scores of all models of one task on the test rows of one place.

    Attributes:
        place: `scenario` and `task`, for the entries.
        scores: Scores of each model and seed.
        targets: Model -> what its scores are of, (M,), NaN where a row is not scored.
        users: (M,) user codes.
        resamples: Draws of users.
    """

    place: Mapping[str, str]
    scores: Scores
    targets: Mapping[str, np.ndarray]
    users: np.ndarray
    resamples: int = RESAMPLES

    def comparable(self, model: str, other: str) -> bool:
        """Whether two models are scored on the same targets; else no difference means anything."""
        return np.array_equal(self.targets[model], self.targets[other], equal_nan=True)

    def against(self, baseline: str) -> list[dict[str, Any]]:
        """Every other model less a baseline.

        Returns:
            One entry per model: `comparable`; over seeds `diff_mean`, `diff_sd`, `p` and `seeds`;
            `low` and `high`, the 95 % interval over users of the mean over seeds; `detectable`,
            the difference that so many seeds find four times out of five by the deviation of the
            pairs, and `detectable_pooled`, by that of all models' pairs with the baseline.
        """
        draws = self._draws(baseline)
        values = {model: self._aucs(model) for model in self.scores}
        found = []
        for model in self.scores:
            if model == baseline:
                continue
            comparable = self.comparable(model, baseline)
            pair = paired_comparison(values[model] if comparable else {}, values[baseline])
            low, high = self._interval(draws, model, baseline) if comparable else (None, None)
            found.append(
                {
                    **self.place,
                    "model": model,
                    "baseline": baseline,
                    "metric": "auc",
                    "comparable": comparable,
                    "diff_mean": pair.diff_mean,
                    "diff_sd": pair.diff_sd,
                    "p": pair.p,
                    "seeds": pair.seeds,
                    "low": low,
                    "high": high,
                    "detectable": _detectable(pair.diff_sd, pair.seeds),
                }
            )
        spreads = [e["diff_sd"] for e in found if e["diff_sd"] is not None]
        pooled = float(np.sqrt(np.mean(np.square(spreads)))) if spreads else None
        for entry in found:
            known = pooled if entry["diff_sd"] is not None else None
            entry["detectable_pooled"] = _detectable(known, entry["seeds"])
        return found

    def leader(self) -> dict[str, Any] | None:
        """The model of the highest mean AUC, and which others are not told apart from it.

        Compared are the models that are scored on what most of them are, the first group of equal
        ones. A model is told apart from the leader where both say so that can be asked: the 95 %
        interval over users of the difference leaves zero out, and the paired t-test over seeds has
        p < 0.05.

        Returns:
            `model`, `auc`, `ties`, `behind`, and `other_labels`, which were not compared; None
            where no AUC is defined.
        """
        groups = [
            [other for other in self.scores if self.comparable(model, other)]
            for model in self.scores
        ]
        group = max(groups, key=len)
        means = {}
        for model in group:
            known = [value for value in self._aucs(model).values() if value is not None]
            if known:
                means[model] = float(np.mean(known))
        if not means:
            return None
        best = max(means, key=lambda model: means[model])
        behind = [
            entry["model"]
            for entry in self.against(best)
            if entry["model"] in means
            and (entry["high"] is None or entry["high"] < 0)
            and (entry["p"] is None or entry["p"] < LEVEL)
            and not (entry["high"] is None and entry["p"] is None)
        ]
        return {
            **self.place,
            "model": best,
            "auc": means[best],
            "ties": [m for m in means if m != best and m not in behind],
            "behind": behind,
            "other_labels": [m for m in self.scores if m not in group],
        }

    def _aucs(self, model: str) -> dict[int, float | None]:
        targets = self.targets[model]
        if not np.isfinite(targets).any():
            return dict.fromkeys(self.scores[model])
        return {seed: auc(targets, scores) for seed, scores in self.scores[model].items()}

    def _draws(self, baseline: str) -> tuple[list[str], Resampled | None]:
        """The models that are comparable with a baseline, a name per score, over equal draws."""
        names = [
            (model, scores)
            for model, seeds in self.scores.items()
            if self.comparable(model, baseline)
            for scores in seeds.values()
        ]
        drawn = auc_resamples(
            self.targets[baseline],
            [scores for _, scores in names],
            self.users,
            resamples=self.resamples,
        )
        return [name for name, _ in names], drawn

    @staticmethod
    def _interval(
        draws: tuple[list[str], Resampled | None], model: str, baseline: str
    ) -> tuple[float | None, float | None]:
        names, drawn = draws
        if drawn is None:
            return None, None
        first, second = ([k for k, n in enumerate(names) if n == m] for m in (model, baseline))
        found = drawn.difference(first, second)
        return found.low, found.high


def correct(comparisons: Sequence[dict[str, Any]], overall: str) -> None:
    """Sets `p_holm`: Holm's correction over models and tasks on all rows, for each baseline.

    Args:
        comparisons: Entries of `ComparedScores.against`.
        overall: The scenario that stands for all rows; elsewhere it is null.
    """
    for entry in comparisons:
        entry["p_holm"] = None
    for baseline in dict.fromkeys(entry["baseline"] for entry in comparisons):
        family = [e for e in comparisons if e["baseline"] == baseline and e["scenario"] == overall]
        for entry, adjusted in zip(family, holm([e["p"] for e in family]), strict=True):
            entry["p_holm"] = adjusted


def _detectable(deviation: float | None, pairs: Any) -> float | None:
    return None if deviation is None else detectable_difference(deviation, pairs)
