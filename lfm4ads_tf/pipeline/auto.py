"""Training that fits itself to the log: the searches of `training.auto`."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.files import write_json
from lfm4ads_tf.models.two_towers import table_configs
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.group_rates import of_the_model
from lfm4ads_tf.pipeline.named_method import read_method
from lfm4ads_tf.pipeline.pretrained_tables import load_pretrained_tables
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.scoring import mean_auc, predict_rows, targets_of
from lfm4ads_tf.tuning.budget import seconds
from lfm4ads_tf.tuning.cost import Cost
from lfm4ads_tf.tuning.held_out import can_be_scored, hold_last, noise_of
from lfm4ads_tf.tuning.search import (
    OF_THE_CHAIN,
    RATES,
    Log,
    Search,
    Trial,
    first_batch_size,
)
from lfm4ads_tf.tuning.settings import SCHEDULE, Settings, has_dropout
from lfm4ads_tf.tuning.trials import TrialModel, Trials

_LOG = logging.getLogger(__name__)
_UPSTREAM_SHARE = 0.75  # of the budget; the downstream models get the rest, by their rows
_CLOCK = 3.0  # times the budget, after which the clock ends a search
_TRIAL_BYTES = 16  # an element of a table, its slot, and the initial values of both
_MOST_BYTES = 1 << 30  # of tables, in the searches of a cluster's chief
_FIRST_RATES = {"table_learning_rate": 0.1, "dense_learning_rate": 1e-3}
_FIRST_OF_UPSTREAM = {"dropout": 0.2}  # its ids see every scenario several times and overfit first


def choose_upstream(run: Run) -> None:
    """Chooses the upstream's settings once per run; see docs/training.md.

    Raises:
        UserError: The budget is too short for one trial; the message names the smallest one.
    """
    if not _wants_upstream(run):
        return
    prepared = _upstream_search(run)
    section = run.resolved.config.upstream
    tables = section.model_class.tables(section, run.cache.layout)
    reason = prepared.blind() or _too_large(run, tables)
    if reason is not None:
        _LOG.info("training of the upstream is chosen by its size alone: %s", reason)
        settings = prepared.search.start
    else:
        prepared.check(run.config.budget)
        settings = prepared.run()
    chosen = run.resolved.chosen
    run.choose(chosen.model_copy(update={"upstream": _told(settings, prepared.fixed)}))


def choose_downstream(run: Run, scenario: str) -> None:
    """Chooses the settings of a scenario's downstream models, once per run and scenario.

    They are those of the method `none`; all methods train with them.
    """
    chosen = run.resolved.chosen
    if not run.resolved.config.downstream.training.auto or scenario in chosen.downstream:
        return
    if run.resolved.fixed("downstream") >= set(RATES):
        return
    if not chosen.downstream and any((run.out / "downstream").glob("*/*/seed_*")):
        return  # a run whose models were trained before there were searches
    prepared = _downstream_search(run, scenario)
    tables = run.resolved.config.downstream.embeddings
    reason = prepared.blind() or _too_large(run, tables)
    if reason is None and prepared.search.smallest_budget() > prepared.budget:
        reason = f"its share of the budget, {prepared.budget:.0f} s, has no room for a trial"
    settings = prepared.search.start if reason else prepared.run()
    if reason:
        _LOG.info(
            "training of '%s' is chosen by its size alone, since %s: %s",
            scenario,
            reason,
            _list(settings, prepared.fixed),
        )
    known = {**chosen.downstream, scenario: _told(settings, prepared.fixed)}
    run.choose(chosen.model_copy(update={"downstream": known}))


def prepared_search(run: Run, scenario: str | None = None) -> PreparedSearch:
    """The search of the upstream, or of a scenario's downstream models."""
    return _upstream_search(run) if scenario is None else _downstream_search(run, scenario)


