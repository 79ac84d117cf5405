"""Which downstream method of a scenario is exported and used for predictions."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.pipeline.full import FULL, full_combination
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.representations.names import representation_names
from lfm4ads_tf.transfer.methods import Method, parse_method


def trained_scenarios(run: Run) -> list[str]:
    """Scenarios and segments with a trained downstream model, in the layout's order."""
    layout = run.cache.layout
    return [s for s in (*layout.scenarios, *layout.segments) if validation_auc(run, s)]


def read_method(run: Run, name: str) -> Method:
    """A method of a run by its name.

    Raises:
        UserError: The name is unknown, or the configuration cannot do what it says.
    """
    upstream = run.config.upstream
    layers = upstream.layer_names(run.spec.task_names)
    levels = list(upstream.warm_start_levels(run.spec.task_names))
    method = parse_method(
        name,
        layers,
        full=full_combination(run.config, run.spec.task_names) if name == FULL else None,
        representations=representation_names(run.config.representations, layers),
        levels=levels,
    )
    if method.isomorphic is not None:
        _check_module(run, name, levels)
    if method.warm_start is not None or method.isomorphic is not None:
        _check_rates(run, levels)
    _check_frozen(method)
    return method


def _check_module(run: Run, name: str, levels: Sequence[str]) -> None:
    """The isomorphic module needs a mix tower to be isomorphic to, and one of its layers."""
    if run.config.upstream.block is None:
        raise UserError(
            f"The upstream model '{run.config.upstream.model}' has no mix tower.",
            received=name,
            fix="set upstream.model=foundation, or use module/warm_start/towers",
        )
    layer, known = run.config.downstream.isomorphic_layer, levels[1:]
    if layer not in known:
        raise UserError(
            f"downstream.isomorphic_layer names the unknown layer '{layer}'."
            + nearest(layer, known),
            fix=f"use one of {', '.join(known)}",
        )


def _check_rates(run: Run, levels: Sequence[str]) -> None:
    layers = [n for n in levels if n not in ("embeddings", "towers", "output")]
    known = ["tables", "towers", "block", *layers, "gates", "heads"]
    for key in run.config.downstream.warm_start_rates:
        if key not in known:
            raise UserError(
                f"downstream.warm_start_rates names the unknown part '{key}'."
                + nearest(key, known),
                fix=f"use some of {', '.join(known)}",
            )


def _check_frozen(method: Method) -> None:
    """Frozen layers cannot learn to read inputs that the upstream did not have."""
    start = method.warm_start
    if start is None or not start.frozen or start.level in ("embeddings", "towers"):
        return
    if method.widens or (method.isomorphic is not None and start.level == "output"):
        raise UserError(
            "Frozen layers cannot learn to read what is joined to their input.",
            received=method.resolved,
            fix="leave out +frozen, or use a gate in place of what is joined",
        )


def chosen_method(run: Run, scenario: str) -> Method:
    """The configured `export.method`, else the first seed's best on validation (mean AUC).

    Raises:
        UserError: The scenario has no trained model, or not one of the configured method.
    """
    values = validation_auc(run, scenario)
    if not values:
        known = trained_scenarios(run)
        raise UserError(
            f"The scenario '{scenario}' has no trained downstream model.{nearest(scenario, known)}",
            received=f"trained: {', '.join(known) or 'none'}",
            fix="run the stage `transfer` for it first",
        )
    wanted = run.config.export.method
    if wanted is not None and wanted not in values:
        raise UserError(
            f"The scenario '{scenario}' has no trained model of method '{wanted}'."
            + nearest(wanted, values),
            fix=f"set export.method to one of {', '.join(values)}, or train it",
        )
    name = wanted or max(values, key=lambda m: values[m])
    return read_method(run, name)


def validation_auc(run: Run, scenario: str) -> dict[str, float]:
    """Method -> mean validation AUC over tasks, of the run's first seed's trained models."""
    found: dict[str, list[float]] = defaultdict(list)
    folder = run.downstream(scenario, "none", run.config.seed).parent.parent
    for path in sorted(folder.glob(f"*/seed_{run.config.seed}/results.json")):
        for entry in json.loads(path.read_text("utf-8"))["entries"]:
            selected = entry["split"] == "valid" and entry["slice"] == "all"
            if selected and entry["refresh"] == "frozen":
                values = found[entry["method"]]
                if entry["metrics"]["auc"] is not None:
                    values.append(entry["metrics"]["auc"])
    return {m: float(np.mean(v)) if v else 0.0 for m, v in found.items()}
