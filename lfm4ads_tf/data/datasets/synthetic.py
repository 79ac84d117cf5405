"""The synthetic ads log as a data set."""

from __future__ import annotations

from pathlib import Path

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
) -> Path:
    """Generates the synthetic ads log once per size and seed, or uses a given one.

    Args:
        data_dir: A folder with log.parquet, users.parquet and ads.parquet; None generates them.
        cache_dir: Where the generated folder `synthetic-<rows>-<seed>` is kept.
        quiet: Whether to hide progress displays.
        rows: Number of impressions.
        seed: Seed of the generator.

    Returns:
        A folder with the three files.

    Raises:
        UserError: `rows` is not positive, or `data_dir` lacks a file.
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
    folder = cache_dir / f"synthetic-{rows}-{seed}"
    if all((folder / name).is_file() for name in FILES):
        return folder
    # Only a run that has to generate needs the generator.
    from lfm4ads_tf.data.synthetic import SyntheticAdsLog

    with staged_folder(folder) as staging:
        SyntheticAdsLog(rows=rows, seed=seed).write(staging)
    return folder
