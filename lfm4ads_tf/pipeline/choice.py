"""Which downstream method of a scenario is exported and used for predictions."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.pipeline.named_method import read_method
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.transfer.methods import Method


def trained_scenarios(run: Run) -> list[str]:
    """Scenarios and segments with a trained downstream model, in the layout's order."""
    layout = run.cache.layout
    return [s for s in (*layout.scenarios, *layout.segments) if validation_auc(run, s)]


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
    by_method: dict[str, list[float]] = defaultdict(list)
    folder = run.downstream(scenario, "none", run.config.seed).parent.parent
    for path in sorted(folder.glob(f"*/seed_{run.config.seed}/results.json")):
        for entry in json.loads(path.read_text("utf-8"))["entries"]:
            selected = entry["split"] == "valid" and entry["slice"] == "all"
            if selected and entry["refresh"] == "frozen":
                values = by_method[entry["method"]]
                if entry["metrics"]["auc"] is not None:
                    values.append(entry["metrics"]["auc"])
    return {m: float(np.mean(v)) if v else 0.0 for m, v in by_method.items()}
