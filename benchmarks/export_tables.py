"""What smaller tables save and cost in exports: float32, float16 and int8 side by side.

    python -m benchmarks.export_tables --out OUT [--data-dir DIR] [--model foundation] [--json FILE]
    python -m benchmarks.export_tables [--rows 1000000 --dim 32] [--json FILE]

With `--out` it exports a trained model of a run to a temporary folder with tables of each type, and
scores the run's test rows by the exports. Without, the model is untrained, on a small generated log
whose user ids are hashed into `--rows` rows of width `--dim`. `docs/benchmarks.md` says what is
measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import lfm4ads_tf  # noqa: F401  (selects Keras 2 before TensorFlow is imported)

# isort: split
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
import tf_keras
import yaml
from rich.console import Console
from rich.table import Table
from tensorflow.core.protobuf import saved_model_pb2

from benchmarks.measure import Worker, interleave, summary
from lfm4ads_tf.config import ExportConfig
from lfm4ads_tf.data.raw import load_raw
from lfm4ads_tf.data.requests import complete
from lfm4ads_tf.data.samples import cache_rows, read_samples
from lfm4ads_tf.embeddings.config import ServedStorage
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.exporter import export_model
from lfm4ads_tf.export.merging import Rebuild
from lfm4ads_tf.export.request import ExportRequest
from lfm4ads_tf.export.request_schema import RequestSchema
from lfm4ads_tf.export.samples import ExportSamples
from lfm4ads_tf.export.subject import ExportSubject
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.metrics import auc
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.choice import chosen_method
from lfm4ads_tf.pipeline.predict import load_encoder
from lfm4ads_tf.pipeline.prepare import source_folder
from lfm4ads_tf.pipeline.run import Run, open_run
from lfm4ads_tf.pipeline.stored_representations import open_store
from lfm4ads_tf.pipeline.trained_models import load_downstream, load_upstream

ROOT = Path(__file__).resolve().parents[1]
STORAGES: tuple[ServedStorage, ...] = get_args(ServedStorage)
_REQUEST_ROWS = 512
_NO_VECTORS: Mapping[str, np.ndarray] = {}


@dataclass(frozen=True)
class Subject:
    """What is exported and what it is asked for.

    Attributes:
        kind: `foundation` or `ranker_<scenario>`.
        model: The model.
        rebuild: Makes it with tables of another type.
        encoder: The encoder of its data.
        samples: Raw rows for the export.
        stored: Representations of the samples, name -> (B, d + 1).
        columns: Raw columns of the rows that are scored, N of them.
        vectors: Their representations, name -> (N, d).
        tasks: Names of the tasks.
        labels: (N, T), NaN where unknown; None where nothing is known of the rows.
        evaluated: The rows' scores in the evaluation, (N, T), likewise.
    """

    kind: str
    model: tf_keras.Model
    rebuild: Rebuild
    encoder: Encoder
    samples: pa.Table
    stored: Mapping[str, np.ndarray]
    columns: Mapping[str, Any]
    vectors: Mapping[str, np.ndarray]
    tasks: tuple[str, ...]
    labels: np.ndarray | None = None
    evaluated: np.ndarray | None = None


def measure(
    subject: Subject,
    *,
    rounds: int = 9,
    calls: int = 10,
    warmup: int = 1,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Exports a model with tables of each type, and measures the exports in turns.

    Args:
        subject: What is exported.
        rounds: Turns of each type that count; two more before them do not.
        calls: Requests of a turn.
        warmup: Turns of loading before those that count.
        say: Is told what comes next.

    Returns:
        `model`, `rows` (scored), `widths` (of the tables, with their sets), and by type of the
        tables: `table_bytes`, `export_bytes`, `session_s` and `python_s` (loading), `ms` (512
        rows), their `spread`, `files` (the largest, with their bytes), ratios to float32, and
        where labels are known, by task `auc`, `auc_delta` (to float32), `auc_delta_evaluated` and
        `largest_difference` of a score to the evaluation's.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found: dict[str, dict[str, Any]] = {}
        versions: dict[str, Path] = {}
        for storage in STORAGES:
            say(f"exporting {subject.kind} with {storage} tables")
            versions[storage] = export_model(
                ExportRequest(
                    subject.kind,
                    ExportSubject(subject.model, subject.rebuild),
                    subject.encoder,
                    ExportSamples(subject.samples, subject.stored),
                    folder / storage,
                    config=ExportConfig(tables=storage),
                )
            )
            found[storage] = _sizes(versions[storage])
        rows = _write_rows(folder / "rows", subject, versions["float32"])
        say("loading the exports")
        _add_loading(found, versions, rounds, warmup)
        say("asking the exports")
        workers = {of: _worker("serve", versions[of], folder) for of in versions}
        try:
            for worker in workers.values():
                worker.ask({"do": "examples", "file": str(folder / "rows")})
            turns = {of: _turn(worker, calls) for of, worker in workers.items()}
            for of, values in interleave(turns, rounds=rounds, warmup=2).items():
                _add(found[of], "ms", values)
            if subject.labels is not None:
                say(f"scoring {rows:,} rows")
                _add_scores(found, workers, subject, folder)
        finally:
            for worker in workers.values():
                worker.close()
    for numbers in found.values():
        for key in ("table_bytes", "export_bytes", "session_s", "python_s", "ms"):
            numbers[f"{key}_ratio"] = numbers[key] / found["float32"][key]
    return {"model": subject.kind, "rows": rows, "widths": _widths(subject.model), "tables": found}


def _sizes(version: Path) -> dict[str, Any]:
    """Bytes of the tables' variables and of all files, and the largest files."""
    saved = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    tables = 0
    for node in saved.meta_graphs[0].object_graph_def.nodes:
        if node.WhichOneof("kind") == "variable" and "/table_" in node.variable.name:
            shape = [d.size for d in node.variable.shape.dim]
            tables += int(np.prod(shape)) * tf.as_dtype(node.variable.dtype).size
    sizes = {
        str(path.relative_to(version)): path.stat().st_size
        for path in version.rglob("*")
        if path.is_file()
    }
    largest = dict(sorted(sizes.items(), key=lambda item: -item[1])[:5])
    return {"table_bytes": tables, "export_bytes": sum(sizes.values()), "files": largest}


