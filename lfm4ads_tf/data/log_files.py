"""The files of a log, each with its scenario where the spec gives one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.spec import FeatureSpec


def log_files(
    spec: FeatureSpec, folder: Path, files_of: Callable[[Path, list[str]], list[Path]]
) -> list[tuple[Path, str | None]]:
    """The files of the log in order, with the scenario of their rows.

    Args:
        spec: The feature spec.
        folder: Folder of the data files.
        files_of: Gives the files of a folder that match patterns.

    Raises:
        UserError: A pattern matches nothing, or a file is of two scenarios.
    """
    files = spec.log.files
    if not isinstance(files, Mapping):
        return [(path, None) for path in files_of(folder, files)]
    files_of(folder, spec.log.patterns)  # refuses a file that is named twice
    return [(p, name) for name, patterns in files.items() for p in files_of(folder, patterns)]


def log_constants(
    spec: FeatureSpec, files: Sequence[tuple[Path, str | None]]
) -> dict[str, list[str]]:
    """Scenario column -> scenario of each file; nothing where the log has the column itself."""
    names = [name for _, name in files if name is not None]
    return {str(spec.keys.scenario): names} if names else {}


def refuse_twice(files: Sequence[Path], patterns: Sequence[str]) -> None:
    """Refuses a file that two patterns match: its rows would count twice.

    Raises:
        UserError: The file is named.
    """
    seen: set[Path] = set()
    for path in files:
        real = path.resolve()
        if real in seen:
            raise UserError(
                f"The file '{path}' is named twice: its rows would count twice.",
                received=f"files {', '.join(patterns)}",
                fix="give patterns of which one alone matches it; a file has one scenario",
            )
        seen.add(real)


def row_names(spec: FeatureSpec) -> list[str] | None:
    """Names of the columns of rows like the log's, None where files have a header line.

    Rows of one file are of several scenarios, so theirs is a last column where `log.files` gives
    the scenario of each file of the log.
    """
    names = spec.log.columns
    if names is None or not isinstance(spec.log.files, Mapping):
        return names
    return [*names, str(spec.keys.scenario)]