class PreparedSearch:
    """A search with its trials, its file and its messages.

    Args:
        run: The run.
        label: Whose training it is, in messages.
        folder: Where `search.json` goes.
        part: `config.upstream` or `config.downstream`.
        fixed: Settings that stay.
        budget: Seconds by the table.
        trials: Makes trials.
        cost: The table.
        more: Further settings of the first trial.
    """

    def __init__(
        self,
        run: Run,
        label: str,
        folder: Path,
        *,
        part: Any,
        fixed: set[str],
        budget: float,
        trials: Trials,
        cost: Cost,
        more: dict[str, float] | None = None,
    ) -> None:
        self.label, self.fixed, self.budget = label, fixed, budget
        self._path = folder / "search.json"
        self._quiet, self._seed = run.quiet, run.config.seed
        self._began = time.monotonic()
        self._walls: list[float] = []
        cache = run.cache
        rows, held = trials.rows, trials.held
        start = Settings.of(part)
        first: dict[str, Any] = {
            "batch_size": first_batch_size(len(rows) + len(held)),
            **_FIRST_RATES,
            **(more or {}),
        }
        self.trials = trials
        self.search = Search(
            log=Log(
                rows=len(rows),
                held=len(held),
                auxiliary=len(trials.auxiliary) * part.training.auxiliary_passes,
                periods=tuple(np.unique(cache.period[rows], return_counts=True)[1].tolist()),
                noise=noise_of(cache.labels[held]),
            ),
            cost=cost,
            budget=budget,
            start=replace(start, **{k: v for k, v in first.items() if k not in fixed}),
            fixed=fixed,
            chain=part.training.schedule == "chain",
            run_trial=trials,
            announce=self._announce,
            expired=lambda: time.monotonic() - self._began > _CLOCK * self.budget,
        )

    def check(self, budget: str) -> None:
        """Refuses a budget without room for one trial."""
        least = self.search.smallest_budget() / _UPSTREAM_SHARE
        if seconds(budget) < least:
            raise UserError(
                "The budget is too short for one trial of the upstream's training.",
                received=f"budget: {budget}; one trial needs {np.ceil(least):.0f}s",
                fix=f"give --budget {np.ceil(least):.0f}s or more, or set "
                "upstream.training.auto=false",
            )

    def blind(self) -> str | None:
        """Why trials cannot be scored; None where the held rows hold both classes of a task."""
        if can_be_scored(self.trials.cache.labels[self.trials.held]):
            return None
        return f"the {len(self.trials.held)} held rows hold no task with both classes"

    def run(self) -> Settings:
        """Runs the search; trials that were made before a kill are taken from the file."""
        search = self.search
        if self._path.exists():
            stored = json.loads(self._path.read_text("utf-8"))
            if stored["seed"] == self._seed:
                search.made = [Trial.from_json(t) for t in stored["trials"]]
                self._walls = stored["wall_s"]
                self._began -= sum(self._walls)
        rows, held = search.log.rows, search.log.held
        _LOG.info(
            "training of %s: searching on %d of its training rows, scored on the %d of the last "
            "%s (%s of users, %.0f s by the cost table)",
            self.label,
            rows,
            held,
            f"{len(np.unique(self.trials.cache.period[self.trials.held]))} training periods",
            f"{search.fraction:.0%}",
            self.budget,
        )
        try:
            settings = search.run()
        finally:
            self.trials.release()
        if search.out_of_time:
            _LOG.warning(
                "the clock ended the search of %s after %d trials: this machine is slower than the "
                "cost table by more than %.0f times, and another run may choose otherwise; give a "
                "larger --budget, or keep what was chosen with --set",
                self.label,
                len(search.trials),
                _CLOCK,
            )
        self._write(settings)
        gain = max(t.value for t in search.trials) - search.trials[0].values[0]
        _LOG.info(
            "training of %s chosen in %.0f s from %d trials (mean AUC %+.4f to one pass with the "
            "first settings): %s",
            self.label,
            time.monotonic() - self._began,
            len(search.trials),
            gain,
            _list(settings, self.fixed),
        )
        for changed, gained in search.kept:
            _LOG.info("  kept: %s (mean AUC %+.4f)", changed, gained)
        last = search.trials[-1]
        if len(last.values) > 1 and last.best == len(last.values) - 1:
            _LOG.info(
                "the last curve of %s was still rising: a larger --budget may find more",
                self.label,
            )
        return settings

    def _announce(self, trial: Trial) -> None:
        """One line a trial, and the file that a killed search goes on from."""
        count = len(self.search.trials)
        if count > len(self.search.made):
            walls = self._walls[len(self.search.made) :]  # of this process
            self._walls.append(round(time.monotonic() - self._began - sum(walls), 2))
            self._write(None)
        if self._quiet:
            return
        before = self.search.trials[0].settings if count > 1 else None
        changed = [
            f"{f.name} {getattr(trial.settings, f.name):g}"
            for f in fields(Settings)
            if (trial.kind == "chain" or f.name not in SCHEDULE)
            and (before is None or getattr(trial.settings, f.name) != getattr(before, f.name))
        ]
        points = "passes" if trial.kind == "epochs" else "final passes"
        best = trial.best + (1 if trial.kind == "epochs" else 0)
        _LOG.info(
            "trial %d of %s: mean AUC %.4f after %d %s of %d (%s)",
            count,
            self.label,
            trial.value,
            best,
            points,
            len(trial.values) - (0 if trial.kind == "epochs" else 1),
            ", ".join(changed) or "the first settings",
        )

    def _write(self, settings: Settings | None) -> None:
        search = self.search
        write_json(
            self._path,
            {
                "seed": self._seed,
                "budget_s": self.budget,
                "fraction_of_users": search.fraction,
                "rows": search.log.rows,
                "held_rows": search.log.held,
                "noise": search.noise,
                "fixed": sorted(self.fixed),
                "trials": [trial.to_json() for trial in search.trials],
                "wall_s": self._walls,
                "kept": [{"changed": c, "gain": g} for c, g in search.kept],
                "chosen": None if settings is None else vars(settings),
            },
        )


