"""An Optuna study over the same trials as the search, for who wants more of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.seeding import derive
from lfm4ads_tf.tuning.search import Log, RunTrial, ScheduleKind
from lfm4ads_tf.tuning.settings import Settings

_PATIENCE = 2  # points of a curve without a gain before a trial ends, as in the search
_MOST_POINTS = 24
_RANGES = {
    "batch_size": (6, 13),
    "table_learning_rate": (5e-3, 1.0),
    "dense_learning_rate": (5e-5, 2e-2),
    "dropout": (0.0, 0.6),
    "table_l2": (1e-6, 1.0),
    "weight_decay": (1e-4, 10.0),
}
_LOGARITHMIC = ("table_learning_rate", "dense_learning_rate", "table_l2", "weight_decay")
_LEAST = {"table_l2": 1e-3, "weight_decay": 1e-2}  # below it 0 is tried: so little moves nothing
_STARTUP = 8  # trials drawn at random before the sampler learns from them


def load_optuna() -> Any:
    """The optional library.

    Raises:
        UserError: It is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            "`tune` needs Optuna, which is not installed.",
            received=str(error),
            fix="install the extra: pip install 'lfm4ads-tf[tune]', or pip install optuna",
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@dataclass(frozen=True)
class StudyTrial:
    """A finished trial of a study.

    Attributes:
        number: Its place in the study, from 1 on.
        settings: What was tried; of the chain with as many final passes as its curve asks for.
        value: Mean AUC over tasks on the held rows with these settings.
        pruned: Whether it was ended early, since others were better at the same point.
    """

    number: int
    settings: Settings
    value: float
    pruned: bool


@dataclass
class Study:
    """A study of settings, kept in a file so that a killed one goes on.

    The sampler (TPE) is made anew for every trial, from the seed and the number of finished
    trials: a study that was killed ends as one that was not.

    Args:
        path: SQLite file of the study; it may hold several.
        name: Name of the study in it.
        seed: Seed of the sampler.
        log: What is learnt and scored.
        start: Settings of the first trial.
        fixed: Settings that stay as they are.
        chain: Whether the schedule is the chain.
        run_trial: Makes a trial.
        announce: Called with every trial, when it is done.
    """

    path: Path
    name: str
    seed: int
    log: Log
    start: Settings
    fixed: Collection[str]
    chain: bool
    run_trial: RunTrial
    announce: Callable[[StudyTrial], None] = lambda trial: None

    def __post_init__(self) -> None:
        optuna = load_optuna()
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._optuna = optuna
        self._study = optuna.create_study(
            storage=f"sqlite:///{self.path}",
            study_name=self.name,
            direction="maximize",
            load_if_exists=True,
            # A curve is compared once some trials have shown theirs; its first point says little.
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
        )

    @property
    def trials(self) -> list[StudyTrial]:
        """Finished trials, best first; those that were pruned come last."""
        trials = [self._read(k, t) for k, t in enumerate(self._finished(), start=1)]
        return sorted(trials, key=lambda t: (t.pruned, -t.value, t.number))

    def run(self, trials: int, timeout: float | None = None) -> None:
        """Makes trials until the study holds so many, or the time is over.

        Args:
            trials: Finished trials of the study in all, those of earlier calls included.
            timeout: Seconds after which no further trial begins.
        """
        states = self._optuna.trial.TrialState
        for left in self._study.get_trials(deepcopy=False, states=[states.RUNNING]):
            self._study.tell(left.number, state=states.FAIL)  # a killed one; it is made again
        began = time.monotonic()
        while (count := len(self._finished())) < trials:
            if timeout is not None and count and time.monotonic() - began > timeout:
                return
            if not count and not self._study.get_trials(deepcopy=False, states=[states.WAITING]):
                self._study.enqueue_trial(self._first())
            self._study.sampler = self._optuna.samplers.TPESampler(
                seed=derive(self.seed, f"study trial {count}"), n_startup_trials=_STARTUP
            )
            self._make(self._study.ask())

    def _make(self, trial: Any) -> None:
        """Makes one trial; its curve is compared with the others' at every point."""
        settings = self._suggest(trial)
        kind: ScheduleKind = "chain" if self.chain else "epochs"
        given = self.chain and "final_passes" in self.fixed
        most = 1 + settings.final_passes if given else _MOST_POINTS
        values: list[float] = []
        pruned = False
        for value in self.run_trial(settings, kind, 1.0):
            values.append(value)
            trial.report(value, step=len(values) - 1)
            if len(values) >= most:
                break
            best = max(range(len(values)), key=lambda k: (values[k], -k))
            if not given and best < len(values) - _PATIENCE:
                break
            if trial.should_prune():
                pruned = True
                break
        # The curve's last point where the passes are given, else the first that no later one beats
        # by more than the noise.
        place = len(values) - 1
        if not given:
            place = next(k for k, v in enumerate(values) if v >= max(values) - self.log.noise)
        if self.chain and not given:
            settings = replace(settings, final_passes=place)
        trial.set_user_attr("settings", vars(settings))
        trial.set_user_attr("value", values[place])
        state = self._optuna.trial.TrialState
        if pruned:
            self._study.tell(trial, state=state.PRUNED)
        else:
            self._study.tell(trial, values[place], state=state.COMPLETE)
        self.announce(StudyTrial(len(self._finished()), settings, values[place], pruned))

    def _finished(self) -> list[Any]:
        states = self._optuna.trial.TrialState
        return list(self._study.get_trials(deepcopy=False, states=[states.COMPLETE, states.PRUNED]))

    def _read(self, number: int, trial: Any) -> StudyTrial:
        stored = trial.user_attrs
        pruned = trial.state == self._optuna.trial.TrialState.PRUNED
        return StudyTrial(number, Settings(**stored["settings"]), stored["value"], pruned)

    def _suggest(self, trial: Any) -> Settings:
        """Settings of a trial."""
        moved: dict[str, Any] = {}
        for name, (low, high) in self._ranges().items():
            if isinstance(low, int):
                moved[name] = trial.suggest_int(name, low, high)
            else:
                moved[name] = trial.suggest_float(name, low, high, log=name in _LOGARITHMIC)
        for name, least in _LEAST.items():
            if moved.get(name, least) < least:
                moved[name] = 0.0
        if "batch_size" in moved:
            moved["batch_size"] = 2 ** moved["batch_size"]
        return replace(self.start, **moved)

    def _first(self) -> dict[str, Any]:
        """What `_suggest` turns into the first settings; those outside of a range are moved in."""
        known = {**vars(self.start), "batch_size": self.start.batch_size.bit_length() - 1}
        ranges = self._ranges()
        return {name: min(max(known[name], low), high) for name, (low, high) in ranges.items()}

    def _ranges(self) -> dict[str, tuple[float, float]]:
        """Setting that may move -> lowest and highest value; of the batch size, the power of 2."""
        ranges: dict[str, tuple[float, float]] = dict(_RANGES)
        if self.chain:
            ranges |= {"passes": (1, 4), "final_decay": (0.3, 1.0)}
            ranges["replay"] = (0, max(0, len(self.log.periods) - 1))
        return {name: span for name, span in ranges.items() if name not in self.fixed}
