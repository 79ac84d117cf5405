"""Ranking 500 candidates of one user: signature `rank` against rows of their own.

Rankers: that of a finished run (`--out`), and untrained ones over the synthetic log: with a
sequence of 50 events and an MLP user tower of two sizes, and mixers of tokens with sequences of 50
and 10. Each is written as a SavedModel with its usual signatures, and with what `rank` consists of
as further ones: the encoding and tower of one user (`user`), the encoding and towers of N items
with the context (`items`), and the rest, on their results (`mix`).
All are run by the session that a server would run, in interleaved turns; times are medians.

    python -m benchmarks.ranking --json ranking.json
    python -m benchmarks.ranking --only mixer --json mixers.json
    python -m benchmarks.ranking --out runs/kuairand --scenario 1 --json ranking.json
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lfm4ads_tf  # noqa: F401  (selects Keras 2 before TensorFlow is imported)

# isort: split
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from benchmarks.measure import interleave, summary
from lfm4ads_tf.config import resolve
from lfm4ads_tf.data.samples import cache_rows, read_samples
from lfm4ads_tf.export.cpp_loader import run_cpp
from lfm4ads_tf.export.golden_rows import GoldenRows
from lfm4ads_tf.export.prediction_serving import PredictionServing
from lfm4ads_tf.export.signature import Signature
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.interactions.field_group import FieldGroup
from lfm4ads_tf.models.two_towers import TowerOutputs
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.choice import chosen_method, trained_scenarios
from lfm4ads_tf.pipeline.named_method import read_method
from lfm4ads_tf.pipeline.predict import load_encoder
from lfm4ads_tf.pipeline.prepare import prepare
from lfm4ads_tf.pipeline.run import Run, open_run
from lfm4ads_tf.pipeline.stored_representations import open_store
from lfm4ads_tf.pipeline.trained_models import load_downstream
from lfm4ads_tf.transfer.downstream import DownstreamModel

CANDIDATES = 500
ROUNDS = 40
CALLS = 8  # requests of a turn: a server under load is not woken for each
_SPEC = Path(__file__).parents[1] / "feature_specs" / "synthetic.yaml"
_PARTS = ("user", "items", "mix")
_CPP_CALLS, _CPP_ROUNDS = 40, 9
_MIXER = {"type": "mixer", "tokens": 7, "dim": 32, "depth": 1}  # of fields; one more of numbers
_MIXED = [
    "preset=rankmixer",
    "embeddings.dim=16",
    f"downstream.network.block.layers={json.dumps([_MIXER])}",
]
_UNTRAINED: dict[str, tuple[int, list[str]]] = {
    f"sequence of 50, user tower {'-'.join(map(str, units))}": (
        50,
        ["embeddings.dim=16", f"downstream.network.user_tower={units}"],
    )
    for units in ([256, 128, 64], [512, 256, 128])
} | {
    "mixer of 8 tokens of width 32, 1 block, sequence of 50": (50, _MIXED),
    "mixer of 8 tokens of width 32, 1 block, sequence of 10": (10, _MIXED),
    "mixer, preset rankmixer, sequence of 10": (10, ["preset=rankmixer"]),
    "mixer, preset rankup, sequence of 10": (10, ["preset=rankup"]),
}
"""Untrained rankers: events of the user's sequence, and assignments."""


