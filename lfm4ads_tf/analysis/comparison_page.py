"""The page of a comparison of upstream models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from markupsafe import Markup

from lfm4ads_tf.analysis.abundance_table import ABUNDANCE_NOTE
from lfm4ads_tf.analysis.comparison_curves import CURVE_NOTE, curve_panels
from lfm4ads_tf.analysis.comparison_figure import difference_panels
from lfm4ads_tf.analysis.comparison_tables import (
    abundance_tables,
    cost_table,
    difference_table,
    observed_table,
    overall_table,
    place_tables,
    rate_table,
)
from lfm4ads_tf.analysis.markup import PARTS, breakable, count, macros, page
from lfm4ads_tf.analysis.palette import Palette
from lfm4ads_tf.analysis.results import MIN_LABELS, MIN_ROWS
from lfm4ads_tf.analysis.stylesheet import stylesheet

_OVERALL_NOTE = (
    "All test rows, mean ± deviation over seeds. GAUC is the AUC within users, weighted by rows; "
    "logloss is in nats; calibration is mean prediction over mean label (1 is best). The best mean "
    "of a column is underlined whether or not its lead is more than noise. A dash: undefined."
)
_TRUTH_NOTE = (
    "The true probabilities are known here: the best possible AUC ranks the same rows by them, the "
    "logloss of the truth is what they lose on the same labels, and “error” is the mean absolute "
    "difference of prediction and true probability."
)
_DIFFERENCE_NOTE = (
    "Difference in test AUC to {}, in AUC points (hundredths), over all rows; the whisker is the "
    "95 % interval of a paired bootstrap over users. Pale: the interval holds zero, or p ≥ 0.05 "
    "over seeds after Holm's correction. Each panel has an axis of its own."
)
_SCENARIO_NOTE = (
    "The same on each scenario's own rows, to {}. Holm's correction is over models, scenarios and "
    "tasks."
)
_TEST_NOTE = (
    "± is the deviation of the differences paired by seed, p the paired t-test's, “p, Holm” "
    "corrected for all models and tasks of this baseline. “Can detect”: the true difference that a "
    "paired t-test at 5 % over this many seeds finds in four of five cases, were the deviation "
    "that of the model's own pairs, and were it that of all models' pairs of the task; the "
    "deviation of a few pairs is uncertain itself, so the latter is the steadier one."
)
_PLACE_NOTE = (
    "Test AUC, mean over seeds; the best of a row is underlined where it has "
    f"{MIN_ROWS} rows and {MIN_LABELS} positives and negatives at least."
)
_COST_NOTE = (
    "Floats are trainable numbers; a table's row for missing ids counts. Examples a second: median "
    "over the trainings, validation left out; on a busy machine it says little. Epochs: until the "
    "best one, by seed."
)
_OBSERVED_NOTE = (
    "Means over the validation rows of what a model is observed by, mean ± deviation over seeds; "
    "of tokens over a sample of these rows. docs/models has a page on each model."
)
_RATE_NOTE = (
    "Mean validation AUC over tasks with the first seed, and the best epoch; the highest decides. "
    "The last columns are the chosen learning rates themselves."
)


def comparison_page(document: Mapping[str, Any]) -> str:
    """The comparison as one HTML document that loads nothing.

    Args:
        document: What `comparison.json` holds.

    Returns:
        The document's text.
    """
    sections = [section for section in _sections(document) if section[-1]]
    return page(
        "comparison.html",
        comparison=document,
        sentences=[_sentence(leader) for leader in document["leaders"]],
        warnings=_warnings(document),
        sections=sections,
        style=stylesheet(),
    )


def _sections(document: Mapping[str, Any]) -> list[tuple[str, str, Markup]]:
    """(anchor, title, content) in order; empty content leaves the section out."""
    palette = Palette(document["models"])
    overall_note = f"{_OVERALL_NOTE} {_TRUTH_NOTE}" if document["truth"] else _OVERALL_NOTE
    scenarios = place_tables(document, "scenario")
    slices = place_tables(document, "slice")
    config = yaml.safe_dump(document["config"], sort_keys=False, allow_unicode=True)
    made = macros("comparison_made.html").made(document)
    made += PARTS.details("Resolved configuration", Markup("<pre>{}</pre>").format(config))
    return [
        ("results", "Results on all test rows", PARTS.noted(overall_note, overall_table(document))),
        ("curves", "AUC and abundance by size", PARTS.noted(CURVE_NOTE, curve_panels(document))),
        ("differences", "Differences", _differences(document, palette)),
        ("by-scenario", "Differences by scenario", _scenario_differences(document, palette)),
        ("scenarios", "By scenario", PARTS.noted(_PLACE_NOTE, scenarios)),
        ("slices", "By slice", PARTS.noted(_PLACE_NOTE, slices)),
        ("cost", "Cost", PARTS.noted(_COST_NOTE, cost_table(document))),
        (
            "rates",
            "Learning rates",
            PARTS.noted(_RATE_NOTE + _ends(document), rate_table(document)),
        ),
        (
            "abundance",
            "Information abundance",
            PARTS.noted(ABUNDANCE_NOTE, abundance_tables(document)),
        ),
        ("observed", "Inside the models", PARTS.noted(_OBSERVED_NOTE, observed_table(document))),
        ("made", "How it was made", made),
    ]


def _differences(document: Mapping[str, Any], palette: Palette) -> Markup:
    """Differences to every baseline over all rows."""
    parts = Markup()
    for baseline in document["baselines"]:
        panels = difference_panels(document, baseline, palette)
        parts += PARTS.noted(_DIFFERENCE_NOTE.format(baseline), panels)
        parts += PARTS.noted(_TEST_NOTE, difference_table(document, baseline))
    return parts


def _scenario_differences(document: Mapping[str, Any], palette: Palette) -> Markup:
    """The same on each scenario's rows; nothing unless the scenarios are the axis."""
    parts = Markup()
    for baseline in document["baselines"] if document["axis"] == "scenario" else ():
        told = Markup()
        for scenario in _by_size(document):
            told += Markup("<h3>{}</h3>").format(breakable(scenario))
            told += difference_panels(document, baseline, palette, scenario)
            told += difference_table(document, baseline, scenario)
        parts += PARTS.noted(_SCENARIO_NOTE.format(baseline), told)
    return parts


