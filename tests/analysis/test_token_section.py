from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from lfm4ads_tf.analysis.page import report_page
from lfm4ads_tf.analysis.token_section import token_section

NAMES = ["user<id>+age", "item_id", "task_click"]
PLACES = ["tokens", "mix_1", "network_1"]


def place(name: str, seed: int, tokens: int = 3) -> dict[str, Any]:
    ranks = {"erank": 1.5 + seed, "centred": 1.25, "stable": 1.125}
    told: dict[str, Any] = {
        "place": name,
        **ranks,
        **{f"{rank}_share": value / 3 for rank, value in ranks.items()},
        "token_erank": 2.5,
        "token_erank_share": 0.625,
        "token_eranks": [2.0, 2.5 + seed, 3.0][:tokens],
        "correlation": 0.125 if tokens > 1 else None,
    }
    if name != "mix_1":
        plain, chance = 0.75 * np.ones((tokens, tokens)), 0.25 * np.ones((tokens, tokens))
        plain[0, 1:2] = plain[1:2, 0] = 0.5 + seed
        told |= {"mutual_information": 0.75, "mutual_information_shuffled": 0.25}
        told["pairs"] = {
            "mutual_information": plain.tolist(),
            "mutual_information_shuffled": chance.tolist(),
        }
    return told


def entry(seed: int = 0, layer: str = "mixer", tokens: int = 3) -> dict[str, Any]:
    task = {"task": "click", "rows": 4000, "entropy": 0.5}
    task |= {"mutual_information": 0.125, "mutual_information_shuffled": 0.025}
    return {
        "layer": layer,
        "rows": 4096,
        "width": 24,
        "names": NAMES[:tokens],
        "clusters": 48,
        "places": [place(name, seed, tokens) for name in PLACES],
        "tasks": [task] if tokens > 1 else [],
    }


def tables(section: str) -> list[list[list[str]]]:
    found = []
    for body in re.findall(r"<table>(.*?)</table>", section, re.DOTALL):
        rows = re.findall(r"<tr[^>]*>(.*?)</tr>", body, re.DOTALL)
        cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
        found.append([[re.sub(r"<[^>]*>", "", cell).strip() for cell in row] for row in cells])
    return found


def test_tables_tell_ranks_tasks_and_tokens() -> None:
    section = token_section([[entry(0)], [entry(1)], []])
    assert "N = 3 tokens of width D = 24, D / N = 8, 4,096 validation rows." in section
    places, tasks, tokens = tables(section)
    assert places[0][:4] == ["place", "erank of 3", "centred of 3", "stable of 3"]
    assert [row[0] for row in places[1:]] == PLACES
    assert places[1][1:] == [
        *("2.00 ± 0.71", "1.25 ± 0.00", "1.12 ± 0.00", "2.50 ± 0.00"),
        *("0.125 ± 0.000", "0.750 ± 0.000", "0.250 ± 0.000"),
    ]
    assert places[2][-2:] == ["–", "–"]
    mean = ["0.1250 ± 0.0000", "0.0250 ± 0.0000", "0.5000 ± 0.0000", "0.200 ± 0.000"]
    assert tasks[1] == ["click", "4,000", *mean]
    assert tokens[2] == ["2", "item_id", *["3.00 ± 0.71"] * 3]
    assert tokens[1][1] == "user&lt;id&gt;+age" and "user<id>" not in section


def test_the_figure_names_the_places() -> None:
    deep = entry()
    deep["places"] = [place(f"place_{k}", 0) for k in range(9)]
    for given, names, rotated in ((entry(), PLACES, False), (deep, ["place_0", "place_8"], True)):
        figure = re.findall(r'<svg role="img" aria-label="Rank.*?</svg>', token_section([[given]]))[
            0
        ]
        assert all(f">{name}</text>" in figure for name in names)
        assert ("rotate(-35)" in figure) == rotated


def test_maps_show_information_above_chance() -> None:
    section = token_section([[entry(0)], [entry(1)]])
    maps = re.findall(r'<svg role="img" aria-label="Mutual information.*?</svg>', section)
    assert len(maps) == 2 and "at tokens" in maps[0] and "at network_1" in maps[1]
    titles = re.findall(r"<title>(.*?)</title>", maps[0])
    assert len(titles) == 3  # of every two tokens one cell, of a token with itself none
    assert titles[0] == "item_id, user&lt;id&gt;+age: 0.750 nats"  # (0.5 + 1.5) / 2 - 0.25
    assert re.findall(r">(0\.\d\d)</text>", maps[0]) == ["0.75", "0.50", "0.50"]


def test_many_tokens_have_a_map_without_numbers() -> None:
    many = entry()
    many["names"] = [f"field_{n}_of_a_long_name_that_has_no_room" for n in range(25)]
    for told in many["places"]:
        told["token_eranks"] = [2.0] * 25
        if "pairs" in told:
            told["pairs"] = {k: np.ones((25, 25)).tolist() for k in told["pairs"]}
    section = token_section([[many]])
    assert len(re.findall(r"<title>", section)) == 25 * 24
    assert ">1 field_0_of_a_long_name_th…</text>" in section
    (first, _) = re.findall(r'<svg role="img" aria-label="Mutual information.*?</svg>', section)
    assert "<rect" in first and not re.findall(r">\d\.\d\d</text>", first)
    many["names"] = [f"field_of_a_long_name_that_is_shared#{k}" for k in range(25)]
    assert ">2 field_of_a_long_name_th…#1</text>" in token_section([[many]])


def test_what_is_not_there_is_left_out() -> None:
    assert token_section([[], []]) == token_section([]) == ""
    alone = token_section([[entry(tokens=1)]])
    assert "information of tokens at" not in alone and "entropy" not in alone
    assert len(tables(alone)) == 2
    two = token_section([[entry(layer="set_0/mixer"), entry(layer="set_1/mixer")]])
    assert re.findall("<h3>(.*?)</h3>", two) == ["set_<wbr>0/<wbr>mixer", "set_<wbr>1/<wbr>mixer"]
    ids = re.findall(r'\sid="([^"]*)"', two)
    assert len(ids) == len(set(ids))


def test_the_page_has_the_section_where_there_are_tokens(
    document_of: Callable[..., Any], data_of: Callable[..., Any]
) -> None:
    document = document_of(scenarios=("tab",), tasks=("click",), seeds=1)
    page = report_page(data_of(document, tokens=[[entry()]]))
    assert '<a href="#tokens">' in page and page.count('id="tokens"') == 1
    assert 'id="tokens"' not in report_page(data_of(document, tokens=[[]]))
