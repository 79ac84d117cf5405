"""The report's page."""

from __future__ import annotations

from markupsafe import Markup

from lfm4ads_tf.analysis.abundance_table import ABUNDANCE_NOTE, abundance_table
from lfm4ads_tf.analysis.calibration_table import calibration_table
from lfm4ads_tf.analysis.curve_panels import calibration_panels, training_panels
from lfm4ads_tf.analysis.markup import PARTS, breakable, page
from lfm4ads_tf.analysis.method_bars import MethodBars
from lfm4ads_tf.analysis.overview import Overview
from lfm4ads_tf.analysis.palette import Palette
from lfm4ads_tf.analysis.report_data import ReportData
from lfm4ads_tf.analysis.result_sentences import result_sentences
from lfm4ads_tf.analysis.result_tables import result_tables
from lfm4ads_tf.analysis.results import Results
from lfm4ads_tf.analysis.stylesheet import stylesheet
from lfm4ads_tf.analysis.token_section import TOKEN_NOTE, token_section

_TABLE_NOTE = (
    "AUC, GAUC (AUC within users, weighted by rows), logloss, and calibration (mean prediction "
    "over mean label; 1 is best), each as mean ± deviation over seeds. “AUC daily” lets statistics "
    "and representations move through the test period, all others are frozen at the end of "
    "training. The best mean of a column is underlined whether or not its lead is more than "
    "noise. The interval of an AUC is a bootstrap over users. A dash: undefined, such as an AUC "
    "with one class only."
)
_DIFFERENCE_NOTE = (
    "Difference in test AUC to “none”, in AUC points (hundredths), paired by seed; the whisker is "
    "one deviation over seeds. Pale bars are inside the noise (p ≥ 0.05) or come from a single "
    "seed. Each panel has an axis of its own."
)
_SLICE_NOTE = (
    "Test AUC; bars start at 0.5, the AUC of chance, and all panels of a task share one axis. "
)
_CURVE_NOTE = (
    "One line per seed; each point of a loss curve is a mean over neighbouring steps. A model that "
    "trains through the periods in time order is not validated in between and has no validation "
    "curve."
)
_AUXILIARY_NOTE = (
    " The upstream's loss changes its level where training passes from the auxiliary rows, which "
    "lack some labels, to the log."
)
_CALIBRATION_NOTE = (
    "Ten bins of equally many test rows, mean over seeds; on the dashed line predictions are "
    "right. Upstream over all scenarios, and per scenario the transfer picked by validation."
)
_CALIBRATION_TABLE_NOTE = (
    "The upstream on the test rows: mean prediction over mean label, and the mean distance of the "
    "two over ten bins of equally many rows."
)


def report_page(data: ReportData) -> str:
    """The whole report as one HTML document that loads nothing.

    Args:
        data: What the report shows.

    Returns:
        The document's text.
    """
    results = Results(data.document, [s["name"] for s in data.scenarios], data.methods)
    overview = Overview(data, results)
    sections = [section for section in _sections(data, results, overview) if section[-1]]
    return page("report.html", overview=overview, sections=sections, style=stylesheet())


def _sections(
    data: ReportData, results: Results, overview: Overview
) -> list[tuple[str, str, Markup]]:
    """(anchor, title, content) in order; empty content leaves the section out."""
    point_in_time = data.document["point_in_time"]
    scenarios = [s["name"] for s in data.scenarios]
    palette = Palette(results.names("method"))
    bars = MethodBars(results, palette)
    tables = PARTS.note(_TABLE_NOTE)
    if "full" in data.document:
        tables += PARTS.note(Markup("<code>full</code>: ") + breakable(data.document["full"]))
    tables += result_tables(results, "test", point_in_time)
    valid = result_tables(results, "valid", point_in_time)
    tables += PARTS.details("The same on the validation split", valid)
    curve_note = _CURVE_NOTE + (_AUXILIARY_NOTE if data.document["auxiliary_rows"] else "")
    recalls = results.metrics("retrieval")
    curves = training_panels(data.curves, scenarios, palette, recalls[0] if recalls else "recall")
    tasks = list(dict.fromkeys(line.task for line in data.calibrations))
    calibrations = calibration_panels(data.calibrations, scenarios, tasks)
    calibrated = PARTS.noted(_CALIBRATION_TABLE_NOTE, calibration_table(results))
    calibrated = PARTS.noted(_CALIBRATION_NOTE, calibrations) + calibrated
    slice_note = _SLICE_NOTE + _thresholds(data)
    return [
        ("result", "Key result", result_sentences(results, len(data.seeds), point_in_time)),
        ("differences", "Transfer against none", PARTS.noted(_DIFFERENCE_NOTE, bars.differences())),
        ("tables", "Results on the test split", tables),
        ("slices", "By slice", PARTS.noted(slice_note, bars.slices())),
        ("curves", "Training curves", PARTS.noted(curve_note, curves)),
        ("calibration", "Calibration", calibrated),
        (
            "abundance",
            "Information abundance",
            PARTS.noted(ABUNDANCE_NOTE, abundance_table(data.abundance)),
        ),
        ("tokens", "Tokens", PARTS.noted(TOKEN_NOTE, token_section(data.tokens))),
        *overview.sections(),
    ]


def _thresholds(data: ReportData) -> str:
    """What the slices hold."""
    return ", ".join(
        f"{name}: at most {most} training rows of the {name.rpartition('_')[2]}"
        for name, most in data.thresholds.items()
    )