def _by_size(document: Mapping[str, Any]) -> list[str]:
    """The scenarios, that of the most test rows first."""
    sizes = {e["scenario"]: e["rows"] for e in document["means"] if e["scenario"] != "all"}
    return sorted(sizes, key=lambda scenario: -sizes[scenario])


def _ends(document: Mapping[str, Any]) -> str:
    """Which models chose a rate at an end of the range."""
    rates = document["rates"]
    ends = (min(rates), max(rates))
    models = [cost["model"] for cost in document["costs"] if cost["rate"] in ends]
    if not models:
        return ""
    return f" At an end of the range, where a further rate may be better: {', '.join(models)}."


def _sentence(leader: Mapping[str, Any]) -> Markup:
    """Who leads on a task, who is not told apart from it, and who is behind."""
    where = breakable(leader["task"])
    if leader["scenario"] != "all":
        where = Markup("{}, {}").format(breakable(leader["scenario"]), where)
    text = Markup("<strong>{}</strong>: {} leads with AUC {}").format(
        where, breakable(leader["model"]), f"{leader['auc']:.4f}"
    )
    if leader["ties"]:
        text += Markup("; a tie with {}").format(_listed(leader["ties"]))
    if leader["behind"]:
        text += Markup("; behind: {}").format(_listed(leader["behind"]))
    if leader["other_labels"]:
        text += Markup("; scored on other labels and not compared: {}").format(
            _listed(leader["other_labels"])
        )
    return text + "."


def _warnings(document: Mapping[str, Any]) -> list[Markup]:
    """What a reader must know before believing a number."""
    told = []
    if len(document["seeds"]) == 1:
        told.append(Markup("One seed: deviations are unknown and no t-test is possible."))
    others: dict[tuple[str, str], Mapping[str, Any] | None] = {
        (e["task"], e["model"]): None for e in document["means"] if not e["labels"]
    }
    for entry in document["comparisons"]:
        place = (entry["task"], entry["model"])
        if place in others and entry["scenario"] == "all" and entry["comparable"]:
            others[place] = entry
    for (task, model), entry in others.items():
        text = Markup("{} of {} is scored on other labels than the spec's").format(
            breakable(task), breakable(model)
        )
        if entry is None:
            text += ", so its numbers stand beside those of the other models and are not compared."
        else:
            text += f", in {count(entry['rows_left_out'])} rows, which its differences leave out."
        told.append(text)
    return told


def _listed(names: list[str]) -> Markup:
    return Markup(", ").join(breakable(name) for name in names)
