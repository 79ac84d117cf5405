"""Refusals of models that need several scenarios, or name some."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.models.task_names import check_name_parts


def refuse_without_scenarios(what: str, *, given: bool, instead: str) -> None:
    """Refuses a feature spec without scenarios.

    Args:
        what: What needs them, as a sentence begins.
        given: Whether the spec names a scenario column.
        instead: What to do without them, behind "or".

    Raises:
        UserError: It does not.
    """
    if not given:
        raise UserError(
            f"{what} needs a feature spec with scenarios.",
            received="the spec has no keys.scenario",
            fix=f"name the scenario's column under keys.scenario, or {instead}",
        )


def refuse_few_scenarios(what: str, scenarios: Collection[str], *, instead: str) -> None:
    """Refuses fewer than two scenarios.

    Args:
        what: What needs them, as a sentence begins.
        scenarios: Those of the log.
        instead: What to do with one, behind "or".

    Raises:
        UserError: There are.
    """
    if len(scenarios) < 2:
        raise UserError(
            f"{what} needs two scenarios or more.",
            received=f"scenarios: {', '.join(scenarios) or 'none'}",
            fix=f"name a column of several values under keys.scenario, or {instead}",
        )


def refuse_mixtures(mixtures_of: Sequence[str], *, instead: str) -> None:
    """Refuses scenarios whose mixtures were asked of a model that makes the tasks'.

    Args:
        mixtures_of: The scenarios.
        instead: The setting with which scenarios have mixtures.

    Raises:
        UserError: There are some.
    """
    if mixtures_of:
        raise UserError(
            "mixtures_of names scenarios, and here the tasks have mixtures.",
            received=f"mixtures_of: {', '.join(mixtures_of)}",
            fix=f"leave it out, or set {instead}",
        )


def check_mixtures(mixtures_of: Sequence[str]) -> None:
    """Refuses scenarios whose mixtures could not be layers of their own.

    Args:
        mixtures_of: The scenarios.

    Raises:
        UserError: A name cannot be part of a layer's name, or stands there twice.
    """
    check_name_parts(mixtures_of, "scenario")
    for scenario in mixtures_of:
        if mixtures_of.count(scenario) > 1:
            raise UserError(
                f"mixtures_of names the scenario '{scenario}' more than once.",
                received=f"mixtures_of: {', '.join(mixtures_of)}",
                fix="name each scenario once",
            )


def refuse_unknown_mixtures(mixtures_of: Sequence[str], scenarios: Sequence[str]) -> None:
    """Refuses mixtures of scenarios that the model does not learn.

    Args:
        mixtures_of: The scenarios whose mixtures are layers.
        scenarios: Those that it learns.

    Raises:
        UserError: There is one.
    """
    for scenario in mixtures_of:
        if scenario not in scenarios:
            raise UserError(
                f"mixtures_of names '{scenario}', a scenario of no training row."
                + nearest(scenario, scenarios),
                received=f"mixtures_of: {', '.join(mixtures_of)}",
                fix=f"name some of {', '.join(scenarios)}",
            )
