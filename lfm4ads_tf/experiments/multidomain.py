"""Compares upstream models scenario by scenario on the same rows: AUC, cost, paired differences.

lfm4ads-multidomain --spec kuairand --data-dir DIR --models ple,star,crocodile --seeds 3 --out OUT

As `lfm4ads-multitask`, with the scenarios as the axis: differences, their tests and who leads are
told for every scenario, and Holm's correction is over models, scenarios and tasks.
"""

from __future__ import annotations

import sys

from lfm4ads_tf.experiments.comparison_command import run_command


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns 2 for what the user can mend."""
    what = (__doc__ or "").split("\n")[0]
    return run_command(arguments, "scenario", "lfm4ads-multidomain", what)


if __name__ == "__main__":
    sys.exit(main())
