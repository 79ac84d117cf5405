"""Extraction and aggregation of representations."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from lfm4ads_tf.errors import nearest
from lfm4ads_tf.registry_key import checked_options, known_name
from lfm4ads_tf.representations.aggregations.registry import AGGREGATIONS
from lfm4ads_tf.strict import StrictModel
from lfm4ads_tf.written import UNREAD

OPTIONS_KEY = "representations.aggregation_options"
_RAW = "-raw"
_HOURS = {"h": 1.0, "d": 24.0}


def _hours(value: Any) -> Any:
    """A number of hours, or a text such as `3d` or `72h`."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*([hd]?)\s*", value)
        try:
            return float(match[1]) * _HOURS[match[2] or "h"] if match else value
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
        aggregation_options: Aggregation -> options of its own, for those that have some.
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
    aggregation: Annotated[str, known_name(AGGREGATIONS)] = "time_decay"
    aggregations: list[str] = []
    aggregation_options: dict[str, dict[str, Annotated[Any, UNREAD]]] = {}
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
            kind = name.removesuffix(_RAW)
            if kind not in AGGREGATIONS:
                raise ValueError(
                    f"'{name}' is none of {', '.join(AGGREGATIONS)}, each also with -raw."
                    + nearest(kind, AGGREGATIONS)
                )
        if len(set(names)) < len(names):
            raise ValueError("an aggregation is named twice")
        return names

    @field_validator("aggregation_options")
    @classmethod
    def _known_options(cls, given: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return checked_options(AGGREGATIONS, given, OPTIONS_KEY)

    @model_validator(mode="after")
    def _names_of_files(self) -> RepresentationsConfig:
        """A name is part of those of representations, methods and folders."""
        for _, kind, _ in self.variants():
            if not re.fullmatch(r"[\w.-]+", kind, re.ASCII) or kind.endswith(_RAW):
                raise ValueError(
                    f"the aggregation '{kind}' is part of a representation's name: register it "
                    f"under letters, digits, '_', '-' and '.' alone, and no {_RAW} at the end"
                )
        return self

    @model_validator(mode="after")
    def _layers_of_events(self) -> RepresentationsConfig:
        if self.mode == "event" and self.layers is None:
            raise ValueError("mode 'event' stores a vector per row: name the layers")
        return self

    def variants(self) -> list[tuple[str, str, bool]]:
        """What is stored of each CR: ending of the name, aggregation, layer normalisation."""
        return [
            ("", self.aggregation, self.layer_norm),
            *(
                (f"~{name}", name.removesuffix(_RAW), not name.endswith(_RAW))
                for name in self.aggregations
            ),
        ]
