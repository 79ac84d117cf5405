"""The key result in words, computed from the numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from lfm4ads_tf.analysis.markup import PARTS, breakable, plural, spread
from lfm4ads_tf.analysis.result_tables import TITLES, difference
from lfm4ads_tf.analysis.results import BASELINE, UPSTREAM, Results
from lfm4ads_tf.analysis.verdict import LEVEL, verdict

_WORDS = {
    "gain": "a gain",
    "loss": "a loss",
    "noise": "inside the noise",
    "unknown": "untested (one seed)",
}
_SHOWN = 6


def result_sentences(results: Results, seeds: int, point_in_time: Mapping[str, bool]) -> Markup:
    """Sentences on the upstream, on each scenario's best transfer and on retrieval.

    The best transfer is the one with the best validation AUC; what is said about it are its test
    results.

    Args:
        results: The results.
        seeds: Number of seeds of the run.
        point_in_time: Scenario -> whether its results are.
    """
    parts = [_upstream(results), _transfer(results, seeds, point_in_time), _retrieval(results)]
    return Markup().join(parts) or Markup("<p>This run holds no test results yet.</p>")


def _upstream(results: Results) -> Markup:
    tasks = []
    for task in results.names("task", stage="upstream", scenario="all", split="test"):
        values = results.values("auc", "upstream", "all", task, UPSTREAM)
        if values:
            tasks.append(Markup("<strong>{}</strong> for {}").format(spread(values), task))
    if not tasks:
        return Markup()
    sentence = Markup("<p>The upstream foundation model reaches a test AUC of {}.</p>")
    return sentence.format(_listed(tasks))


def _transfer(results: Results, seeds: int, point_in_time: Mapping[str, bool]) -> Markup:
    items, verdicts = [], Counter[str]()
    for scenario in results.names("scenario", stage="downstream", split="test"):
        method = results.chosen_method(scenario)
        if method is None:
            continue
        clauses = []
        for task in results.names("task", stage="downstream", scenario=scenario):
            comparison = results.comparison(scenario, task, method)
            if comparison is not None:
                verdicts[verdict(comparison)] += 1
            clauses.append(_clause(task, comparison) + _baseline(results, scenario, task))
        if not point_in_time.get(scenario, True):
            clauses.append(Markup("not point in time, see the warning"))
        scores = results.validation(scenario)
        ahead = Markup()
        if scores.get(BASELINE, 0.0) >= scores[method]:
            ahead = Markup(f"<code>{BASELINE}</code> is ahead on validation; of the transfers ")
        item = Markup("<strong>{}</strong>: {}validation picks <code>{}</code>. {}.")
        said = Markup("; ").join(clauses)
        items.append(item.format(breakable(scenario), ahead, breakable(method), said))
    if not items:
        return Markup()
    more = plural(len(items) - _SHOWN, "more scenario")
    shown = PARTS.listing(items, _SHOWN, more)
    return _headline(verdicts, seeds) + shown + _multiplicity(results)


def _headline(verdicts: Counter[str], seeds: int) -> Markup:
    total = sum(verdicts.values())
    if not total:
        return Markup(
            f"<p>No transfer can be compared with <code>{BASELINE}</code>: the baseline is missing "
            "or its AUC is undefined.</p>"
        )
    if verdicts["unknown"] == total:
        return Markup(
            f"<p><strong>{'One seed was' if seeds == 1 else 'Single seeds were'} run, so no "
            "difference between transfer and no transfer below can be told from noise.</strong> "
            "Run with <code>--seeds 3</code> or more for a paired test.</p>"
        )
    counted = [
        Markup(f"gains in {verdicts['gain']}"),
        Markup(f"loses in {verdicts['loss']}"),
        Markup(f"is inside the noise in {verdicts['noise'] + verdicts['unknown']}"),
    ]
    return Markup(
        f"<p>Against no transfer (<code>{BASELINE}</code>), the transfer that validation picks "
        f"<strong>{_listed(counted)}</strong> of {plural(total, 'scenario-task pair')} on the test "
        f"rows (paired t-test over seeds, p &lt; {LEVEL}).</p>"
    )


def _clause(task: str, comparison: Mapping[str, Any] | None) -> Markup:
    if comparison is None:
        said = Markup("{}: no comparison, an AUC is undefined or was not computed")
        return said.format(task)
    judged = verdict(comparison)
    said = Markup("{}: {} AUC points, {}")
    return said.format(task, difference(comparison), PARTS.judged(_WORDS[judged], judged))


def _baseline(results: Results, scenario: str, task: str) -> Markup:
    """A remark where the baseline is worse than chance: a difference to it says little."""
    values = results.values("auc", "downstream", scenario, task, BASELINE)
    if not values or sum(values) / len(values) >= 0.5:
        return Markup()
    return Markup(
        f" (<code>{BASELINE}</code> itself ranks worse than chance: AUC {spread(values)})"
    )


def _multiplicity(results: Results) -> Markup:
    """How many of the tests of the tables would pass by chance."""
    tested = 0
    for scenario in results.names("scenario", stage="downstream", split="test"):
        for task in results.names("task", stage="downstream", scenario=scenario):
            for method in results.names("method", stage="downstream", scenario=scenario, task=task):
                found = results.comparison(scenario, task, method)
                tested += found is not None and found["p"] is not None
    if tested < 2:
        return Markup()
    return Markup(
        f'<p class="note">The tables test {tested} differences; where no method had any effect, '
        f"about {LEVEL * tested:.1f} of them would still show p &lt; {LEVEL}.</p>"
    )


def _retrieval(results: Results) -> Markup:
    sentences = []
    for task in results.names("task", stage="retrieval", scenario="all", split="test"):
        for method in results.names("method", stage="retrieval", scenario="all", task=task):
            clauses = []
            for metric in results.metrics("retrieval"):
                values = results.values(metric, "retrieval", "all", task, method)
                if values:
                    name = TITLES.get(metric, metric)
                    clauses.append(Markup("{} of <strong>{}</strong>").format(name, spread(values)))
            if clauses:
                said = Markup("The retriever <code>{}</code> reaches a test {} for {}.")
                sentences.append(said.format(breakable(method), _listed(clauses), task))
    return Markup("<p>{}</p>").format(Markup(" ").join(sentences)) if sentences else Markup()


def _listed(parts: list[Markup]) -> Markup:
    if len(parts) < 2:
        return Markup().join(parts)
    return Markup(", ").join(parts[:-1]) + Markup(" and ") + parts[-1]
