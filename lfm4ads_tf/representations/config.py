"""Extraction and aggregation of representations."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from lfm4ads_tf.strict import StrictModel

AggregationKind = Literal["last", "mean", "count_decay", "time_decay"]

_KINDS = ("last", "mean", "count_decay", "time_decay")
_HOURS = {"h": 1.0, "d": 24.0}


def _hours(value: Any) -> Any:
    """A number of hours, or a text such as `3d` or `72h`."""
    if isinstance(value, str):
        found = re.fullmatch(r"\s*([0-9.eE+-]+)\s*([hd]?)\s*", value)
        try:
            return float(found[1]) * _HOURS[found[2] or "h"] if found else value
        except ValueError:
            return value
    return value


Hours = Annotated[float, BeforeValidator(_hours), Field(gt=0)]


class RepresentationsConfig(StrictModel):
    """Extraction and aggregation of UR, IR and CR.

    Attributes:
        mode: `daily`: a row of period d sees state of periods before d. `event`: a row sees the
            state of its key just before the row; `layers` must be named. `static`: every row sees
            the state at the end of training, its own label included (for comparison only).
        snapshots: `daily`: the weights behind period d were trained on periods before d.
            `single`: one final upstream for all periods (for comparison only).
        aggregation: How a key's events become one CR.
        aggregations: Further ones, stored under the name with `~<aggregation>`, without layer
            normalisation as `<aggregation>-raw`.
        decay: Factor per event of the key, of `count_decay`.
        half_life: Of `time_decay`, in hours of event time; a text may say `3d`.
        item_half_life: The same for items; `half_life` when absent.
        layer_norm: Whether the CR of `aggregation` is layer-normalised over its channels.
        layers: Layers whose CR is stored; every named layer when absent.
        cr_events: `branch`: events of the ad branch alone feed the layers `ad.*`, content events
            `content.*`. `all`: every event feeds every layer.
    """

    mode: Literal["daily", "event", "static"] = "daily"
    snapshots: Literal["daily", "single"] = "daily"
    aggregation: AggregationKind = "time_decay"
    aggregations: list[str] = []
    decay: float = Field(default=0.99, gt=0, le=1)
    half_life: Hours = 72.0
    item_half_life: Hours | None = None
    layer_norm: bool = True
    layers: list[str] | None = None
    cr_events: Literal["branch", "all"] = "branch"

    @field_validator("aggregations")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        for name in names:
            if name.removesuffix("-raw") not in _KINDS:
                raise ValueError(f"'{name}' is none of {', '.join(_KINDS)}, each also with -raw")
        if len(set(names)) < len(names):
            raise ValueError("an aggregation is named twice")
        return names

    @model_validator(mode="after")
    def _layers_of_events(self) -> RepresentationsConfig:
        if self.mode == "event" and self.layers is None:
            raise ValueError("mode 'event' stores a vector per row: name the layers")
        return self

    def variants(self) -> list[tuple[str, AggregationKind, bool]]:
        """What is stored of each CR: ending of the name, aggregation, layer normalisation."""
        found: list[tuple[str, AggregationKind, bool]] = [("", self.aggregation, self.layer_norm)]
        for name in self.aggregations:
            kind: Any = name.removesuffix("-raw")
            found.append((f"~{name}", kind, not name.endswith("-raw")))
        return found
