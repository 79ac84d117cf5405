"""Names under which a run's models are exported, served and asked for."""

from __future__ import annotations

from lfm4ads_tf.file_names import file_name

FOUNDATION = "foundation"
RANKER = "ranker_"


def ranker_name(scenario: str) -> str:
    """Name of the exported ranker of a scenario or segment."""
    return RANKER + file_name(scenario)


def served_name(scenario: str | None) -> str:
    """Name of the export of a scenario's ranker, of the foundation model where it is None."""
    return FOUNDATION if scenario is None else ranker_name(scenario)
