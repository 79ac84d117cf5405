"""The search: which trials are made, in which order, and what is taken from them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from lfm4ads_tf.tuning.cost import Cost
from lfm4ads_tf.tuning.settings import Settings

ScheduleKind = Literal["epochs", "chain"]
RATES = (
    "batch_size",
    "dropout",
    "table_learning_rate",
    "dense_learning_rate",
    "table_l2",
    "weight_decay",
)
"""Settings that the search moves one after the other."""
OF_THE_CHAIN = ("replay", "final_passes", "final_decay")
"""Settings that it chooses with the rates found, where the schedule is the chain."""
_PATIENCE = 2  # points of a curve without a gain before a trial ends
_RATES_SHARE = 0.6  # of the budget, for batch, rates and regularisation; the schedule gets the rest
_RATE_TRIALS = 6  # trials of four passes that the share of the rates has room for
_DECAY = 0.5  # of the rates from one final pass to the next, where it is tried
_MOST_PASSES = 24
_DECAYED_PASSES = 5
_SMALLEST_BATCH, _LARGEST_BATCH = 128, 8192
_STEPS_A_PASS = 16_000  # a smaller batch than this leaves is not tried: it would only be slower


@dataclass(frozen=True)
class Log:
    """The part of the log that a search learns from and is scored on.

    Attributes:
        rows: Training rows but those of the last period or periods.
        held: Rows of the last training period or periods, on which trials are scored.
        auxiliary: Auxiliary rows, which every trial passes over first.
        periods: Rows of each period that is learnt, in order.
        noise: Smallest gain in mean AUC that counts, from the number of positives in `held`.
    """

    rows: int
    held: int
    auxiliary: int
    periods: tuple[int, ...]
    noise: float

    def walked(self, passes: int, replay: int) -> int:
        """Rows that the chain passes over in all."""
        sizes = self.periods
        seen = [sum(sizes[max(0, k - replay) : k + 1]) for k in range(len(sizes))]
        return passes * sum(seen)


@dataclass(frozen=True)
class Trial:
    """A trial that was made.

    Attributes:
        settings: What was tried.
        kind: `epochs`: passes over all rows, shuffled; `chain`: the periods in order, then the
            final passes.
        fraction: Share of the users whose rows it had.
        values: Mean AUC over tasks on the held rows: after each epoch; or after the chain and
            after each final pass.
        cost: Seconds by the fixed table.
    """

    settings: Settings
    kind: ScheduleKind
    fraction: float
    values: tuple[float, ...]
    cost: float

    @property
    def best(self) -> int:
        """Place of the best value, the first of equals."""
        return max(range(len(self.values)), key=lambda k: (self.values[k], -k))

    @property
    def value(self) -> float:
        """The best value."""
        return self.values[self.best]

    def first_within(self, noise: float) -> int:
        """Place of the first value that the best one does not beat by more than the noise."""
        return next(k for k, v in enumerate(self.values) if v >= self.value - noise)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `search.json`."""
        return {
            "kind": self.kind,
            "settings": vars(self.settings),
            "fraction": self.fraction,
            "values": list(self.values),
            "cost_s": self.cost,  # unrounded: a resumed search counts as the killed one did
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Trial:
        """What `to_json` gave."""
        return cls(
            settings=Settings(**stored["settings"]),
            kind=stored["kind"],
            fraction=stored["fraction"],
            values=tuple(stored["values"]),
            cost=stored["cost_s"],
        )


class RunTrial(Protocol):
    """Makes a trial: the values of its curve, one by one, as long as they are asked for."""

    def __call__(self, settings: Settings, kind: ScheduleKind, fraction: float) -> Iterator[float]:
        """See `Trial`."""


@dataclass
class Search:
    """Coordinate search with a ledger of costs by the fixed table.

    One setting after the other is moved both ways, in a fixed order; the better move is kept where
    it gains more than the noise of the held rows, and is then made again. Then the chain's schedule
    is chosen with the rates found: how many earlier periods are mixed into each one, and how many
    passes over all periods follow. The ledger counts what trials cost by the table, so that the
    same log, configuration and budget lead to the same trials on every machine.

    Args:
        log: What is learnt and scored.
        cost: The table.
        budget: Seconds by the table.
        start: Settings of the first trial.
        fixed: Settings that stay as they are.
        chain: Whether the schedule is the chain.
        run_trial: Makes a trial.
        made: Trials that a killed search has made; they are not made again.
        announce: Called with every trial, when it is done.
        expired: Whether the clock has run out; the search then ends with what it has.

    Attributes:
        trials: The trials, in order.
        kept: What changed the choice, and what the mean AUC gained by it.
        out_of_time: Whether the clock ended a trial or the search.
    """

    log: Log
    cost: Cost
    budget: float
    start: Settings
    fixed: Collection[str]
    chain: bool
    run_trial: RunTrial
    made: Sequence[Trial] = ()
    announce: Callable[[Trial], None] = lambda trial: None
    expired: Callable[[], bool] = lambda: False
    trials: list[Trial] = field(default_factory=list)
    kept: list[tuple[str, float]] = field(default_factory=list)
    out_of_time: bool = False

    def run(self) -> Settings:
        """Makes the trials and returns what they chose."""
        rates = self.budget * (_RATES_SHARE if self._has_schedule else 1.0)
        chosen = self._rates(self.start, rates)
        if self._has_schedule:
            chosen = self._schedule(chosen)
        return chosen

    @property
    def fraction(self) -> float:
        """Share of the users that trials learn from: what leaves room for several of them."""
        share = self.budget * (_RATES_SHARE if self._has_schedule else 1.0)
        cost = self._whole_cost(self.start.batch_size, 3.0)
        return _rounded(min(1.0, (share - 3 * self.cost.start(False)) / _RATE_TRIALS / cost))

    @property
    def noise(self) -> float:
        """Smallest gain that counts: that of the held rows, of which trials see a fraction."""
        return float(self.log.noise / self.fraction**0.5)

    def smallest_budget(self) -> float:
        """Seconds below which not even one trial of a hundredth of the users fits."""
        one = self._whole_cost(self.start.batch_size, 1.0) / 100
        share = _RATES_SHARE if self._has_schedule else 1.0
        return (3 * self.cost.start(False) + _RATE_TRIALS * one) / share

    @property
    def _has_schedule(self) -> bool:
        return self.chain and not set(OF_THE_CHAIN) <= set(self.fixed)

    @property
    def _spent(self) -> float:
        return sum(trial.cost for trial in self.trials)

    def _rates(self, settings: Settings, until: float) -> Settings:
        """Moves batch size, rates and regularisation one after the other."""

        kind: ScheduleKind = "chain" if self.chain else "epochs"

        def attempt(tried: Settings) -> Trial | None:
            return self._try(tried, kind, until, until / _RATE_TRIALS)

        best = attempt(settings)
        if best is None:
            return settings
        for moves in self._moves():
            tried = []
            for move in moves:  # from the same place, before one direction is taken
                moved = move(best.settings)
                trial = None if moved is None else attempt(moved)
                if trial is not None:
                    tried.append((trial, move))
            for trial, move in sorted(tried, key=lambda t: -self._value(t[0]))[:1]:
                while self._value(trial) > self._value(best) + self.noise:
                    self._keep(best, trial)
                    best = trial
                    moved = move(best.settings)
                    further = None if moved is None else attempt(moved)
                    if further is None:
                        break
                    trial = further
        return best.settings

    def _moves(self) -> list[list[Callable[[Settings], Settings | None]]]:
        """Per setting the directions in which it is moved."""

        def scaled(name: str, factor: float, low: float, high: float) -> Any:
            def move(settings: Settings) -> Settings | None:
                value = type(getattr(settings, name))(getattr(settings, name) * factor)
                return replace(settings, **{name: value}) if low <= value <= high else None

            return move

        def steps(name: str, values: Sequence[float]) -> Any:
            def move(settings: Settings) -> Settings | None:
                further: Any = [v for v in values if v > getattr(settings, name)]
                return replace(settings, **{name: further[0]}) if further else None

            return move

        def without(name: str) -> Any:
            def move(settings: Settings) -> Settings | None:
                nothing: Any = {name: 0.0}
                return replace(settings, **nothing) if getattr(settings, name) else None

            return move

        small = max(_SMALLEST_BATCH, self.log.rows / _STEPS_A_PASS)
        moves_of = {
            "batch_size": [
                scaled("batch_size", 0.5, small, _LARGEST_BATCH),
                scaled("batch_size", 2, small, _LARGEST_BATCH),
            ],
            "dropout": [steps("dropout", (0.2, 0.4)), without("dropout")],
            "table_learning_rate": [
                scaled("table_learning_rate", 2, 0.01, 0.5),
                scaled("table_learning_rate", 0.5, 0.01, 0.5),
            ],
            "dense_learning_rate": [
                scaled("dense_learning_rate", 2, 1e-4, 8e-3),
                scaled("dense_learning_rate", 0.5, 1e-4, 8e-3),
            ],
            "table_l2": [steps("table_l2", (1e-3, 1e-2))],
            "weight_decay": [steps("weight_decay", (0.1, 1.0))],
        }
        return [moves for name, moves in moves_of.items() if name not in self.fixed]

    def _schedule(self, settings: Settings) -> Settings:
        """Chooses the chain's replay and the passes over all periods after it."""
        deepest = max(0, len(self.log.periods) - 1)
        options = [settings]
        if "replay" not in self.fixed and deepest:
            while deepest > 1 and not self._affordable(replace(settings, replay=deepest)):
                deepest //= 2
            replays = {0, min(2, deepest), deepest}
            options = [replace(settings, replay=replay) for replay in sorted(replays)]
        trials: list[Trial] = []
        for k, option in enumerate(options):
            longest = (self.budget - self._spent) / (len(options) - k)
            trial = self._made(option) or self._try(option, "chain", self.budget, longest)
            if trial is not None:
                trials.append(trial)
        if not trials:
            return settings
        if "final_passes" in self.fixed:  # what counts is where the given passes end
            least = max(map(self._value, trials)) - self.noise
            best = next(trial for trial in trials if self._value(trial) >= least)
            self._keep(trials[0], best)
            return best.settings
        best, passes = self._first_of_best(trials)
        self._keep(trials[0], best)
        if passes:
            self.kept.append((f"final_passes {passes}", best.values[passes] - best.values[0]))
        chosen = replace(best.settings, final_passes=passes)
        if "final_decay" not in self.fixed and passes:
            decayed = replace(chosen, final_decay=_DECAY)
            trial = self._try(decayed, "chain", self.budget, self.budget - self._spent)
            if trial is not None and trial.value > best.value + self.noise:
                chosen = replace(decayed, final_passes=trial.first_within(self.noise))
                self.kept.append((f"final_decay {_DECAY:g}", trial.value - best.value))
        return chosen

    def _value(self, trial: Trial) -> float:
        """What a trial is compared by: its best point, or where given final passes end."""
        return trial.values[-1] if self._ends_given(trial.kind) else trial.value

    def _ends_given(self, kind: ScheduleKind) -> bool:
        """Whether the length of a trial's curve was given."""
        return kind == "chain" and "final_passes" in self.fixed

    def _keep(self, before: Trial, after: Trial) -> None:
        """Notes what a better trial changed."""
        changed = [
            f"{name} {value:g}"
            for name, value in vars(after.settings).items()
            if value != getattr(before.settings, name)
        ]
        if changed:
            self.kept.append((", ".join(changed), self._value(after) - self._value(before)))

    def _first_of_best(self, trials: Sequence[Trial]) -> tuple[Trial, int]:
        """The trial and its final passes that reach the best value but for the noise.

        Of several the one with the fewest final passes is taken: they change the weights that
        held-out rows are represented by, and not those that training rows are.
        """
        least = max(trial.value for trial in trials) - self.noise
        candidates = [
            (next(k for k, value in enumerate(trial.values) if value >= least), index, trial)
            for index, trial in enumerate(trials)
            if trial.value >= least
        ]
        passes, _, trial = min(candidates, key=lambda c: c[:2])
        return trial, passes

    def _made(self, settings: Settings) -> Trial | None:
        """The trial of these settings that there was already, None if there was none."""
        return next((trial for trial in self.trials if trial.settings == settings), None)

    def _affordable(self, settings: Settings) -> bool:
        """Whether the run's own training stays within the budget."""
        rows = self.log.walked(settings.passes, settings.replay) + self.log.auxiliary
        return self.cost.trained(rows, settings.batch_size) <= self.budget

    def _most_passes(self, settings: Settings, kind: ScheduleKind) -> int:
        """Passes over all rows that the run's own training has room for within the budget."""
        rows = self.log.auxiliary
        if kind == "chain":
            rows += self.log.walked(settings.passes, settings.replay)
        left = self.budget - self.cost.trained(rows, settings.batch_size)
        one = self.cost.trained(self.log.rows + self.log.held, settings.batch_size)
        return min(_MOST_PASSES, max(int(left / one), 0 if kind == "chain" else 1))

    def _whole_cost(self, batch_size: int, passes: float) -> float:
        """Seconds of a trial over all users, but for its start."""
        rows = self.log.auxiliary + passes * self.log.rows
        return self.cost.trained(rows, batch_size) + self.cost.scored(passes * self.log.held)

    def _try(
        self, settings: Settings, kind: ScheduleKind, until: float, longest: float
    ) -> Trial | None:
        """Makes a trial for as long as its curve rises and the costs allow.

        Args:
            settings: What is tried.
            kind: See `Trial`.
            until: The ledger must not pass this; the first trial of a search is made anyway.
            longest: Cost of the training itself at which the trial ends; one point of its curve is
                made anyway.

        Returns:
            The trial, None where there is no room for it.
        """
        fraction, log, batch = self.fraction, self.log, settings.batch_size
        rows = log.rows
        if kind == "chain":
            rows = log.walked(settings.passes, settings.replay)
        scored = self.cost.scored(log.held)
        again = (
            bool(self.trials) and self.trials[-1].settings.of_the_step() == settings.of_the_step()
        )
        start = self.cost.start(again)
        cost = start
        cost += fraction * (self.cost.trained(log.auxiliary + rows, batch) + scored)
        one = fraction * (self.cost.trained(log.rows, batch) + scored)
        if self.trials and self._spent + cost > until:
            return None
        known = self.made[len(self.trials)] if len(self.trials) < len(self.made) else None
        if known is None and self.trials and self.expired():
            self.out_of_time = True
            return None
        if known is not None and (known.settings, known.kind) == (settings, kind):
            trial = known
        else:
            most = self._most_passes(settings, kind)
            if kind == "chain":
                if settings.final_decay < 1:  # later passes would move next to nothing
                    most = min(most, _DECAYED_PASSES)
                most = 1 + (settings.final_passes if self._ends_given(kind) else most)
            values: list[float] = []
            for value in self.run_trial(settings, kind, fraction):
                values.append(value)
                risen = max(range(len(values)), key=lambda k: (values[k], -k))
                fallen = risen < len(values) - _PATIENCE and not self._ends_given(kind)
                if len(values) >= most or fallen:
                    break
                if cost - start + one > longest or self._spent + cost + one > until:
                    break
                if self.expired():
                    self.out_of_time = True
                    break
                cost += one
            trial = Trial(settings, kind, fraction, tuple(values), cost)
        self.trials.append(trial)
        self.announce(trial)
        return trial


def _rounded(fraction: float) -> float:
    """A fraction to two digits, at least a hundredth."""
    return max(0.01, round(fraction, 2))


def first_batch_size(rows: int) -> int:
    """Where the search of the batch size starts: some 200 steps a pass, a power of two."""
    size = _SMALLEST_BATCH
    while size < 2048 and size * 2 * 150 <= rows:
        size *= 2
    return size
