"""The table says how much of what is possible each set of each table has."""

from __future__ import annotations

import re
from typing import Any

from lfm4ads_tf.analysis.abundance_table import abundance_table


def entry(table: str, sets: list[float | None], joined: float | None, **over: Any) -> Any:
    known = {"layer": "embeddings", "table": table, "fields": [table], "rows": 1000, "width": 4}
    return {**known, "sets": sets, "joined": joined, **over}


def cells(html: str) -> list[list[str]]:
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", html, re.DOTALL)
    found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[re.sub("<[^>]*>", "", cell) for cell in row] for row in found]


def test_mean_and_deviation_over_seeds_of_what_can_be() -> None:
    seeds = [
        [
            entry("small", [1.0, None], 2.0, rows=3, fields=["a<b", "small"]),
            entry("item", [2.0 + k, 1.5], 4.0 + k),
        ]
        for k in (0, 1)
    ]
    assert cells(abundance_table(seeds)) == [
        ["table", "read by", "rows seen", "width", "set 0", "set 1", "joined"],
        ["item", "item", "1,000", "4", "2.50 ± 0.71 of 4", "1.50 ± 0.00 of 4", "4.50 ± 0.71 of 8"],
        ["small", "a&lt;b, small", "3", "4", "1.00 ± 0.00 of 3", "–", "2.00 ± 0.00 of 3"],
    ]


def test_one_set_is_one_column_and_layers_are_told_apart() -> None:
    assert cells(abundance_table([[entry("item", [2.0], 2.0)]])) == [
        ["table", "read by", "rows seen", "width", "abundance"],
        ["item", "item", "1,000", "4", "2.00 of 4"],
    ]
    both = [entry("item", [2.0, 3.0], 4.0), entry("item", [1.5], 1.5, layer="prior", width=2)]
    found = cells(abundance_table([both]))
    assert [row[0] for row in found[1:]] == ["embeddings/item", "prior/item"]
    assert found[2][4:] == ["1.50 of 2", "", "1.50 of 2"]


def test_many_tables_are_folded_and_none_are_no_table() -> None:
    html = abundance_table([[entry(f"t{k}", [1.0], 1.0, rows=100 - k) for k in range(14)]])
    shown, _, folded = html.partition("<details")
    assert len(cells(shown)) == 13 and len(cells(folded)) == 3
    assert "2 smaller tables" in folded and "t12" in folded
    assert abundance_table([[], []]) == "" and abundance_table([]) == ""
