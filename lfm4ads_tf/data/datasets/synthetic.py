"""The synthetic ads log as a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lfm4ads_tf.data.datasets.staging import check_data_dir
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.files import staged_folder

FILES = ("log.parquet", "users.parquet", "ads.parquet")


def prepare(
    data_dir: Path | None,
    cache_dir: Path,
    *,
    quiet: bool = False,
    rows: int = 1_000_000,
    seed: int = 0,
    task_agreement: float | None = None,
    scenario_agreement: float | None = None,
    click_rate: float | None = None,
    conversion_rate: float | None = None,
    like_rate: float | None = None,
) -> Path:
    """Generates the synthetic ads log once per set of options, or uses a given one.

    Args:
        data_dir: A folder with log.parquet, users.parquet and ads.parquet; None generates them.
        cache_dir: Where the generated folder `synthetic-<rows>-<seed>` is kept; other options that
            are given are in its name too.
        quiet: Whether to hide progress displays.
        rows: Number of impressions.
        seed: Seed of the generator.
        task_agreement: Cosine between the tastes behind likes and clicks, which adds the columns
            `like` and `p_like`; this and the others as in `SyntheticAdsLog`.
        scenario_agreement: Cosine between the tastes in another scenario and in `feed`.
        click_rate: Share of impressions that are clicked.
        conversion_rate: Share of impressions that convert.
        like_rate: Share of impressions that are liked.

    Returns:
        A folder with the three files.

    Raises:
        UserError: `rows` is not positive, another option cannot be, or `data_dir` lacks a file.
    """
    if data_dir is not None:
        missing = [name for name in FILES if not (check_data_dir(data_dir) / name).is_file()]
        if missing:
            raise UserError(
                f"'{data_dir}' does not hold the synthetic ads log.",
                received="missing " + ", ".join(missing),
                fix="leave --data-dir out to generate it, or give a folder made by an earlier run.",
            )
        return data_dir
    if rows < 1 or seed < 0:
        raise UserError(
            "The synthetic ads log needs at least 1 row and a seed of at least 0.",
            received=f"rows={rows}, seed={seed}",
            fix="correct the data set's options in the spec or with --set.",
        )
    shares = _numbers(
        task_agreement=task_agreement,
        scenario_agreement=scenario_agreement,
        click_rate=click_rate,
        conversion_rate=conversion_rate,
        like_rate=like_rate,
    )
    folder = cache_dir / "-".join(
        [f"synthetic-{rows}-{seed}", *(f"{name}={value!r}" for name, value in shares.items())]
    )
    if all((folder / name).is_file() for name in FILES):
        return folder
    # Only a run that has to generate needs the generator.
    from lfm4ads_tf.data.synthetic import SyntheticAdsLog

    log = SyntheticAdsLog(rows=rows, seed=seed, **shares)
    with staged_folder(folder) as staging:
        log.write(staging)
    return folder


def _numbers(**options: object) -> dict[str, Any]:
    """The options that are given, as numbers."""
    given: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise UserError(
                f"The data set's option '{name}' is no number.",
                received=f"{name}={value!r}",
                fix="give a number, or leave it out",
            )
        if value is not None:
            given[name] = float(value)
    return given
