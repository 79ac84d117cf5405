"""Extraction and aggregation of representations."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lfm4ads_tf.strict import StrictModel


class RepresentationsConfig(StrictModel):
    """Extraction and aggregation of UR, IR and CR.

    Attributes:
        mode: `daily`: a row of period d sees state of periods before d. `static`: every row sees
            the state at the end of training, its own label included (for comparison only).
        snapshots: `daily`: the weights behind period d were trained on periods before d.
            `single`: one final upstream for all periods (for comparison only).
        half_life: Time-decay half-life of the CR aggregation, in hours of event time.
        layer_norm: Whether a stored CR is layer-normalised over its channels.
        layers: Layers whose CR is stored; every named layer when absent.
    """

    mode: Literal["daily", "static"] = "daily"
    snapshots: Literal["daily", "single"] = "daily"
    half_life: float = Field(default=72.0, gt=0)
    layer_norm: bool = True
    layers: list[str] | None = None
