"""The heat map and the page of a sweep: what stands in them, and that it can be read."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from typing import Any

import pytest

from lfm4ads_tf.analysis.heat_map import STRONGEST, HeatCell, heat_map
from lfm4ads_tf.analysis.stylesheet import stylesheet
from lfm4ads_tf.analysis.sweep_page import sweep_page

COLUMNS = [("CR_user", "gate"), ("module", "warm start")]


def _svg() -> ElementTree.Element:
    cells = {
        ("cross_1", COLUMNS[0]): HeatCell(0.5, "*", "a <b>", chosen=True),
        ("cross_1", COLUMNS[1]): HeatCell(-2.0, "**", "c"),
        ("output", COLUMNS[1]): HeatCell(None, title="d"),
    }
    return ElementTree.fromstring(heat_map(["cross_1", "output"], COLUMNS, cells, title="<all>"))


def test_cells_hold_value_colour_and_title() -> None:
    svg = _svg()
    assert svg.get("role") == "img" and svg.get("aria-label") == "<all>"
    cells = svg.findall("g")
    assert [c.findtext("title") for c in cells] == ["a <b>", "c", "d"]
    assert [c.findtext("text") for c in cells] == ["+0.50*", "-2.00**", "–"]
    shapes = [c.find("rect") for c in cells]
    assert [s.get("style") for s in shapes if s is not None] == [
        "fill:var(--gain)", "fill:var(--loss)", "fill:var(--rule)",
    ]  # fmt: skip
    opacities = [float(s.get("fill-opacity", "")) for s in shapes if s is not None]
    assert opacities[:2] == pytest.approx([STRONGEST * 0.25, STRONGEST], abs=1e-3)
    assert [s.get("stroke") for s in shapes if s is not None] == ["var(--text)", None, None]
    heads = [t.text for t in svg.findall("text")]
    assert heads == ["CR_user", "gate", "module", "warm start", "cross_1", "output"]


def test_cells_lie_in_their_row_and_column_inside_the_figure() -> None:
    svg = _svg()
    heads = {t.text: t for t in svg.findall("text")}
    first, second, last = (c.find("text") for c in svg.findall("g"))
    assert first is not None and second is not None and last is not None
    assert first.get("x") == heads["gate"].get("x") and first.get("y") == heads["cross_1"].get("y")
    assert second.get("x") == last.get("x") == heads["warm start"].get("x")
    assert last.get("y") == heads["output"].get("y")
    for shape in svg.iter("rect"):
        right = float(shape.get("x", "")) + float(shape.get("width", ""))
        bottom = float(shape.get("y", "")) + float(shape.get("height", ""))
        assert 0 < right <= float(svg.get("width", ""))
        assert 0 < bottom <= float(svg.get("height", ""))


def test_a_map_without_values_is_left_out_and_zeros_are_no_problem() -> None:
    cell = ("cross_1", COLUMNS[0])
    assert heat_map(["cross_1"], COLUMNS, {cell: HeatCell(None)}, title="x") == ""
    zero = heat_map(["cross_1"], COLUMNS, {cell: HeatCell(-0.001)}, title="x")
    assert ">0.00</text>" in zero
    assert ">0.00</text>" in heat_map(["cross_1"], COLUMNS, {cell: HeatCell(0.0)}, title="x")


def test_cells_of_another_size_are_written_in_another_way() -> None:
    names = ["a", "b"]
    columns = [("", name) for name in names]
    cells = {(names[k], columns[k]): HeatCell(k + 0.25) for k in range(2)}
    drawn = heat_map(
        names, columns, cells, title="x", width=30, height=20, write=lambda v: f"{v:.1f}!"
    )
    svg = ElementTree.fromstring(drawn)
    groups = svg.findall("g")
    assert [g.findtext("text") for g in groups] == ["0.2!", "1.2!"]
    first, second = (g.find("rect") for g in groups)
    assert first is not None and second is not None
    assert float(second.get("x", "")) - float(first.get("x", "")) == 30
    assert float(second.get("y", "")) - float(first.get("y", "")) == 20


def _luminance(colour: tuple[float, float, float]) -> float:
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("theme", [0, 1])
def test_text_on_the_strongest_cell_can_be_read_in_both_themes(theme: int) -> None:
    """The WCAG contrast of text on a cell that is drawn over the panel: at least 4.5."""
    rules = re.findall(r":root \{[^}]*?(--page[^}]*)\}", stylesheet())[theme]
    colours = {
        name: tuple(int(value[k : k + 2], 16) / 255 for k in (0, 2, 4))
        for name, value in re.findall(r"--(\w+):#(\w{6})", rules)
    }
    for name in ("gain", "loss"):
        mixed = tuple(
            STRONGEST * a + (1 - STRONGEST) * b
            for a, b in zip(colours[name], colours["panel"], strict=True)
        )
        light, dark = sorted((_luminance(mixed), _luminance(colours["text"])), reverse=True)  # type: ignore[arg-type]
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def _entry(method: str, **more: Any) -> dict[str, Any]:
    blank = {"adapter": None, "side": None, "layer": None, "sd": 0.01, "seeds": 3}
    return {
        "scenario": "tab <0>", "task": "click", "method": method, "mean": 0.7, **blank, **more
    }  # fmt: skip


def _document() -> dict[str, Any]:
    tested = {"diff_sd": 0.002, "p": 0.03, "p_holm": 0.06}
    gate = {"adapter": "gate", "side": "user", "level": "feature"}
    untested = {"diff": None, "diff_sd": None, "p": None, "p_holm": None}
    entries = [
        _entry("none", level="none", rank=4, **untested),
        _entry("feature/linear/UR", level="feature", diff=0.001, rank=3, **tested),
        _entry("feature/gate/CR_user@dnn_1", layer="dnn_1", diff=0.013, rank=1, **gate, **tested),
        _entry(
            "module/warm_start/output", level="module", layer="output", diff=0.002, rank=2,
            **{**tested, "p_holm": 0.01},
        ),
    ]  # fmt: skip
    best = {"method": "feature/gate/CR_user@dnn_1", "not_told_apart": []}
    return {
        "spec": "tiny",
        "configurations": 3,
        "seeds": [0, 1, 2],
        "ranked_by": "click",
        "layers": ["dnn_1", "output"],
        "rows": {"all": 900, "tab <0>": 900},
        "results": [e for s in ("all", "tab <0>") for e in ({**e, "scenario": s} for e in entries)],
        "chosen": {"all": best, "tab <0>": best},
    }


class _Tags(HTMLParser):
    """Every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in ("meta", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_shows_marks_values_and_what_has_no_layer() -> None:
    page = sweep_page(_document())
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    svg = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    texts = [g.findtext("text") for g in svg.findall("g")]
    assert texts == ["+1.30*", "+0.20**"]  # Holm's p of the second is below 0.05 too
    assert page.count("<svg") == 1  # one scenario is all of them
    assert "tab &lt;0&gt;" in page and "tab <0>" not in page
    plain = page.replace("<wbr>", "")
    assert "<li>feature/linear/UR: +0.10 ± 0.20 (p 0.030)</li>" in plain
    assert "Chosen for all scenarios: feature/gate/CR_user@dnn_1" in plain
    assert "http" not in page and "<script" not in page


def test_one_seed_is_said_to_allow_no_test() -> None:
    document = _document()
    document["seeds"] = [0]
    for entry in document["results"]:
        entry.update(diff_sd=None, p=None, p_holm=None, sd=None)
    page = sweep_page(document)
    assert "One seed allows no paired test" in page
    assert ">+1.30</text>" in page and ">+1.30*" not in page
