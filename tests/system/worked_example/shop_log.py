"""Writes shop.csv, the log of the worked example in docs/data.md: `python shop_log.py FOLDER`."""

from __future__ import annotations

import csv
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 7
COLUMNS = (
    "user_id,age_group,city,item_id,category,price,tags,surface,position,timestamp,day,"
    "clicked,ordered"
)


def shop_rows(rows: int = 2800, seed: int = 7) -> list[list[str]]:
    """Rows of the shop's log in time order, every value as its text in the file.

    A user clicks more on its favourite category, on cheap items and on the first positions; an
    order follows some clicks. A few ages and prices are missing.
    """
    rng = np.random.default_rng(seed)
    users, items, categories = 120, 60, 6
    ages = rng.choice(["18-29", "30-49", "50+", ""], users, p=[0.4, 0.35, 0.15, 0.1])
    cities = [f"city{c}" for c in rng.integers(0, 12, users)]
    favourite = rng.integers(0, categories, users)
    category = rng.integers(0, categories, items)
    price = np.round(rng.lognormal(3.0, 0.7, items), 2)
    tags = ["|".join(f"tag{t}" for t in sorted(set(rng.integers(0, 15, 3)))) for _ in range(items)]
    seconds = np.sort(rng.integers(0, DAYS * 86_400, rows))
    out = []
    for second in seconds.tolist():
        u = int(users * rng.random() ** 1.5)
        # Items appear over the days, so that the last days hold cold ones.
        known = 40 + 3 * (second // 86_400)
        i = int(min(known, items) * rng.random() ** 1.3)
        surface = ["home", "search", "mail"][int(rng.choice(3, p=[0.6, 0.37, 0.03]))]
        position = int(rng.integers(1, 6))
        logit = 0.2 + 2.2 * (favourite[u] == category[i]) - 0.6 * position
        logit += 0.7 * (surface == "search") - 0.3 * (np.log(price[i]) - 3.0)
        click = rng.random() < 1 / (1 + np.exp(-logit))
        order = click and rng.random() < 0.4
        when = FIRST_DAY + timedelta(seconds=second)
        shown = "" if rng.random() < 0.02 else f"{price[i]:.2f}"
        out.append(
            [f"u{u}", str(ages[u]), cities[u], f"i{i}", f"c{category[i]}", shown, tags[i], surface]
            + [str(position), str(int(when.timestamp())), f"{when:%Y%m%d}"]
            + [str(int(click)), str(int(order))]
        )
    return out


def write_shop(folder: Path, rows: list[list[str]] | None = None) -> Path:
    """Writes the rows as `shop.csv` into a folder."""
    path = folder / "shop.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS.split(","))
        writer.writerows(shop_rows() if rows is None else rows)
    return path


if __name__ == "__main__":
    print(write_shop(Path(sys.argv[1])))