class SessionRunner:
    """Runs signatures of a SavedModel as a server does: by a session.

    Args:
        folder: The SavedModel.
    """

    def __init__(self, folder: Path) -> None:
        self._graph = tf.Graph()
        with self._graph.as_default():
            self._session = tf.compat.v1.Session(graph=self._graph)
            meta = tf.compat.v1.saved_model.load(self._session, ["serve"], str(folder))
        self._signatures = meta.signature_def

    def call(self, signature: str, inputs: Mapping[str, np.ndarray]) -> Callable[[], float]:
        """A function that runs a request several times and returns the milliseconds of one."""
        ends = self._signatures[signature]
        names = list(ends.inputs)
        run = self._session.make_callable(
            [ends.outputs[o].name for o in sorted(ends.outputs)],
            [ends.inputs[n].name for n in names],
        )
        values = [inputs[n] for n in names]

        def timed() -> float:
            began = time.perf_counter()
            for _ in range(CALLS):
                run(*values)
            return 1000 * (time.perf_counter() - began) / CALLS

        return timed

    def executed(
        self, signature: str, inputs: Mapping[str, np.ndarray]
    ) -> list[tuple[str, tuple[int, ...]]]:
        """Ops that a request runs in the optimised graph, with the shapes of their outputs."""
        ends = self._signatures[signature]
        options = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE)
        metadata = tf.compat.v1.RunMetadata()
        outputs = [ends.outputs[o].name for o in sorted(ends.outputs)]
        feeds = {ends.inputs[n].name: v for n, v in inputs.items()}
        for _ in range(2):  # the first run also optimises
            self._session.run(outputs, feeds, options=options, run_metadata=metadata)
        found = []
        for device in metadata.step_stats.dev_stats:
            for node in device.node_stats:
                label = re.match(r".* = (\w+)\(", node.timeline_label)
                if label and node.output:
                    shape = node.output[0].tensor_description.shape.dim
                    found.append((label.group(1), tuple(int(dim.size) for dim in shape)))
        return found

    def close(self) -> None:
        """Frees the session."""
        self._session.close()


