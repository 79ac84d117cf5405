"""Seconds that the diagnostics of tokens take at one evaluation, part by part.

    python -m benchmarks.token_diagnosis [--rows 4096] [--tokens 17] [--dim 136] [--depth 2]
                                         [--rounds 3] [--json FILE]

Drawn tokens at the 2 L + 1 places of a mixer of depth L, without the model's own forward pass.
`whole` is all that is told; `ranks`, `token_eranks` and `correlations` are its parts at all places,
`codes` and `pairs` (k-means, and mutual information between tokens) at the two that have them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import interleave, summary
from lfm4ads_tf.diagnostics.correlation import token_correlations
from lfm4ads_tf.diagnostics.mutual_information import pair_informations, token_codes
from lfm4ads_tf.diagnostics.rank import sample_eranks, token_ranks
from lfm4ads_tf.diagnostics.token_diagnosis import token_entries
from lfm4ads_tf.interactions.observed_tokens import ObservedTokens


def measure(rows: int, tokens: int, dim: int, depth: int, *, rounds: int) -> dict[str, Any]:
    """Measures the whole and its parts in turns.

    Args:
        rows, tokens, dim, depth: B, N, D and L.
        rounds: Turns of each; none before them, for nothing is compiled.

    Returns:
        `seconds` and `spread` of each (medians).
    """
    draw = np.random.default_rng(0)
    names = tuple(f"token_{n}" for n in range(tokens))
    places = ["tokens", *(f"{at}_{k}" for k in range(1, depth + 1) for at in ("mix", "network"))]
    values = [draw.standard_normal((tokens, rows, dim), np.float32) for _ in places]
    observed = {
        f"mixer/{place}": ObservedTokens(x, names) for place, x in zip(places, values, strict=True)
    }
    codes = token_codes(values[0])
    contenders: dict[str, Callable[[], object]] = {
        "whole": lambda: token_entries(observed, {}, seed=0),
        "ranks": lambda: [token_ranks(x) for x in values],
        "token_eranks": lambda: [sample_eranks(x) for x in values],
        "correlations": lambda: [token_correlations(x) for x in values],
        "codes": lambda: [token_codes(x) for x in (values[0], values[-1])],
        "pairs": lambda: [pair_informations(codes) for _ in range(2)],
    }

    def turn(name: str) -> float:
        began = time.perf_counter()
        contenders[name]()
        return time.perf_counter() - began

    turns = {name: partial(turn, name) for name in contenders}
    seconds = {n: summary(s) for n, s in interleave(turns, rounds=rounds, warmup=0).items()}
    return {
        "seconds": {name: found.median for name, found in seconds.items()},
        "spread": {name: found.spread for name, found in seconds.items()},
    }


def main(arguments: list[str] | None = None) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = {"rows": 4096, "tokens": 17, "dim": 136, "depth": 2, "rounds": 3}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    given = (options.rows, options.tokens, options.dim, options.depth)
    result = measure(*given, rounds=options.rounds)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    for name, seconds in result["seconds"].items():
        print(f"{name:<14}{seconds:8.2f} s, spread {result['spread'][name]:.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
