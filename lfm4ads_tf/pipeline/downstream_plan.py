"""Which downstream models a run trains: its methods, and the scenarios that can be trained."""

from __future__ import annotations

import logging

import numpy as np

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.pipeline.named_method import read_method
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.transfer.methods import Method

_LOG = logging.getLogger(__name__)


def run_methods(run: Run) -> list[Method]:
    """The configured methods; `upstream` needs no downstream model and is always scored."""
    names = [m for m in run.config.downstream.methods if m != "upstream"]
    return [read_method(run, name) for name in names]


def downstream_scenarios(run: Run) -> list[str]:
    """Scenarios and segments with a downstream model, largest first.

    Raises:
        UserError: A scenario asked for by name is unknown, has no training row, or has one class.
    """
    cache = run.cache
    cache.layout.without(run.config.downstream.omit)  # a wrong pattern is refused as early
    asked = run.config.scenarios
    known = [*cache.layout.scenarios, *cache.layout.segments]
    if asked is not None:
        for name in asked:
            if name not in known:
                raise UserError(
                    f"The scenario '{name}' is unknown.{nearest(name, known)}",
                    fix=f"use some of {', '.join(known)}",
                )
            problem = _untrainable(run, name)
            if problem:
                raise UserError(
                    f"The scenario '{name}' cannot be trained.",
                    received=problem,
                    fix="leave it out of --scenarios",
                )
        return list(asked)
    problems = {name: _skipped(run, name) for name in _largest_first(run)}
    return [name for name, problem in problems.items() if problem is None]


def warn_skipped(run: Run) -> None:
    """Says which scenarios get no downstream model, and why, unless scenarios were asked for."""
    if run.config.scenarios is None:
        for name in _largest_first(run):
            problem = _skipped(run, name)
            if problem is not None:
                _LOG.warning("scenario '%s' is skipped: %s", name, problem)


def _largest_first(run: Run) -> list[str]:
    """Scenarios and segments with training rows, largest first."""
    layout = run.cache.layout
    names = [*layout.scenarios, *layout.segments]
    counts = {s: len(run.cache.rows_of("train", s)) for s in names}
    return sorted((s for s, n in counts.items() if n), key=lambda s: -counts[s])


def _skipped(run: Run, scenario: str) -> str | None:
    """Why a scenario that was not asked for by name gets no model, None if it gets one."""
    count = len(run.cache.rows_of("train", scenario))
    if count < run.config.downstream.min_rows:
        return f"{count} training rows, fewer than downstream.min_rows"
    return _untrainable(run, scenario)


def _untrainable(run: Run, scenario: str) -> str | None:
    """Why a scenario cannot be trained, None if it can."""
    cache = run.cache
    rows = cache.rows_of("train", scenario)
    if not len(rows):
        return "no training row"
    for k, task in enumerate(cache.layout.tasks):
        labels = cache.labels[rows, k]
        if len(np.unique(labels[np.isfinite(labels)])) < 2:
            return f"task '{task}' has one class in its {len(rows)} training rows"
    return None
