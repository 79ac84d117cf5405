"""The data sets that can be prepared by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lfm4ads_tf.data.datasets import census, kuairand, movielens, synthetic
from lfm4ads_tf.errors import UserError, nearest

DATASETS: dict[str, Callable[..., Path]] = {
    "census": census.prepare,
    "kuairand": kuairand.prepare,
    "movielens": movielens.prepare,
    "synthetic": synthetic.prepare,
}


def prepare_dataset(
    name: str, data_dir: Path | None, cache_dir: Path, *, quiet: bool = False, **options: Any
) -> Path:
    """Makes the raw tables of a named data set available.

    Args:
        name: A key of `DATASETS`.
        data_dir: The user's folder with the files or the archive; None fetches or generates them.
        cache_dir: Where fetched and generated files are kept.
        quiet: Whether to hide progress displays.
        **options: Options of the data set, such as `rows` and `seed` of "synthetic".

    Returns:
        A folder that holds the raw tables.

    Raises:
        UserError: The name or an option is unknown, files are missing or the network failed.
    """
    if name not in DATASETS:
        raise UserError(
            f"Data set '{name}' is unknown.{nearest(name, DATASETS)}",
            received=name,
            fix="use one of " + ", ".join(sorted(DATASETS)) + ", or name files in the spec.",
        )
    prepare = DATASETS[name]
    fixed = {"data_dir", "cache_dir", "quiet"}
    known = [option for option in inspect.signature(prepare).parameters if option not in fixed]
    for option in options:
        if option not in known:
            raise UserError(
                f"Data set '{name}' has no option '{option}'.{nearest(option, known)}",
                received=f"{option}={options[option]!r}",
                fix="use " + (", ".join(known) if known else "no options") + ".",
            )
    return prepare(data_dir, cache_dir, quiet=quiet, **options)


__all__ = ["DATASETS", "prepare_dataset"]
