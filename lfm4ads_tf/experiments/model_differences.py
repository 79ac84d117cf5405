"""Differences in test AUC between compared models: over seeds, and over users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lfm4ads_tf.metrics import auc, auc_resamples, holm, paired_comparison
from lfm4ads_tf.metrics.bootstrap import RESAMPLES
from lfm4ads_tf.metrics.detectable_difference import detectable_difference

LEVEL = 0.05
_TOLERATED = 0.01
"""Share of labels in which two models may differ, and be compared on the others."""
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

    def common(self, models: Sequence[str]) -> np.ndarray | None:
        """The targets (M,) that some models share, NaN on rows where they differ or are unknown.

        None where they are of other events, so that no difference means anything: one model is
        scored on rows that another is not, or more than 1 % of the labels differ. Fewer are those
        of a log that contradicts a model's assumption, such as second events without first ones.
        """
        targets = np.stack([self.targets[model] for model in models])  # (models, M)
        scored = np.isfinite(targets)
        if (scored != scored[0]).any():
            return None
        differ = scored[0] & (targets != targets[0]).any(axis=0)
        if differ.sum() > _TOLERATED * scored[0].sum():
            return None
        return np.where(differ, np.nan, targets[0])

    def against(self, baseline: str) -> list[dict[str, Any]]:
        """Every other model less a baseline.

        Returns:
            One entry per model, its `p_holm` to be set by `correct`: `comparable`, and
            `rows_left_out`, on which the two have other labels; over seeds `diff_mean`, `diff_sd`,
            `p` and `seeds`; `low` and `high`, the 95 % interval over users of the mean over seeds;
            `detectable`, the difference that so many seeds find four times out of five by the
            deviation of the pairs, and `detectable_pooled`, by that of all models' pairs with the
            baseline.
        """
        found = []
        for model in self.scores:
            if model == baseline:
                continue
            labels = self.common([model, baseline])
            left_out, low, high = None, None, None
            ours: dict[int, float | None] = {}
            theirs: dict[int, float | None] = {}
            if labels is not None:
                left_out = int((np.isfinite(self.targets[model]) & ~np.isfinite(labels)).sum())
                ours, theirs = self._aucs(model, labels), self._aucs(baseline, labels)
                low, high = self._interval(model, baseline, labels)
            pair = paired_comparison(ours, theirs)
            found.append(
                {
                    **self.place,
                    "model": model,
                    "baseline": baseline,
                    "metric": "auc",
                    "comparable": labels is not None,
                    "rows_left_out": left_out,
                    "diff_mean": pair.diff_mean,
                    "diff_sd": pair.diff_sd,
                    "p": pair.p,
                    "p_holm": None,
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

        Compared are the models that share their targets with most others, on the rows that all of
        them share. A model is told apart from the leader where both say so that can be asked: the
        95 % interval over users of the difference leaves zero out, and the paired t-test over seeds
        has p < 0.05.

        Returns:
            `model`, `auc` on its own targets, `ties`, `behind`, and `other_labels`, which were not
            compared; None where no AUC is defined.
        """
        groups = [
            [other for other in self.scores if self.common([model, other]) is not None]
            for model in self.scores
        ]
        group = max(groups, key=len)
        while (labels := self.common(group)) is None:  # each pair is alike enough, all are not
            group.pop()
        means = {model: _mean(self._aucs(model, labels)) for model in group}
        known = {model: value for model, value in means.items() if value is not None}
        if not known:
            return None
        best = max(known, key=lambda model: known[model])
        behind = [
            entry["model"]
            for entry in self.against(best)
            if entry["model"] in known
            and (entry["high"] is None or entry["high"] < 0)
            and (entry["p"] is None or entry["p"] < LEVEL)
            and not (entry["high"] is None and entry["p"] is None)
        ]
        return {
            **self.place,
            "model": best,
            "auc": _mean(self._aucs(best, self.targets[best])),
            "ties": [m for m in known if m != best and m not in behind],
            "behind": behind,
            "other_labels": [m for m in self.scores if m not in group],
        }

    def _aucs(self, model: str, labels: np.ndarray) -> dict[int, float | None]:
        """Seed -> AUC of a model's scores."""
        if not np.isfinite(labels).any():
            return dict.fromkeys(self.scores[model])
        return {seed: auc(labels, scores) for seed, scores in self.scores[model].items()}

    def _interval(
        self, model: str, baseline: str, labels: np.ndarray
    ) -> tuple[float | None, float | None]:
        """The paired interval over users; the same users are drawn for every pair."""
        ours, theirs = [*self.scores[model].values()], [*self.scores[baseline].values()]
        drawn = auc_resamples(labels, [*ours, *theirs], self.users, resamples=self.resamples)
        if drawn is None:
            return None, None
        first = range(len(ours))
        found = drawn.difference(first, range(len(ours), len(ours) + len(theirs)))
        return found.low, found.high


def correct(family_of_all: Sequence[dict[str, Any]]) -> None:
    """Sets `p_holm`: Holm's correction over entries that are read together, for each baseline.

    Args:
        family_of_all: Entries of `ComparedScores.against`, those of all baselines.
    """
    for baseline in dict.fromkeys(entry["baseline"] for entry in family_of_all):
        family = [entry for entry in family_of_all if entry["baseline"] == baseline]
        for entry, adjusted in zip(family, holm([e["p"] for e in family]), strict=True):
            entry["p_holm"] = adjusted


def _detectable(deviation: float | None, pairs: Any) -> float | None:
    return None if deviation is None else detectable_difference(deviation, pairs)


def _mean(values: Mapping[int, float | None]) -> float | None:
    known = [value for value in values.values() if value is not None]
    return float(np.mean(known)) if known else None
