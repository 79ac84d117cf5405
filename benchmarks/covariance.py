"""What Crocodile's covariance penalty costs of a training step.

    python -m benchmarks.covariance --json FILE [--batch 4096] [--rounds 9] [--rows 32]

The same model with and without the penalty takes the trainer's step, in turns of one process: five
experts of h = 64 over sets of their own, five scenarios; `--rows` adds the penalty on so many rows.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.measure import interleave, summary
from benchmarks.peers.ours_worker import layout_of
from benchmarks.set_models import Plan, batches_of, step_of, turn_of
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.crocodile import Crocodile, CrocodileConfig
from lfm4ads_tf.optim.model_optimizers import ModelOptimizers
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.training.config import OptimizerConfig

SCENARIOS = ("s0", "s1", "s2", "s3", "s4")
EXPERTS, UNITS = 5, [256, 64]


def run(plan: Plan, rows: int | None = None) -> dict[str, Any]:
    """Measures a plan.

    Args:
        plan: Sizes; tasks and sets are one and five.
        rows: Rows of a sampled penalty, which is measured too.

    Returns:
        `seconds` and `spread` of a step by contender, and `penalty_share`: by how much the penalty
        makes a step longer, medians of the rounds' ratios less 1.
    """
    network = replace(plan, tasks=1).network
    layout = replace(layout_of(network), scenarios=SCENARIOS)
    tables = EmbeddingsConfig(dim=plan.dim, sets=EXPERTS)
    towers = NetworkConfig(user_tower=[], item_tower=[])
    cases: dict[str, dict[str, Any]] = {"without": {"alpha": 0.0}, "exact": {"alpha": 0.1}}
    if rows is not None:
        cases["sampled"] = {"alpha": 0.1, "covariance_rows": rows}
    batches = [
        {**batch, "scenario": tf.cast(tf.range(plan.batch) % len(SCENARIOS), tf.int64)}
        for batch in batches_of(replace(plan, tasks=1))
    ]
    turns = {}
    for name, options in cases.items():
        sizes = CrocodileConfig(experts=EXPERTS, expert_units=UNITS, priors=[], **options)
        model = Crocodile(layout, towers, tables, sizes)
        model(batches[0])
        objective = Objective.of(model.loss_terms, OptimizerConfig())
        optimizers = ModelOptimizers(objective, model, model.all_embeddings)
        turns[name] = turn_of(step_of(objective, optimizers, network), batches, plan.steps)
    found = interleave(turns, rounds=plan.rounds, warmup=plan.warmup)
    base = np.array(found["without"])
    return {
        "batch": plan.batch,
        "seconds": {name: summary(values).median for name, values in found.items()},
        "spread": {name: summary(values).spread for name, values in found.items()},
        "penalty_share": {
            name: float(np.median(np.array(values) / base)) - 1
            for name, values in found.items()
            if name != "without"
        },
    }


def main(arguments: list[str] | None = None) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    parser.add_argument("--batch", type=int, default=Plan.batch)
    parser.add_argument("--rounds", type=int, default=Plan.rounds)
    parser.add_argument("--rows", type=int, help="rows of a sampled penalty")
    options = parser.parse_args(arguments)
    tf.config.threading.set_intra_op_parallelism_threads(2)
    result = run(Plan(batch=options.batch, rounds=options.rounds), options.rows)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    for name, seconds in result["seconds"].items():
        print(f"{name}: {1000 * seconds:.1f} ms a step, spread {result['spread'][name]:.1%}")
    for name, share in result["penalty_share"].items():
        print(f"{name} penalty: {share:+.1%} of a step")
    return 0


if __name__ == "__main__":
    sys.exit(main())
