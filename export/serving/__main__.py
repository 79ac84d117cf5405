"""Writes the kit that serves exports: `lfm4ads-serving-kit EXPORTS_DIR --to DIR`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.quiet import native_stderr_hidden


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the kit and prints what is served.

    Returns:
        0 on success; 2 for what the user can mend, with the reason on stderr.
    """
    parser = argparse.ArgumentParser(prog="lfm4ads-serving-kit", description=__doc__)
    parser.add_argument("exports", type=Path, help="folder of models, such as OUT/exports")
    parser.add_argument("--to", required=True, type=Path, help="folder of the kit")
    parser.add_argument("--base-path", default="/models", help="exports inside the container")
    parser.add_argument("--keep", type=int, default=2, help="versions loaded of each model [2]")
    parser.add_argument(
        "--policy",
        choices=("specific", "latest"),
        default="specific",
        help="latest: the server takes new versions by itself; without labels",
    )
    parser.add_argument("--keep-labels", action="store_true", help="move no label")
    parser.add_argument(
        "--promote",
        action="append",
        default=[],
        metavar="MODEL",
        help="move `stable` of this model, or of `all`, to the newest version",
    )
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="MODEL:LABEL=VERSION",
        help="point a label at a version",
    )
    parser.add_argument(
        "--server",
        metavar="ADDRESS",
        help="ask this server which versions it has loaded, before labels move to them",
    )
    given = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    with native_stderr_hidden():  # TensorFlow's start-up banner
        from lfm4ads_tf.export.serving.kit import KitOptions, write_kit
    try:
        options = KitOptions(
            base_path=given.base_path,
            keep=given.keep,
            latest=given.policy == "latest",
            keep_labels=given.keep_labels,
            promote=given.promote,
            labels=_labels(given.label),
            server=given.server,
        )
        models = write_kit(given.exports, given.to, options)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    waits = False
    for name, model in models.items():
        if options.latest:
            print(f"{name}: the newest {options.keep} versions")
            continue
        labels = ", ".join(f"{label} {v}" for label, v in model.labels.items())
        print(f"{name}: versions {', '.join(map(str, model.versions))}; {labels}")
        for label, version in model.waiting.items():
            waits = True
            print(f"  {label} moves to {version} when that is loaded")
    if waits:
        print("Run the same command again when the server has loaded these versions.")
    return 0


def _labels(assignments: Sequence[str]) -> dict[str, dict[str, int]]:
    labels: dict[str, dict[str, int]] = {}
    for text in assignments:
        target, _, version = text.rpartition("=")
        name, _, label = target.rpartition(":")
        if not (name and label and version.isdigit()):
            raise UserError(
                "This assigns no label.",
                received=repr(text),
                fix="write --label MODEL:LABEL=VERSION, such as ranker_feed:stable=3",
            )
        labels.setdefault(name, {})[label] = int(version)
    return labels


if __name__ == "__main__":
    sys.exit(main())
