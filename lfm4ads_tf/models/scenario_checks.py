"""Refusals of models that need several scenarios."""

from __future__ import annotations

from collections.abc import Collection

from lfm4ads_tf.errors import UserError


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
