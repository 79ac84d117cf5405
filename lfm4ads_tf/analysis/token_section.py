"""What the tokens of a model are like, as a section of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from lfm4ads_tf.analysis.heat_map import HeatCell, heat_map
from lfm4ads_tf.analysis.line_figure import Line, line_figure
from lfm4ads_tf.analysis.markup import PARTS, breakable, count, plural, spread
from lfm4ads_tf.analysis.palette import Palette

TOKEN_NOTE = (
    "Tokens of a mixer on a sample of the validation rows: as they enter it, behind every mixing "
    "and behind every block’s networks; mean ± deviation over seeds. Erank is the effective rank "
    "of each row’s matrix of N tokens of width D, the mean over rows, “centred” the same without "
    "the tokens’ mean, “stable” the stable rank; the figure divides them by their bound, "
    "min(N, D), for more tokens raise it. Erank of a token is that of its matrix of rows and "
    "coordinates. Correlation is absolute, its mean over pairs of tokens and coordinates. Mutual "
    "information, at the first and the last place, is that of the k-means codes of two tokens, in "
    "nats, beside what it is after the rows of one are shuffled: few rows make it too high. More "
    "in docs/models/mixer.md, “Looking at the tokens”."
)
_MAP_NOTE = (
    "Mutual information of every two tokens in nats, at most {} codes each, less what it is after "
    "the rows of one are shuffled."
)
_TASK_NOTE = (
    "What the codes of each task’s token tell of its label behind the last block, in nats. The "
    "share is that of the label’s entropy, the most that can be told, less what shuffled labels "
    "give."
)
_RANKS = ("erank", "centred", "stable")
_PAIRS = ("mutual_information", "mutual_information_shuffled")
_WITH_TEXT = 20  # tokens whose map has room for numbers
_CELL, _SMALL = 40, 18  # pixels
_LONGEST = 26  # letters of a token's name on a map

Trainings = Sequence[Mapping[str, Any]]
"""One layer's entry of each seed."""


def token_section(trainings: Sequence[Sequence[Mapping[str, Any]]]) -> Markup:
    """Ranks by place as a figure and a table, tasks, and what tokens tell of each other.

    Args:
        trainings: `tokens` of each seed's `results.json`; seeds that have none are left out.

    Returns:
        The section; empty where no seed has one.
    """
    layers: dict[str, list[Mapping[str, Any]]] = {}
    for entries in trainings:
        for entry in entries:
            layers.setdefault(entry["layer"], []).append(entry)
    parts = Markup()
    for k, (layer, seeds) in enumerate(layers.items()):
        if len(layers) > 1:
            parts += Markup("<h3>{}</h3>").format(breakable(layer))
        parts += _layer(seeds, f"tokens-{k}")
    return parts


def _layer(seeds: Trainings, name: str) -> Markup:
    first = seeds[0]
    number, width = len(first["names"]), first["width"]
    told = Markup("<p>N = {} tokens of width D = {}, D / N = {}, {} validation rows.</p>").format(
        count(number), count(width), f"{width / number:.3g}", count(first["rows"])
    )
    palette = Palette(_RANKS)
    figures = [PARTS.figure("Rank / min(N, D) by place", _ranks(seeds, palette, name))]
    told += PARTS.legend(_RANKS, palette) + PARTS.grid(figures)
    told += _place_table(seeds, min(number, width))
    told += PARTS.noted(_TASK_NOTE, _task_table(seeds))
    told += PARTS.noted(_MAP_NOTE.format(first["clusters"]), _maps(seeds))
    return told + PARTS.details(plural(number, "token"), _token_table(seeds))


def _ranks(seeds: Trainings, palette: Palette, name: str) -> Markup:
    """The three ranks over their bound, by place."""
    places = [place["place"] for place in seeds[0]["places"]]
    lines = []
    for rank in _RANKS:
        values = np.array([[p[f"{rank}_share"] for p in entry["places"]] for entry in seeds])
        lines.append(
            Line(
                list(range(len(places))),
                values.mean(axis=0).tolist(),
                palette.variable(rank),
                palette.dash(rank),
                marker=True,
                deviations=values.std(axis=0, ddof=1).tolist() if len(seeds) > 1 else (),
            )
        )
    return line_figure(
        lines, title="Rank / min(N, D) by place", x_label="place", name=name, x_names=places
    )