def _widths(model: tf_keras.Model) -> list[list[int]]:
    """Rows, sets and width of every physical table of the model's own embeddings."""
    layer = model.backbone.embeddings
    return [[of.rows, layer.sets, of.dim] for of in layer.layout.fused.values()]


def _write_rows(path: Path, subject: Subject, version: Path) -> int:
    """The rows as serialized examples."""
    contract = json.loads((version / "assets.extra" / "contract.json").read_text("utf-8"))
    types = {column: subject.encoder.raw_types[column] for column in contract["columns"]}
    schema = RequestSchema(types, contract["representations"])
    examples = schema.examples(subject.columns, subject.vectors)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            writer.write(example)
    return len(examples)


def _command(mode: str, version: Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.export_tables_worker", mode, str(version)]


def _worker(mode: str, version: Path, folder: Path) -> Worker:
    name = version.parent.parent.name
    return Worker(name, _command(mode, version), folder=ROOT, log=folder / f"{name}.log")


def _turn(worker: Worker, calls: int) -> Callable[[], float]:
    return lambda: float(worker.ask({"do": "time", "calls": calls})["ms"])


def _add(of: dict[str, Any], key: str, values: list[float]) -> None:
    one = summary(values)
    of[key] = one.median
    of.setdefault("spread", {})[key] = one.spread


def _add_loading(
    found: dict[str, dict[str, Any]], versions: Mapping[str, Path], rounds: int, warmup: int
) -> None:
    """Seconds of loading, each in a process of its own."""
    seconds: dict[str, list[dict[str, float]]] = {storage: [] for storage in versions}

    def load(storage: str) -> float:
        done = subprocess.run(
            _command("load", versions[storage]),
            cwd=ROOT,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        seconds[storage].append(json.loads(done.stdout.splitlines()[-1]))
        return seconds[storage][-1]["session_s"]

    turns = {storage: (lambda storage=storage: load(storage)) for storage in versions}
    interleave(turns, rounds=rounds, warmup=warmup)
    for storage, values in seconds.items():
        for key in ("session_s", "python_s"):
            _add(found[storage], key, [value[key] for value in values[warmup:]])


def _add_scores(
    found: dict[str, dict[str, Any]],
    workers: Mapping[str, Worker],
    subject: Subject,
    folder: Path,
) -> None:
    """AUC of each task by each export, and its differences."""
    labels, evaluated = subject.labels, subject.evaluated
    assert labels is not None and evaluated is not None  # by the caller
    for storage, worker in workers.items():
        path = folder / f"{storage}.npy"
        tasks = worker.ask({"do": "score", "file": str(path)})["tasks"]
        scores = np.load(path)[:, [tasks.index(task) for task in subject.tasks]]  # (N, T)
        for k, task in enumerate(subject.tasks):
            own, base = auc(labels[:, k], scores[:, k]), auc(labels[:, k], evaluated[:, k])
            if own is None or base is None:
                continue
            wide = found["float32"].get("tasks", {}).get(task, {"auc": own})["auc"]
            found[storage].setdefault("tasks", {})[task] = {
                "auc": own,
                "auc_delta": own - wide,
                "auc_delta_evaluated": own - base,
                "largest_difference": float(np.abs(scores[:, k] - evaluated[:, k]).max()),
            }


# -- what is exported ------------------------------------------------------------------------------


def trained_subject(
    out: Path, kind: str = "foundation", *, data_dir: Path | None = None, rows: int | None = None
) -> Subject:
    """A trained model of a run, asked for the run's test rows as they are at the end of training.

    Args:
        out: The run folder.
        kind: `foundation` or `ranker_<scenario>`.
        data_dir: The raw files, where the spec's data set cannot be found without.
        rows: The first test rows are enough.
    """
    run = open_run(out)
    cache, seed = run.cache, run.config.seed
    encoder = load_encoder(run)
    samples = read_samples(out / "data")
    scenario = kind.removeprefix("ranker_") if kind.startswith("ranker_") else None
    chosen = cache.rows_of("test", scenario)[:rows]
    stored, vectors = dict(_NO_VECTORS), dict(_NO_VECTORS)
    model: tf_keras.Model
    rebuild: Rebuild
    if scenario is None:
        model, folder = load_upstream(run, seed), run.upstream(seed)

        def rebuild(shards: int, storage: ServedStorage) -> tf_keras.Model:
            return build.upstream(cache.layout, run.config, seed, shards=shards, storage=storage)
    else:
        method = chosen_method(run, scenario)
        model = load_downstream(run, scenario, method, seed)
        folder = run.downstream(scenario, method.name, seed)
        store = open_store(run, seed) if method.sources else None
        dims = {} if store is None else store.dims
        key = run.spec.keys.scenario
        samples = samples.filter(pc.equal(samples[key], scenario)) if key else samples
        if store is not None:
            join = store.lookup(cache, method.sources)
            stored = dict(join(cache_rows(samples)))
            vectors = {name: values[:, :-1] for name, values in join(chosen).items()}

        def rebuild(shards: int, storage: ServedStorage) -> tf_keras.Model:
            return build.downstream(
                cache.layout, run.config, method, dims, seed, shards=shards, storage=storage
            )

    with np.load(folder / "predictions.npz") as predictions:
        places = np.searchsorted(predictions["test_rows"], chosen)
        evaluated = predictions["test_frozen"][places]
    return Subject(
        kind,
        model,
        rebuild,
        encoder,
        samples,
        stored,
        _raw_rows(run, encoder, chosen, data_dir),
        vectors,
        tuple(cache.layout.tasks),
        labels=cache.labels[chosen],
        evaluated=evaluated,
    )


def _raw_rows(
    run: Run, encoder: Encoder, rows: np.ndarray, data_dir: Path | None
) -> dict[str, Any]:
    """Raw columns of rows of the cache, moving features as at the end of training."""
    raw = load_raw(run.spec, source_folder(run.spec, data_dir, quiet=run.quiet))
    at = pa.array(rows)
    columns = {name: column.take(at) for name, column in raw.columns.items()}
    for key in (run.spec.keys.user, run.spec.keys.item):
        columns[key] = pc.cast(columns[key], pa.string())
    return complete(run.spec, run.out / "data", encoder, columns)


def untrained_subject(out: Path, *, rows: int, dim: int, log_rows: int = 20_000) -> Subject:
    """An untrained foundation model on a generated log with one large hashed table.

    Args:
        out: A folder for the prepared log.
        rows: Rows of the table of user ids.
        dim: Width of all tables.
        log_rows: Rows of the log.
    """
    out.mkdir(parents=True)
    raw = yaml.safe_load((ROOT / "feature_specs" / "synthetic.yaml").read_text("utf-8"))
    raw["dataset_options"]["rows"] = log_rows
    raw["features"]["user_id"] = {"owner": "user", "kind": "hashed", "buckets": rows}
    raw["run"]["embeddings"]["dim"] = dim
    spec = out / "spec.yaml"
    spec.write_text(yaml.safe_dump(raw), "utf-8")
    command = [sys.executable, "-m", "train", "prepare", "--spec", str(spec)]
    subprocess.run(
        [*command, "--out", str(out / "run"), "--quiet"],
        cwd=ROOT,
        env={**os.environ, "LFM4ADS_CACHE": str(out / "cache")},
        check=True,
    )
    run = open_run(out / "run")
    layout, seed = run.cache.layout, run.config.seed
    samples = read_samples(run.out / "data")
    places = pa.array(np.arange(_REQUEST_ROWS) % samples.num_rows)

    def rebuild(shards: int, storage: ServedStorage) -> tf_keras.Model:
        return build.upstream(layout, run.config, seed, shards=shards, storage=storage)

    return Subject(
        "foundation",
        build.upstream(layout, run.config, seed),
        rebuild,
        load_encoder(run),
        samples,
        _NO_VECTORS,
        {name: samples[name].combine_chunks().take(places) for name in samples.column_names},
        _NO_VECTORS,
        tuple(layout.tasks),
    )


def table(result: Mapping[str, Any]) -> Table:
    """What is printed."""
    shown = Table(title=f"{result['model']}, {result['rows']:,} rows")
    for head in ("tables", "table MB", "export MB", "load s (session, Python)", "512 rows ms"):
        shown.add_column(head, justify="right")
    for head in ("AUC", "to float32", "to the evaluation", "largest difference"):
        shown.add_column(head, justify="right")
    for storage, of in result["tables"].items():
        tasks = of.get("tasks", {})

        def lines(key: str, form: str, tasks: Mapping[str, Any] = tasks) -> str:
            return "\n".join(f"{values[key]:{form}}" for values in tasks.values())

        shown.add_row(
            storage,
            f"{of['table_bytes'] / 1e6:.2f} ({of['table_bytes_ratio']:.1%})",
            f"{of['export_bytes'] / 1e6:.2f} ({of['export_bytes_ratio']:.1%})",
            f"{of['session_s']:.3f} ({of['session_s_ratio']:.2f}), "
            f"{of['python_s']:.2f} ({of['python_s_ratio']:.2f})",
            f"{of['ms']:.2f} ({of['ms_ratio']:.2f})",
            "\n".join(f"{task} {values['auc']:.5f}" for task, values in tasks.items()),
            lines("auc_delta", "+.6f"),
            lines("auc_delta_evaluated", "+.6f"),
            lines("largest_difference", ".1e"),
        )
    return shown


def main(arguments: list[str] | None = None) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="run folder with trained models")
    parser.add_argument("--model", default="foundation", help="`foundation` or `ranker_<scenario>`")
    parser.add_argument("--data-dir", type=Path, help="raw files of the run's data set")
    parser.add_argument("--test-rows", type=int, help="score the first test rows alone")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the large table")
    parser.add_argument("--dim", type=int, default=32, help="width of the tables")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        try:
            if options.out is not None:
                subject = trained_subject(
                    options.out, options.model, data_dir=options.data_dir, rows=options.test_rows
                )
            else:
                subject = untrained_subject(
                    Path(folder) / "log", rows=options.rows, dim=options.dim
                )
        except UserError as error:
            print(error, file=sys.stderr)
            return 2
        result = measure(subject, rounds=options.rounds)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    Console(width=170).print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
