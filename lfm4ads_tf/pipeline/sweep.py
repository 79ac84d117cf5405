"""`train.py sweep`: ranks layers, granularities and adapters on the validation split."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lfm4ads_tf.analysis.sweep_page import sweep_page
from lfm4ads_tf.files import write_json, write_text
from lfm4ads_tf.pipeline.downstream_plan import downstream_scenarios, run_methods, warn_skipped
from lfm4ads_tf.pipeline.extract import extract
from lfm4ads_tf.pipeline.prepare import prepare
from lfm4ads_tf.pipeline.pretrain import pretrain
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.stored_results import stored_results
from lfm4ads_tf.pipeline.sweep_candidate import BASELINE, SUM, SweepCandidate, sweep_candidates
from lfm4ads_tf.pipeline.sweep_options import SweepOptions
from lfm4ads_tf.pipeline.sweep_ranking import choice, mean_values, ranking, require_choice
from lfm4ads_tf.pipeline.sweep_table import print_sweep
from lfm4ads_tf.pipeline.transfer import train_downstream
from lfm4ads_tf.progress import Activity
from lfm4ads_tf.written import dump

SCHEMA = 1
ALL = "all"

_LOG = logging.getLogger(__name__)
_Table = dict[str, dict[int, float | None]]  # method -> seed -> AUC


def run_sweep(
    options: SweepOptions, run: Run, *, further: bool, data_dir: Path | None, console: Console
) -> None:
    """Runs the stages before the downstream where they are missing, then the sweep.

    Args:
        options: The grid.
        run: What `resolve_run` gave.
        further: Whether the run's methods are compared beside the grid.
        data_dir: Folder of the data files, None where they are fetched.
        console: Where the ranking is printed.

    Raises:
        UserError: Anything that the user can mend.
    """
    others = [m.name for m in run_methods(run)] if further else []
    candidates = sweep_candidates(run, options, others)  # wrong names are refused before writing
    run.begin()
    prepare(run, data_dir)
    downstream_scenarios(run)  # so is a wrong scenario name
    warn_skipped(run)
    for seed in run.config.all_seeds:
        pretrain(run, seed)
        extract(run, seed)
    print_sweep(sweep(run, candidates, options.task), console)
    console.print(f"figures: {run.out / 'sweep.html'}")
    console.print(f"chosen:  {run.out / 'sweep' / 'chosen.yaml'} (for --config)")


def sweep(
    run: Run, candidates: Sequence[SweepCandidate], task: str | None = None
) -> dict[str, Any]:
    """Trains what is missing, ranks on validation, and writes the results and the choice.

    Only validation scores are read. They are kept in `OUT/sweep/results.json`, drawn in
    `OUT/sweep.html`, and the chosen configuration is `OUT/sweep/chosen.yaml`.

    Args:
        run: A run with representations of its seeds.
        candidates: What is compared.
        task: Task whose AUC ranks; the mean over tasks when absent.

    Returns:
        What `results.json` holds.

    Raises:
        UserError: No configuration can be ranked.
    """
    scenarios = downstream_scenarios(run)
    trainings = [
        (scenario, candidate, seed)
        for seed in run.config.all_seeds
        for scenario in scenarios
        for candidate in candidates
    ]
    shape = (len(candidates), len(scenarios), run.config.seeds)
    _LOG.info("sweep: %d models: methods %d, scenarios %d, seeds %d", len(trainings), *shape)
    with Activity("sweep, models", len(trainings), quiet=run.quiet) as activity:
        for done, (scenario, candidate, seed) in enumerate(trainings):
            if done and done % 25 == 0:
                _LOG.info("sweep: %d of %d models", done, len(trainings))
            train_downstream(run, scenario, candidate.method, seed)
            activity.advance(1)
    document = _document(run, scenarios, candidates, task)
    write_json(run.out / "sweep" / "results.json", document)
    write_text(run.out / "sweep.html", sweep_page(document))
    write_text(run.out / "sweep" / "chosen.yaml", _chosen_yaml(document))
    return document


def _document(
    run: Run, scenarios: Sequence[str], candidates: Sequence[SweepCandidate], task: str | None
) -> dict[str, Any]:
    """What `results.json` holds, see docs/sweep.md."""
    tasks = run.spec.task_names
    values: dict[tuple[str, str], _Table] = {}
    rows: dict[tuple[str, str], float] = {}
    for scenario in scenarios:
        by_task = _validation(run, scenario, candidates)
        for name in tasks:
            values[scenario, name], rows[scenario, name] = by_task[name]
        values[scenario, ALL] = mean_values([(1.0, values[scenario, t]) for t in tasks])
        rows[scenario, ALL] = sum(rows[scenario, t] for t in tasks) / len(tasks)
    # Segments hold rows of the scenarios, which would count twice.
    counted = [s for s in scenarios if s not in run.cache.layout.segments] or list(scenarios)
    shown = [*tasks, ALL] if len(tasks) > 1 else list(tasks)
    for name in shown:
        parts = [(rows[s, name], values[s, name]) for s in counted]
        values[ALL, name] = mean_values(parts)
        rows[ALL, name] = sum(weight for weight, _ in parts)
    ranked_by = task or shown[-1]
    return {
        "schema": SCHEMA,
        "spec": run.spec.name,
        "split": "valid",
        "refresh": "frozen",
        "metric": "auc",
        "baseline": BASELINE,
        "ranked_by": ranked_by,
        "seeds": run.config.all_seeds,
        "configurations": len(candidates) - 1,
        "layers": _layers(run, candidates),
        "rows": {s: round(rows[s, ranked_by]) for s in (ALL, *scenarios)},
        "results": [
            entry
            for scenario in dict.fromkeys((ALL, *scenarios))
            for name in shown
            for entry in _entries(scenario, name, candidates, values[scenario, name])
        ],
        "chosen": {
            ALL: require_choice(values[ALL, ranked_by]),
            **{s: choice(values[s, ranked_by]) for s in scenarios},
        },
    }


def _layers(run: Run, candidates: Sequence[SweepCandidate]) -> list[str]:
    """The compared layers, in the upstream's order."""
    names = run.config.upstream.layer_names(run.spec.task_names)
    compared = {c.layer for c in candidates}
    return [n for n in ("embeddings", *names, "output") if n in compared]