def _too_large(run: Run, embeddings: EmbeddingsConfig) -> str | None:
    """Why trials are not made: they are the chief's own, and a cluster's tables may outgrow it.

    None where it holds them, and on one machine, which must hold them to train.
    """
    if run.execution.shards is None:
        return None
    tables = table_configs(run.cache.layout, embeddings)
    elements = sum((t.stored_rows + 1) * t.dim * embeddings.sets for t in tables)
    if elements * _TRIAL_BYTES <= _MOST_BYTES:
        return None
    return (
        f"a search would hold {elements * _TRIAL_BYTES / 1e9:.1f} GB of tables in the chief, and "
        f"{_MOST_BYTES / 1e9:.1f} GB are allowed"
    )


def _wants_upstream(run: Run) -> bool:
    """Whether the upstream's settings are still to be chosen."""
    training, fixed = run.resolved.config.upstream.training, run.resolved.fixed("upstream")
    if not training.auto or run.resolved.chosen.upstream:
        return False
    if fixed >= {*RATES, *(OF_THE_CHAIN if training.schedule == "chain" else ())}:
        return False
    return not any((run.out / "upstream").glob("seed_*/manifest.json"))


def _upstream_search(run: Run) -> PreparedSearch:
    cache, config = run.cache, run.resolved.config
    section = config.upstream

    def make(settings: Settings) -> TrialModel:
        candidate = settings.apply(section)
        model = build.upstream(
            cache.layout, config.model_copy(update={"upstream": candidate}), config.seed
        )
        load_pretrained_tables(run, model.backbone.embeddings, candidate.embeddings)
        objective = Objective(model.loss_terms, model.optimizers(candidate.training.optimizer))
        return TrialModel(model, model.all_embeddings, objective, candidate.training)

    fixed = run.resolved.fixed("upstream")
    if not has_dropout(section.network) or section.read_block is None:
        fixed.add("dropout")
    if section.training.schedule != "chain":
        fixed |= set(SCHEDULE)
    return PreparedSearch(
        run,
        "the upstream",
        run.out / "upstream",
        part=section,
        fixed=fixed,
        budget=_UPSTREAM_SHARE * seconds(config.budget),
        trials=_trials(run, cache.train_rows, cache.auxiliary_rows, make),
        cost=_cost(run, lambda: make(Settings.of(section)).model),
        more=_FIRST_OF_UPSTREAM,
    )


