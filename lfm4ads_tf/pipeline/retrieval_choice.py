"""Which retrieval model of a run is exported."""

from __future__ import annotations

import json

from lfm4ads_tf.pipeline.retrieval_data import ALL
from lfm4ads_tf.pipeline.retrieval_model import retrieval_methods, retrieval_scenarios
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.transfer.retrieval.method import RetrievalMethod


def chosen_retrieval(run: Run) -> tuple[str, RetrievalMethod] | None:
    """Scenario and method of the first seed: `all` or the largest scenario, best by validation.

    Returns:
        None when no retrieval model is trained; the first method where recall@k is undefined.
    """
    if not run.config.retrieval.enabled:
        return None
    scenarios = retrieval_scenarios(run)
    for scenario in sorted(scenarios, key=lambda s: (s != ALL, -_size(run, s))):
        values: dict[RetrievalMethod, float] = {}
        for method in retrieval_methods(run):
            path = run.retrieval(scenario, method.name, run.config.seed) / "results.json"
            if not path.exists():
                continue
            entries = json.loads(path.read_text("utf-8"))["entries"]
            name = f"recall@{run.config.retrieval.k}"
            values[method] = max(
                (
                    e["metrics"][name]
                    for e in entries
                    if (e["split"], e["scenario"]) == ("valid", scenario)
                ),
                default=-1.0,
            )
        if values:
            return scenario, max(values, key=lambda m: values[m])
    return None


def _size(run: Run, scenario: str) -> int:
    """Training rows."""
    return 0 if scenario == ALL else len(run.cache.rows_of("train", scenario))
