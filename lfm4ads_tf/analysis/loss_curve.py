"""The training loss of a model, from its TensorBoard logs."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

_TAG = "train/loss"
_LOG = logging.getLogger(__name__)


def loss_curve(folder: Path, points: int = 80) -> list[tuple[float, float]]:
    """Reads the loss curve and averages neighbours.

    A step that was trained twice, after a resume, counts once, with its last value.

    Args:
        folder: Folder of the event files.
        points: Most points to return; each is the mean of a run of neighbouring records.

    Returns:
        (step, loss) in order of the steps; empty without logs.
    """
    if not any(folder.glob("events.out.tfevents.*")):
        return []
    # TensorBoard takes seconds to import and only a report reads its logs.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    try:
        events.Reload()
    except Exception as error:  # a damaged log must not cost the report
        _LOG.warning("the loss curve in '%s' cannot be read: %s", folder, error)
        return []
    if _TAG not in events.Tags()["tensors"]:
        return []
    by_step = {e.step: float(make_ndarray(e.tensor_proto)) for e in events.Tensors(_TAG)}
    steps = np.array(sorted(by_step), np.float64)
    losses = np.array([by_step[int(s)] for s in steps])
    chunks = np.array_split(np.arange(len(steps)), min(points, len(steps)))
    return [(float(steps[c].mean()), float(losses[c].mean())) for c in chunks]
