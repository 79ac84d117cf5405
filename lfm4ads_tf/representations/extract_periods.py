"""Extraction of UR, IR and CR from upstream snapshots, period by period."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.splits import AUXILIARY, TEST, TRAIN, VALID
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.progress import Progress
from lfm4ads_tf.representations.config import RepresentationsConfig
from lfm4ads_tf.representations.extraction import Extraction
from lfm4ads_tf.representations.part import PartState
from lfm4ads_tf.representations.store import RepresentationStore
from lfm4ads_tf.representations.writer import RepresentationWriter

_STATE_KEYS = ("decay", "half_life", "item_half_life", "cr_events", "aggregation_options")


@dataclass(frozen=True)
class _Step:
    """The events of one period.

    Attributes:
        rows: Rows in time order.
        period: The period.
        state: What its keys' new vectors are, see `Part`.
        weights: Period from which the snapshot that scores them is valid, None for the weights at
            the end of training.
        towers: The same of the snapshot that gives UR and IR.
        earlier: Whether these weights have seen earlier periods alone.
    """

    rows: np.ndarray
    period: int
    state: PartState
    weights: int | None
    towers: int | None
    earlier: bool


def extract_periods(
    model: UpstreamModel,
    load_snapshot: Callable[[int | None], None],
    cache: EncodedCache,
    config: RepresentationsConfig,
    writer: RepresentationWriter,
    *,
    auxiliary: bool = True,
    quiet: bool = False,
) -> None:
    """Writes every representation of every period.

    After period e: UR and IR are the towers' outputs for the keys with events in e, on the
    features of the key's last event with what moves as of e + 1, by the weights of the end of e;
    CR is the aggregate over all events up to e. Both are valid from e + 1. After the last training
    period UR and IR of all keys are made, so that they are of one set of weights. In the modes
    `daily` and `static` the activations of e are those of the weights of the end of e. In the mode
    `event` they are those of the weights before e, and every row of e also gets its key's CR just
    before it.
    Valid and test rows follow under the state `daily`, with the weights of the end of training.

    The states after the training rows and after all rows are kept in `state/train` and
    `state/latest`, see `resume_states`.

    Args:
        model: The upstream; its weights are replaced.
        load_snapshot: Loads the weights valid from a period, None for those at the end of
            training.
        cache: The encoded cache.
        config: Mode, snapshots, aggregations, layers.
        writer: Where the parts go.
        auxiliary: Whether the upstream was trained on the auxiliary rows, so that they are events.
        quiet: Whether to hide the progress bar.

    Raises:
        UserError: A configured layer does not exist.
    """
    steps = _steps(cache, config, auxiliary)
    saved = False
    with (
        Extraction(model, cache, config, writer) as extraction,
        Progress("extract", len(steps), quiet=quiet) as progress,
    ):
        for step in steps:
            if step.state == "daily" and not saved:
                extraction.save(writer.folder / "state" / "train")
                saved = True
            load_snapshot(step.weights)
            extraction.advance(step.rows, step.period, step.state, by_row=step.earlier)
            if step.towers != step.weights:
                load_snapshot(step.towers)
            extraction.write_towers(step.period, step.state)
            progress.advance(1)
        if not saved:
            extraction.save(writer.folder / "state" / "train")
        extraction.save(writer.folder / "state" / "latest")


def extend(
    model: UpstreamModel,
    cache: EncodedCache,
    config: RepresentationsConfig,
    writer: RepresentationWriter,
    earlier: RepresentationStore,
    rows: np.ndarray,
    period: int,
    *,
    state: PartState = "train",
    after: PartState = "daily",
) -> None:
    """Makes a new version from an earlier one and the events of one more period.

    The earlier version's parts are taken over, its states are continued with the new events, and
    the keys with a new event get a part, valid from the next period. No earlier event is read.

    Args:
        model: The upstream with the weights that score the events.
        cache: Holds the new rows; its keys include those of the earlier version.
        config: Aggregations and layers, those of the earlier version.
        writer: Where the new version goes.
        earlier: The earlier version.
        rows: New rows in time order.
        period: Their period; the index goes on where the earlier version's ended.
        state: What the new vectors are, see `Part`.
        after: Whether to continue the states after the training rows (`train`) or after all rows
            (`daily`).

    Raises:
        UserError: The states of the earlier version do not fit the data or the configuration.
    """
    settings, defaults = (
        section.model_dump(mode="json") for section in (config, RepresentationsConfig())
    )
    for key in _STATE_KEYS:
        # a key that is newer than the version had its default then
        ours, theirs = settings[key], earlier.manifest.get(key, defaults[key])
        if ours != theirs:
            raise UserError(
                "The states of the earlier version were aggregated with other settings.",
                received=f"representations.{key} was {theirs}, is now {ours}",
                fix="keep the settings, or extract anew",
            )
    writer.inherit(earlier)
    with Extraction(model, cache, config, writer) as extraction:
        resume_states(extraction, earlier.folder, after)
        extraction.advance(rows, period, state)
        extraction.write_towers(period, state)
        for name in ("train", "latest"):
            extraction.save(writer.folder / "state" / name)


def resume_states(extraction: Extraction, folder: Path, after: PartState = "daily") -> None:
    """Gives an extraction the states that another one has kept in its version folder.

    Raises:
        UserError: They are not there, or do not fit the data or the configuration.
    """
    extraction.restore(folder / "state" / ("latest" if after == "daily" else "train"))


def _steps(cache: EncodedCache, config: RepresentationsConfig, auxiliary: bool) -> list[_Step]:
    """The periods in the order in which their events are added."""
    trained = np.isin(cache.split, (TRAIN, AUXILIARY) if auxiliary else (TRAIN,))
    held_out = np.isin(cache.split, (VALID, TEST))
    single = config.snapshots == "single" or config.mode == "static"
    steps: list[_Step] = []
    before: int | None = None  # the latest snapshot that has not seen the period
    for period in np.unique(cache.period[trained]).tolist():
        rows = np.flatnonzero(trained & (cache.period == period))
        after = _valid_from(cache, period)
        by_event = config.mode == "event" and before is not None
        weights = None if single else before if by_event else after
        towers = None if single else after
        steps.append(_Step(rows, period, "train", weights, towers, by_event or single))
        before = after
    for period in np.unique(cache.period[held_out]).tolist():
        rows = np.flatnonzero(held_out & (cache.period == period))
        steps.append(_Step(rows, period, "daily", None, None, True))
    return steps


def _valid_from(cache: EncodedCache, period: int) -> int:
    """Period from which the snapshot taken after a period is valid, as the schedule names it."""
    return max(period + 1, cache.first_period)