def write_parts(
    folder: Path, graph: PredictionServing, rows: GoldenRows
) -> dict[str, dict[str, np.ndarray]]:
    """Writes a ranker, with the parts of `rank` as further signatures.

    What `mix` reads lies in variables: neither the time of passing it in nor constant folding can
    change its time.

    Args:
        folder: Where to.
        graph: The ranker.
        rows: One user's candidates.

    Returns:
        Signature -> request; those of `predict` and `serving_default` ask for the candidates as
        rows of their own.
    """
    ranking = graph.ranking
    assert ranking is not None
    requests = {r.signature: dict(r.inputs) for r in graph.golden(rows, graph.expected(rows))}
    asked = {name: _constant(values) for name, values in requests["rank"].items()}
    raw = graph.raw_rows(ranking.checked(asked))
    towers = ranking.towers(ranking.user_batch(raw), ranking.candidate_batch(raw))
    parts = {
        "towers": _each(vars(towers), tf.Variable),
        "stored": _each(ranking.representations(raw), tf.Variable),
    }
    batch = ranking.candidate_batch(raw)
    others = _each({key: batch[key] for key in batch if key != "bags"}, tf.Variable)

    def mix(go: tf.Tensor) -> dict[str, tf.Tensor]:
        joined = TowerOutputs(**_each(parts["towers"], tf.identity))
        stored = _each(parts["stored"], tf.identity)
        batch = {**_each(others, tf.identity), "bags": {}, "representations": stored}
        logits = graph.model.logits(batch, towers=lambda _: joined)
        return {"logits": logits + go}

    def user(request: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        one = {name: tf.ensure_shape(v, [1, *v.shape[1:]]) for name, v in request.items()}
        batch = ranking.user_batch(graph.raw_rows(one))
        return _largest(ranking.towers.of_user(batch))

    def items(request: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        batch = ranking.candidate_batch(graph.raw_rows(ranking.checked(request)))
        return _largest(ranking.towers.of_candidates(batch))

    specs = graph.schema.tensor_specs()
    sides = {graph.schema.names[name]: side for name, side in graph.sides.items()}
    own = {name: spec for name, spec in specs.items() if sides[name] == "user"}
    more = [
        Signature("user", user, own),
        Signature("items", items, specs),
        Signature("mix", mix, tf.TensorSpec([], tf.float32, name="go")),
    ]
    graph.write(folder, more)
    return {
        **{name: requests[name] for name in ("rank", "predict", "serving_default")},
        "user": {name: requests["rank"][name] for name in own},
        "items": requests["rank"],
        "mix": {"go": np.float32(0)},
    }


def measure(graph: PredictionServing, rows: GoldenRows, rounds: int = ROUNDS) -> dict[str, Any]:
    """Times of a ranker and its parts.

    Returns:
        Milliseconds of every signature with their spread; `parts_ratio`, rank over the sum of its
        parts; `rows_ratio`, rank over the same pairs as rows of `predict`; `examples_ratio`, over
        serialized examples; `cpp_...`, the same by the C++ loader; `matmuls`, rows of the output ->
        matrix products that `rank` runs.
    """
    with tempfile.TemporaryDirectory() as scratch:
        requests = write_parts(Path(scratch), graph, rows)
        runner = SessionRunner(Path(scratch))
        turns = {name: runner.call(name, request) for name, request in requests.items()}
        found = interleave(turns, rounds=rounds, warmup=10)
        executed = runner.executed("rank", requests["rank"])
        as_rows = runner.executed("predict", requests["predict"])
        runner.close()
        in_cpp = {name: requests[name] for name in (*_PARTS, "rank", "predict")}
        compiled = _in_cpp(Path(scratch), in_cpp)
    times = {name: summary(values) for name, values in found.items()}
    parts = np.sum([found[name] for name in _PARTS], axis=0)
    return {
        "candidates": len(next(iter(rows.columns.values()))),
        "ms": {name: round(s.median, 3) for name, s in times.items()},
        "spread": {name: round(s.spread, 3) for name, s in times.items()},
        "parts_ms": round(float(np.median(parts)), 3),
        "parts_ratio": round(times["rank"].median / float(np.median(parts)), 3),
        "rows_ratio": round(times["rank"].median / times["predict"].median, 3),
        "examples_ratio": round(times["rank"].median / times["serving_default"].median, 3),
        "cpp_ms": {
            name: round(float(np.median([ms[name] for ms in compiled])), 3) for name in in_cpp
        },
        "cpp_parts_ratio": _ratio(compiled, _PARTS),
        "cpp_rows_ratio": _ratio(compiled, ["predict"]),
        "ops": {"rank": len(executed), "predict": len(as_rows)},
        "matmuls": _products(executed),
        "matmuls_of_rows": _products(as_rows),
    }


def of_run(
    out: Path, scenario: str | None, candidates: int
) -> tuple[PredictionServing, GoldenRows]:
    """The chosen ranker of a run's scenario, and candidates of one user."""
    run = open_run(out)
    scenario = scenario or trained_scenarios(run)[0]
    seed, method = run.config.seed, chosen_method(run, scenario)
    model = load_downstream(run, scenario, method, seed)
    samples = read_samples(out / "data").slice(0, candidates - 1)
    stored: Mapping[str, np.ndarray] = {}
    if method.sources:
        lookup = open_store(run, seed).lookup(run.cache, method.sources)
        stored = lookup(cache_rows(samples))
    rows = GoldenRows.of(samples, load_encoder(run), stored)
    model(rows.batch, training=False)
    return _with_candidates(model, rows)


def untrained(
    folder: Path, events: int, assignments: Sequence[str], candidates: int
) -> tuple[PredictionServing, GoldenRows]:
    """A ranker over the synthetic log, whose users have sequences of so many events."""
    given = ["dataset_options.rows=20000", f"features.clicked.max_length={events}", *assignments]
    run = Run(folder, resolve(_SPEC, given), quiet=True)
    run.begin()
    cache = prepare(run, None)
    model = build.downstream(cache.layout, run.config, read_method(run, "none"), {}, 0)
    encoder: Encoder = load_encoder(run)
    samples = read_samples(folder / "data").slice(0, candidates - 1)
    rng = np.random.default_rng(0)
    ads = samples["ad_id"].to_numpy(zero_copy_only=False)
    clicked = [rng.choice(ads, events).tolist() for _ in range(samples.num_rows)]
    samples = samples.set_column(samples.column_names.index("clicked"), "clicked", [clicked])
    return _with_candidates(model, GoldenRows.of(samples, encoder, {}))


def _with_candidates(
    model: DownstreamModel, rows: GoldenRows
) -> tuple[PredictionServing, GoldenRows]:
    return PredictionServing(model, rows), rows


def _in_cpp(
    folder: Path, requests: Mapping[str, Mapping[str, np.ndarray]]
) -> list[dict[str, float]]:
    """Milliseconds by TensorFlow's C++ loader, of each of several processes."""
    return [run_cpp(folder, requests, repeats=_CPP_CALLS)[1].run_ms for _ in range(_CPP_ROUNDS)]


def _ratio(processes: Sequence[Mapping[str, float]], others: Sequence[str]) -> float:
    """Time of `rank` over that of others together, the median of the processes' ratios."""
    ratios = [ms["rank"] / sum(ms[name] for name in others) for ms in processes]
    return round(float(np.median(ratios)), 3)


def _each(values: Any, change: Callable[[Any], Any]) -> Any:
    """The same with every tensor changed, those of groups of fields too; None stays."""
    if isinstance(values, Mapping):
        return {key: _each(value, change) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return type(values)(_each(value, change) for value in values)
    if isinstance(values, FieldGroup):
        return replace(values, values=change(values.values))
    return None if values is None else change(values)


def _constant(values: np.ndarray) -> tf.Tensor:
    return tf.constant(values, tf.string if values.dtype == object else None)


def _largest(outputs: TowerOutputs) -> dict[str, tf.Tensor]:
    """One number of every tensor, so that all are computed and little is passed out."""
    parts: list[Any] = []
    _each(vars(outputs), parts.append)
    return {f"part_{i}": tf.reduce_max(tf.cast(p, tf.float32)) for i, p in enumerate(parts)}


def _products(executed: Sequence[tuple[str, Sequence[int]]]) -> dict[int, int]:
    """Rows of the output -> matrix products; a batched one counts once."""
    rows = [shape[-2] for op, shape in executed if op.removesuffix("V2").endswith("MatMul")]
    return dict(sorted(Counter(rows).items()))


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranking", description=__doc__)
    parser.add_argument("--out", type=Path, help="run folder")
    parser.add_argument("--scenario", help="scenario of the run [the first trained one]")
    parser.add_argument("--candidates", type=int, default=CANDIDATES)
    parser.add_argument("--only", help="untrained rankers whose name holds this text [all]")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {}
    if options.out is not None:
        graph, rows = of_run(options.out, options.scenario, options.candidates)
        scenario = options.scenario or "first"
        results[f"{options.out.name}, scenario {scenario}"] = measure(graph, rows)
    for name, (events, assignments) in _UNTRAINED.items():
        if (options.only or "") in name:
            with tempfile.TemporaryDirectory() as scratch:
                graph, rows = untrained(Path(scratch), events, assignments, options.candidates)
                results[name] = measure(graph, rows)
    _print(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    return 0


def _print(results: Mapping[str, Mapping[str, Any]]) -> None:
    table = Table("ranker", "rank ms", "user", "items", "mix", "rank / parts", "rank / rows",
                  "rank / examples", "products of rank, rows: count")  # fmt: skip
    for name, r in results.items():
        ms = r["ms"]
        table.add_row(
            name, *(f"{ms[k]:.2f}" for k in ("rank", "user", "items", "mix")),
            f"{r['parts_ratio']:.2f}", f"{r['rows_ratio']:.2f}", f"{r['examples_ratio']:.2f}",
            ", ".join(f"{k}: {v}" for k, v in r["matmuls"].items()),
        )  # fmt: skip
    Console(width=150).print(table)
    for name, r in results.items():
        print(
            f"{name}, C++ loader: rank {r['cpp_ms']['rank']:.2f} ms, "
            f"{r['cpp_parts_ratio']:.2f} of its parts, {r['cpp_rows_ratio']:.2f} of rows"
        )


if __name__ == "__main__":
    sys.exit(main())
