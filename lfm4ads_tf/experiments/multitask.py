"""Compares upstream models on the same rows: AUC by task and scenario, cost, paired differences.

lfm4ads-multitask --spec synthetic --models shared_bottom,mmoe,ple --seeds 3 --out OUT
"""

from __future__ import annotations

import sys

from lfm4ads_tf.experiments.comparison_command import run_command


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns 2 for what the user can mend."""
    return run_command(arguments, "task", "lfm4ads-multitask", (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
