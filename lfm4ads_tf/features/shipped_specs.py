"""Feature specs that come with the package."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[1] / "feature_specs"

DEFAULT = "movielens"
"""Name of the spec of a command that names none."""


def shipped_specs() -> dict[str, Path]:
    """Name -> YAML file of the feature specs that come with the package."""
    return {path.stem: path.resolve() for path in sorted(_FOLDER.glob("*.yaml"))}


def spec_file(given: Path) -> Path:
    """The file that a `--spec` means.

    Args:
        given: A path, or the name of a spec that comes with the package, with or without `.yaml`.
            A file of that name in the working folder goes first.

    Returns:
        The path as it was given, or that of the shipped spec.
    """
    if given.name != str(given) or given.is_file():
        return given
    return shipped_specs().get(given.name.removesuffix(".yaml"), given)
