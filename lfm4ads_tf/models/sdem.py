"""STEM-Net over scenarios: embeddings of every scenario's own beside shared ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.scenario_checks import (
    refuse_few_scenarios,
    refuse_unknown_mixtures,
    refuse_without_scenarios,
)
from lfm4ads_tf.models.scenario_mixture import ScenarioMixtureModel
from lfm4ads_tf.models.stem_config import STEMConfig, check_groups, sets_of_owners
from lfm4ads_tf.models.upstream_config import UpstreamConfig

_AXIS = "upstream.stem.axis: scenario"
_INSTEAD = "set upstream.stem.axis=task"


class SDEM(ScenarioMixtureModel):
    """STEM-Net with scenarios in the place of tasks, known as SDEM; `stem.axis: scenario`.

    Set s belongs to scenario s, the last one is shared; experts and gates are those of
    `SetExtraction`, with a shared mixture behind the scenarios'. See `ScenarioMixtureModel`.

    Args:
        layout: Columns of the encoded batch.
        network: Towers of each set, and whether there is a shared logit; its block is not read.
        embeddings: Tables; their one set stands for as many as there are scenarios or groups of
            them, and one more.
        extraction: Experts, gates, groups and towers.
        seed: Seed of all initial weights.

    Raises:
        UserError: There are fewer than two scenarios, the tables have another number of sets, or a
            group or `mixtures_of` names an unknown scenario or one twice.

    Source: named as a baseline in Crocodile (CIKM 2024), known at second hand; Su et al., STEM
    (AAAI 2024) for the model over tasks.
    """

    Config = STEMConfig

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig = NetworkConfig(),  # noqa: B008 - frozen
        embeddings: EmbeddingsConfig = EmbeddingsConfig(),  # noqa: B008 - frozen
        extraction: STEMConfig = STEMConfig(axis="scenario"),  # noqa: B008 - frozen
        *,
        seed: int = 0,
    ) -> None:
        embeddings = _with_sets(extraction, embeddings, layout.scenarios)
        super().__init__(
            layout,
            network,
            embeddings,
            extraction,
            extraction.extraction(layout.scenarios, shared=True, seed=seed),
            extraction.task_units,
            set_groups=[1] * embeddings.sets,
            seed=seed,
            name="stem",
        )
        self.options = extraction

    @classmethod
    def registered_name(cls) -> str:
        """`stem`, of which it is the scenarios' axis."""
        return "stem"

    @classmethod
    def tables(cls, config: UpstreamConfig, layout: FeatureLayout) -> EmbeddingsConfig:
        """See `UpstreamModel`; of as many sets as the scenarios need."""
        return _with_sets(config.options, config.embeddings, layout.scenarios)

    @classmethod
    def levels(cls, config: UpstreamConfig, tasks: Sequence[str]) -> dict[str, str]:
        """The tables alone: a downstream's towers read all sets."""
        return {"embeddings": "embeddings"}

    @classmethod
    def check_scenarios(cls, config: UpstreamConfig, *, given: bool) -> None:
        """See `UpstreamModel`; it needs them."""
        refuse_without_scenarios(_AXIS, given=given, instead=_INSTEAD)

    @classmethod
    def check_scenario_rows(cls, config: UpstreamConfig, rows: Mapping[str, int]) -> None:
        """See `UpstreamModel`; sets and groups fit the scenarios that training knows."""
        known = [scenario for scenario, count in rows.items() if count]
        _with_sets(config.options, config.embeddings, known)

    @classmethod
    def refuse(cls, options: Any, embeddings: EmbeddingsConfig, tasks: Sequence[str]) -> None:
        """See `MixtureModel`; the axis is the scenarios."""
        super().refuse(options, embeddings, tasks)
        if options.axis != "scenario":
            raise UserError(
                "SDEM has the scenarios as its axis.",
                received=f"axis: {options.axis}",
                fix="build STEM for tasks",
            )


def _with_sets(
    options: STEMConfig, embeddings: EmbeddingsConfig, scenarios: Sequence[str]
) -> EmbeddingsConfig:
    """The tables with a set for each scenario or group of them, and one.

    Raises:
        UserError: There are fewer than two, what a group or `mixtures_of` names is none, or another
            number was given.
    """
    refuse_few_scenarios(_AXIS, scenarios, instead=_INSTEAD)
    check_groups(options.groups, scenarios, "scenario")
    refuse_unknown_mixtures(options.mixtures_of, scenarios)
    sets = max(sets_of_owners(options.groups, scenarios)) + 2
    if embeddings.sets not in (1, sets):
        raise UserError(
            "STEM with axis: scenario has a set of embeddings for each scenario or group of "
            "scenarios, and one that all share.",
            received=f"upstream.embeddings.sets: {embeddings.sets}; {len(scenarios)} scenarios",
            fix=f"leave upstream.embeddings.sets out, or set it to {sets}",
        )
    return embeddings.model_copy(update={"sets": sets})