def _place_table(seeds: Trainings, most: int) -> Markup:
    heads = ["place", *(f"{title} of {most}" for title in _RANKS)]
    heads += ["erank of a token", "correlation", "mutual information", "the same, shuffled"]
    rows = []
    for k, place in enumerate(seeds[0]["places"]):
        at = [entry["places"][k] for entry in seeds]
        cells: list[str] = [breakable(place["place"])]
        cells += [spread([p[rank] for p in at], 2) for rank in (*_RANKS, "token_erank")]
        cells += [spread([p.get(name) for p in at], 3) for name in ("correlation", *_PAIRS)]
        rows.append(cells)
    table: Markup = PARTS.table(heads, rows)
    return table


def _task_table(seeds: Trainings) -> Markup:
    rows = []
    for k, task in enumerate(seeds[0]["tasks"]):
        of_seeds = [entry["tasks"][k] for entry in seeds]
        cells: list[str] = [breakable(task["task"]), count(task["rows"])]
        cells += [spread([t[name] for t in of_seeds]) for name in (*_PAIRS, "entropy")]
        shares = [
            (t[_PAIRS[0]] - t[_PAIRS[1]]) / t["entropy"] if t["entropy"] else None for t in of_seeds
        ]
        rows.append([*cells, spread(shares, 3)])
    heads = ["task", "rows", "mutual information", "the same, shuffled", "entropy of the label"]
    table: Markup = PARTS.table([*heads, "share"], rows)
    return table


def _maps(seeds: Trainings) -> Markup:
    """Mutual information of every two tokens above chance, at each place that has it."""
    names = seeds[0]["names"]
    if len(names) < 2:
        return Markup()
    parts = Markup()
    for k, place in enumerate(seeds[0]["places"]):
        if "pairs" not in place:
            continue
        pairs = [entry["places"][k]["pairs"] for entry in seeds]
        plain, chance = (np.mean([p[name] for p in pairs], axis=0) for name in _PAIRS)
        title = f"Mutual information of tokens at {place['place']}"
        drawn = Markup('<figure><div class="scroll">{}</div></figure>').format(
            _map(names, plain - chance, title)
        )
        parts += PARTS.details(title, drawn, not parts)
    return parts


def _map(names: Sequence[str], values: np.ndarray, title: str) -> Markup:
    heads = [f"{n} {_short(name)}" for n, name in enumerate(names, start=1)]
    columns = [("", str(n)) for n in range(1, len(names) + 1)]
    cells = {
        (heads[m], columns[n]): HeatCell(
            float(values[m, n]), title=f"{names[m]}, {names[n]}: {values[m, n]:.3f} nats"
        )
        for m in range(len(names))
        for n in range(m)  # the other half is the same
    }
    few = len(names) <= _WITH_TEXT
    return heat_map(
        heads,
        columns,
        cells,
        title=title,
        width=_CELL if few else _SMALL,
        height=_CELL * 3 // 4 if few else _SMALL,
        write=(lambda value: f"{abs(value):.2f}") if few else (lambda _: ""),
    )


def _token_table(seeds: Trainings) -> Markup:
    """What each token is made of, and its effective rank over the sample."""
    first = seeds[0]
    heads = ["token", "made of", *(f"erank, {p['place']}" for p in first["places"])]
    rows = []
    for n, name in enumerate(first["names"]):
        cells = [str(n + 1), breakable(name)]
        for k in range(len(first["places"])):
            values = [entry["places"][k]["token_eranks"][n] for entry in seeds]
            cells.append(spread(values, 2))
        rows.append(cells)
    table: Markup = PARTS.table(heads, rows, 2)
    return table


def _short(name: str) -> str:
    """A name that fits beside a map; the set stays, which tells two tokens of a group apart."""
    fields, mark, of_set = name.rpartition("#")
    end = f"{mark}{of_set}" if fields else ""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1 - len(end)]}…{end}"