def _validation(
    run: Run, scenario: str, candidates: Sequence[SweepCandidate]
) -> dict[str, tuple[_Table, float]]:
    """Task -> AUC by method and seed on all validation rows, frozen; and the labelled rows."""
    by_task: dict[str, tuple[_Table, float]] = {t: ({}, 0.0) for t in run.spec.task_names}
    for candidate in candidates:
        name = candidate.method.name
        for seed in run.config.all_seeds:
            stored = stored_results(run.downstream(scenario, name, seed) / "results.json")
            for entry in stored["entries"]:
                kind = (entry["split"], entry["slice"], entry["refresh"])
                if kind == ("valid", "all", "frozen"):
                    table, _ = by_task[entry["task"]]
                    table.setdefault(name, {})[seed] = entry["metrics"]["auc"]
                    by_task[entry["task"]] = table, float(entry["rows"])
    return by_task


def _entries(
    scenario: str, task: str, candidates: Sequence[SweepCandidate], values: _Table
) -> list[dict[str, Any]]:
    ranked = ranking(values)
    return [
        {
            "scenario": scenario,
            "task": task,
            "method": c.method.name,
            "level": c.level,
            "adapter": c.adapter,
            "side": c.side,
            "layer": c.layer,
            **ranked[c.method.name],
        }
        for c in candidates
    ]


def _chosen_yaml(document: Mapping[str, Any]) -> str:
    """Configuration keys that make the chosen configuration `full`, under how it was chosen."""
    chosen = document["chosen"]
    ranked_by = document["ranked_by"]
    lines = [
        "Chosen by `train.py sweep` on the validation split: highest mean AUC over seeds "
        f"{', '.join(map(str, document['seeds']))}",
        f"({'mean over tasks' if ranked_by == ALL else f'task {ranked_by}'}), weighted by rows "
        f"over scenarios, out of {document['configurations']} configurations.",
        "Alone in its scenario the best would be:",
        *(
            f"  {scenario}: {best['method'] if best else 'undefined'}"
            for scenario, best in chosen.items()
            if scenario != ALL
        ),
    ]
    keys = {
        "downstream": {
            "full": chosen[ALL]["method"],
            "methods": [BASELINE, *([SUM] if chosen[ALL]["method"] != SUM else []), "full"],
        }
    }
    return "".join(f"# {line}\n" for line in lines) + dump(keys)
