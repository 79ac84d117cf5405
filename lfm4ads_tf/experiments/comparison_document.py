"""What `comparison.json` holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.splits import SPLITS
from lfm4ads_tf.experiments.compared_model import ComparedModel
from lfm4ads_tf.experiments.comparison_settings import ComparisonSettings
from lfm4ads_tf.experiments.feedback_slices import FeedbackSlices
from lfm4ads_tf.experiments.model_differences import ComparedScores, correct
from lfm4ads_tf.features.fitted_encoding import ALL
from lfm4ads_tf.pipeline.intervals import affordable_resamples

SCHEMA = 1
_PLACE = ("model", "scenario", "task", "slice")


def comparison_document(
    settings: ComparisonSettings,
    models: Sequence[ComparedModel],
    trained: Mapping[str, Mapping[str, Any]],
    cache: EncodedCache,
    slices: FeedbackSlices | None = None,
) -> dict[str, Any]:
    """The comparison as plain values, see docs/experiments.md.

    Args:
        settings: What the call asked for.
        models: The models.
        trained: Model -> what `ComparedModel.complete` gave.
        cache: The encoded data.
        slices: Further slices of all test rows.
    """
    results = []
    for model in models:
        rate = trained[model.name]["rate"]
        for training in trained[model.name]["seeds"]:
            found = model.entries(rate, training["seed"])
            if slices is not None:
                found += model.entries_of(slices, rate, training["seed"])
            results += [_result(model.name, entry) for entry in found]
    comparisons, leaders = _differences(settings, models, trained, cache)
    first = models[0]
    training = first.config.training
    dump = first.resolved.spec.model_dump(mode="json", exclude={"run", "skew"})
    return {
        "schema": SCHEMA,
        "command": settings.command,
        "spec": first.resolved.spec.name,
        "axis": settings.axis,
        "models": [model.name for model in models],
        "baselines": settings.baselines,
        "seeds": list(settings.seeds),
        "tasks": list(cache.layout.tasks),
        "scenarios": [n for n in (*cache.layout.scenarios, *cache.layout.segments) if n != ALL],
        "rows": {split: len(cache.rows_of(split)) for split in SPLITS},
        "auxiliary_rows": len(cache.auxiliary_rows),
        "auxiliary_passes": training.auxiliary_passes,
        "split": dump["split"],
        "rates": list(settings.rates),
        "batch_size": training.batch_size,
        "epochs": training.epochs,
        "patience": training.patience,
        "feedback_pair": list(settings.feedback_pair),
        "truth": cache.best_possible is not None,
        "costs": [_cost(model, trained[model.name]) for model in models],
        "curves": {curve: list(names) for curve, names in settings.curves.items()},
        **{
            key: [
                {"model": model.name, **of_seed}
                for model in models
                for of_seed in trained[model.name][key]
            ]
            for key in ("abundance", "observed")
        },
        "leaders": leaders,
        "results": results,
        "means": _means(results),
        "comparisons": comparisons,
        "config": {
            "spec": dump,
            "upstream": {m.name: m.config.model_dump(mode="json") for m in models},
        },
    }


def _result(model: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of `scores.json` under the model's name."""
    kept = ("scenario", "task", "slice", "seed", "rows", "positives", "labels", "metrics")
    return {"model": model, **{key: entry[key] for key in kept}}


def _cost(model: ComparedModel, trained: Mapping[str, Any]) -> dict[str, Any]:
    """What a model is made of, how its rate was chosen, and how fast it was trained."""
    optimizer = model.config.training.optimizer
    speeds = {(training["seed"], trained["rate"]): training for training in trained["seeds"]}
    first = trained["seeds"][0]["seed"]
    speeds |= {(first, tried["rate"]): tried for tried in trained["rates"]}
    known = [t["examples_per_s"] for t in speeds.values() if t.get("examples_per_s") is not None]
    return {
        "model": model.name,
        "upstream": model.config.model,
        **model.sizes,
        "sets": model.config.model_class.tables(model.config, model.run.cache.layout).sets,
        "rate": trained["rate"],
        "table_learning_rate": trained["rate"] * optimizer.table_learning_rate,
        "dense_learning_rate": trained["rate"] * optimizer.dense_learning_rate,
        "rates": trained["rates"],
        "trainings": trained["seeds"],
        "examples_per_s": float(np.median(known)) if known else None,
    }


def _means(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and deviation over seeds of every metric; a deviation needs two of them."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for entry in results:
        groups.setdefault(tuple(entry[key] for key in _PLACE), []).append(entry)
    found = []
    for place, entries in groups.items():
        metrics = {}
        for name in entries[0]["metrics"]:
            known = [e["metrics"][name] for e in entries if e["metrics"][name] is not None]
            metrics[name] = {
                "mean": float(np.mean(known)) if known else None,
                "sd": float(np.std(known, ddof=1)) if len(known) > 1 else None,
            }
        kept = {key: entries[0][key] for key in ("rows", "positives", "labels")}
        found.append({**dict(zip(_PLACE, place, strict=True)), **kept, "metrics": metrics})
    return found


def _differences(
    settings: ComparisonSettings,
    models: Sequence[ComparedModel],
    trained: Mapping[str, Mapping[str, Any]],
    cache: EncodedCache,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Comparisons with every baseline by scenario and task, and each task's leader: on all rows,
    and with scenarios as the axis on each scenario's."""
    stored = {
        model.name: {
            training["seed"]: model.predictions(trained[model.name]["rate"], training["seed"])
            for training in trained[model.name]["seeds"]
        }
        for model in models
    }
    rows = cache.rows_of("test")
    users = np.asarray(cache.user[rows])
    names = dict.fromkeys([ALL, *cache.layout.scenarios, *cache.layout.segments])
    comparisons: list[dict[str, Any]] = []
    leaders = []
    for scenario in names:
        mine = np.isin(rows, cache.rows_of("test", None if scenario == ALL else scenario))
        if not mine.any():
            continue
        for k, task in enumerate(cache.layout.tasks):
            scored = ComparedScores(
                {"scenario": scenario, "task": task},
                {
                    name: {s: arrays["probabilities"][mine, k] for s, arrays in seeds.items()}
                    for name, seeds in stored.items()
                },
                {n: next(iter(seeds.values()))["targets"][mine, k] for n, seeds in stored.items()},
                users[mine],
                affordable_resamples(len(rows)),
            )
            for baseline in settings.baselines:
                comparisons += scored.against(baseline)
            if scenario == ALL or settings.axis == "scenario":
                leader = scored.leader()
                leaders += [] if leader is None else [leader]
    correct([entry for entry in comparisons if entry["scenario"] == ALL])
    if settings.axis == "scenario":
        correct([entry for entry in comparisons if entry["scenario"] != ALL])
    return comparisons, leaders