def _downstream_search(run: Run, scenario: str) -> PreparedSearch:
    cache, config = run.cache, run.config
    section = config.downstream
    rows = cache.rows_of("train", scenario)
    method = read_method(run, "none")

    def make(settings: Settings) -> TrialModel:
        candidate = settings.apply(section)
        whole: RunConfig = config.model_copy(update={"downstream": candidate})
        model = build.downstream(cache.layout, whole, method, {}, config.seed)
        load_pretrained_tables(run, model.backbone.embeddings, candidate.embeddings)
        training = of_the_model(run, candidate.training, model, config.seed)
        objective = Objective.of(model.loss_terms, training.optimizer)
        return TrialModel(model, model.all_embeddings, objective, training)

    fixed = run.resolved.fixed("downstream") | set(SCHEDULE)
    if not has_dropout(section.network):
        fixed.add("dropout")
    counts = {
        name: len(cache.rows_of("train", name))
        for name in run.config.scenarios or (*cache.layout.scenarios, *cache.layout.segments)
    }
    asked, least = run.config.scenarios, section.min_rows
    everything = sum(n for name, n in counts.items() if asked is not None or n >= least)
    budget = (1 - _UPSTREAM_SHARE) * seconds(config.budget) * len(rows) / max(1, everything)
    return PreparedSearch(
        run,
        f"'{scenario}'",
        _scenario_folder(run, scenario),
        part=section,
        fixed=fixed,
        budget=budget,
        trials=_trials(run, rows, np.zeros(0, np.int64), make),
        cost=_cost(run, lambda: make(Settings.of(section)).model),
    )


def _scenario_folder(run: Run, scenario: str) -> Path:
    """Folder of all downstream models of a scenario."""
    return run.downstream(scenario, "none", 0).parent.parent


def _trials(
    run: Run, rows: np.ndarray, auxiliary: np.ndarray, make: Callable[[Settings], TrialModel]
) -> Trials:
    cache = run.cache
    held = hold_last(cache.period[rows], cache.labels[rows])

    def score(model: tf_keras.Model, scored: np.ndarray) -> float | None:
        return mean_auc(
            cache, scored, predict_rows(model, cache, scored), targets=targets_of(model)
        )

    return Trials(
        cache,
        rows[~held],
        rows[held],
        auxiliary,
        seed=run.config.seed,
        make=make,
        score=score,
    )


def _cost(run: Run, make: Callable[[], Any]) -> Cost:
    """The table's row for a model."""
    layout = run.cache.layout
    model = make()
    tables = {id(p) for e in _embeddings(model) for p in e.all_parts()}
    dense = [v for v in model.trainable_variables if id(v) not in tables]
    columns = len(layout.fields) + sum(field.width for field in layout.dense)
    return Cost(columns, sum(int(np.prod(v.shape)) for v in dense))


def _embeddings(model: Any) -> Sequence[Any]:
    embeddings: Sequence[Any] = getattr(model, "all_embeddings", None) or [
        model.backbone.embeddings
    ]
    return embeddings


def _told(settings: Settings, fixed: set[str]) -> dict[str, Any]:
    """The settings that were chosen; those that were given stand in the configuration."""
    return {name: value for name, value in vars(settings).items() if name not in fixed}


def _list(settings: Settings, fixed: set[str]) -> str:
    return ", ".join(
        f"{name} {value:g}" + (" (given)" if name in fixed and name not in SCHEDULE else "")
        for name, value in vars(settings).items()
        if name not in fixed or name not in SCHEDULE
    )
