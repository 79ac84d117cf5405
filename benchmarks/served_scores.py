"""Are served scores the evaluation's? One model of a run, asked in every way that there is.

    python -m benchmarks.served_scores --out OUT [--data-dir DIR] [--model ranker_1] [--rows 10000]

Seven tenths of the rows are test rows as they were evaluated, with the scores that the evaluation
stored. Of the others, equal parts get keys that training never saw, lose half of their values, and
lose all values of their lists; they are held against the Keras model, fed by the encoder of
training. The export with tables of each type is asked through a reloaded SavedModel, through
TensorFlow's C++ loader, and over gRPC and REST through `lfm4ads_tf.export.local_server`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lfm4ads_tf  # noqa: F401  (selects Keras 2 before TensorFlow is imported)

# isort: split
import numpy as np
import pyarrow as pa
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from benchmarks.export_tables import STORAGES, Subject, trained_subject
from lfm4ads_tf.config import ExportConfig
from lfm4ads_tf.embeddings.config import ServedStorage
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.client import ServingClient
from lfm4ads_tf.export.contract import CONTRACT_FILE
from lfm4ads_tf.export.cpp_loader import run_cpp
from lfm4ads_tf.export.exporter import export_model
from lfm4ads_tf.export.golden_rows import encoded_batch
from lfm4ads_tf.export.local_server.server import LocalServer
from lfm4ads_tf.export.representation_lookup import RepresentationLookup
from lfm4ads_tf.export.request import ExportRequest
from lfm4ads_tf.export.request_schema import RequestSchema
from lfm4ads_tf.export.rounding import score_limit
from lfm4ads_tf.export.samples import ExportSamples
from lfm4ads_tf.export.subject import ExportSubject
from lfm4ads_tf.features import raw_values
from lfm4ads_tf.features.raw_types import RawType
from lfm4ads_tf.metrics import auc
from lfm4ads_tf.pipeline.run import Run, open_run
from lfm4ads_tf.pipeline.stored_representations import open_store

_EVALUATED = 0.7  # share of the rows that stay as they were evaluated
_CHUNK = 512  # rows of a request
_SECONDS = 60.0  # deadline of a request; this is no load test
BOUND = 0.0002  # of the difference in AUC for smaller tables


def changed_rows(subject: Subject, seed: int = 0) -> tuple[Subject, dict[str, np.ndarray]]:
    """The subject with some rows changed, and which rows each change is of.

    Args:
        subject: A trained model with its test rows.
        seed: Seed of what is taken out.

    Returns:
        The subject, and name of the change -> rows; those that were not changed are `evaluated`.
    """
    rng = np.random.default_rng(seed)
    count = len(subject.evaluated) if subject.evaluated is not None else 0
    first, second, third = (int(count * share) for share in (_EVALUATED, 0.8, 0.9))
    parts = {
        "evaluated": np.arange(0, first),
        "unseen ids": np.arange(first, second),
        "missing values": np.arange(second, third),
        "empty lists": np.arange(third, count),
    }
    spec = subject.encoder.spec
    columns: dict[str, Any] = {}
    keys = (spec.keys.user, spec.keys.item)
    types = {**dict.fromkeys(keys, RawType("text")), **subject.encoder.raw_types}
    for name, of in types.items():
        values = raw_values.column_of(subject.columns, name)
        lists = of.kind in ("texts", "numbers")
        if lists and isinstance(values, tuple):
            flat, splits = values
            values = pa.ListArray.from_arrays(pa.array(splits, pa.int32()), pa.array(flat))
        held = (pa.array(values) if not isinstance(values, pa.Array) else values).to_pylist()
        if name in keys:
            for row in parts["unseen ids"]:
                held[row] = f"unseen {row}"
        elif not of.kind == "numbers":  # weights go with their lists
            for row in parts["missing values"][rng.random(len(parts["missing values"])) < 0.5]:
                held[row] = [] if lists else None
        if lists:
            for row in parts["empty lists"]:
                held[row] = []
        kinds = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64()}
        kinds |= {"texts": pa.list_(pa.string()), "numbers": pa.list_(pa.float32())}
        columns[name] = pa.array(held, kinds.get(of.kind, pa.list_(pa.float32())))
    weights = {
        f.weights: n for n, f in spec.features.items() if getattr(f, "weights", None) is not None
    }
    for name, of_list in weights.items():
        column = spec.features[of_list].raw_columns(of_list)[0]
        lengths = [len(v or []) for v in columns[column].to_pylist()]
        held = [(v or [])[:n] for v, n in zip(columns[name].to_pylist(), lengths, strict=True)]
        columns[name] = pa.array(held, pa.list_(pa.float32()))
    vectors = {name: values.copy() for name, values in subject.vectors.items()}
    for values in vectors.values():
        values[parts["unseen ids"]] = 0.0  # nothing is stored for these keys
    return replace(subject, columns=columns, vectors=vectors), parts


def offline_scores(subject: Subject) -> np.ndarray:
    """Scores (N, T) of the Keras model on rows encoded as for training."""
    found = []
    stored = {
        name: np.concatenate([v, np.any(v != 0, axis=1, keepdims=True)], axis=1, dtype=np.float32)
        for name, v in subject.vectors.items()
    }
    for at in _chunks(subject, 4096):
        columns = {n: v.slice(at.start, at.stop - at.start) for n, v in subject.columns.items()}
        batch = encoded_batch(subject.encoder, columns, {n: v[at] for n, v in stored.items()})
        found.append(tf.sigmoid(subject.model(batch, training=False)).numpy())
    return np.concatenate(found)


def served_scores(
    subject: Subject, version: Path, server: LocalServer
) -> Iterator[tuple[str, np.ndarray]]:
    """Name of the way and scores (N, T), way by way."""
    contract = json.loads((version / "assets.extra" / "contract.json").read_text("utf-8"))
    types = {
        column: subject.encoder.raw_types.get(column, RawType("text"))  # keys may be asked for too
        for column in contract["columns"]
    }
    schema = RequestSchema(types, contract["representations"])
    examples = np.array(schema.examples(subject.columns, subject.vectors), object)
    tensors = schema.tensors(subject.columns, subject.vectors)
    specs = schema.tensor_specs()
    loaded = tf.saved_model.load(str(version)).signatures

    def joined(ask: Callable[[slice], Mapping[str, np.ndarray]]) -> np.ndarray:
        parts = []
        for at in _chunks(subject, _CHUNK):
            outputs = ask(at)
            parts.append(np.stack([outputs[task] for task in subject.tasks], axis=1))
        return np.concatenate(parts)

    def numpy(outputs: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
        return {name: values.numpy() for name, values in outputs.items()}

    yield (
        "reloaded, serving_default",
        joined(lambda at: numpy(loaded["serving_default"](examples=tf.constant(examples[at])))),
    )
    yield (
        "reloaded, predict",
        joined(
            lambda at: numpy(
                loaded["predict"](
                    **{n: tf.constant(v[at], specs[n].dtype) for n, v in tensors.items()}
                )
            )
        ),
    )
    answers, _ = run_cpp(version, {"serving_default": {"examples": examples}, "predict": tensors})
    for name, outputs in answers.items():
        yield f"C++ loader, {name}", np.stack([outputs[t] for t in subject.tasks], axis=1)
    for way, address in (("gRPC", f"grpc://{server.grpc_address}"), ("REST", server.rest_address)):
        with ServingClient(
            address, version.parent.name, subject.encoder.spec, deadline=_SECONDS
        ) as client:
            for form in ("examples", "tensors"):
                yield (
                    f"{way}, {form}",
                    joined(lambda at, form=form, c=client: c.predict(_rows(subject, at), form)),
                )
            yield f"{way}, Classify", joined(lambda at, c=client: c.classify(_rows(subject, at)))


def lookups(run: Run, subject: Subject) -> dict[str, RepresentationLookup]:
    """Tables of what the subject reads of stored representations, at the end of training."""
    store = open_store(run, run.config.seed)
    return {name: RepresentationLookup(name, *store.frozen(name)) for name in subject.vectors}


def measure(
    subject: Subject,
    *,
    storages: tuple[ServedStorage, ...] = STORAGES,
    tables: Mapping[str, RepresentationLookup] | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Largest differences of every way to the evaluation and the Keras model.

    Args:
        subject: A trained model with its test rows.
        storages: Types of the tables.
        tables: Representations by key; where there are some, an export that looks them up is asked
            as well, as `float32, lookup`.
        say: Is told what comes next.

    Returns:
        `rows` by change; `offline`, the Keras model's largest difference to the evaluation; by type
        of the tables `differences` (way -> change -> largest difference), `share` (the largest of
        what rounding and tables allow) and, over the evaluated rows, by task `auc_evaluated` and
        `auc_delta` (the ways' largest).
    """
    subject, parts = changed_rows(subject)
    assert subject.evaluated is not None and subject.labels is not None  # of a trained model
    offline = offline_scores(subject)
    kept = parts["evaluated"]
    expected = offline.copy()
    expected[kept] = subject.evaluated[kept]
    result: dict[str, Any] = {
        "model": subject.kind,
        "rows": {name: len(rows) for name, rows in parts.items()},
        "offline": float(np.abs(offline[kept] - subject.evaluated[kept]).max()),
        "tables": {},
    }
    plans: list[tuple[str, ServedStorage, Mapping[str, RepresentationLookup]]]
    plans = [(storage, storage, {}) for storage in storages]
    if tables:
        plans.append(("float32, lookup", "float32", tables))
    for name, storage, held in plans:
        say(f"exporting {subject.kind}, {name}")
        with tempfile.TemporaryDirectory() as folder:
            version = export_model(
                ExportRequest(
                    subject.kind,
                    ExportSubject(subject.model, subject.rebuild, held),
                    subject.encoder,
                    ExportSamples(subject.samples, subject.stored),
                    Path(folder),
                    config=ExportConfig(tables=storage),
                )
            )
            differences: dict[str, dict[str, float]] = {}
            deltas: dict[str, float] = dict.fromkeys(subject.tasks, 0.0)
            base = _aucs(subject, subject.evaluated, kept)
            contract = json.loads((version / CONTRACT_FILE).read_text("utf-8"))
            limits = np.stack(
                [score_limit(contract, t, expected[:, k]) for k, t in enumerate(subject.tasks)],
                axis=1,
            )  # (B, T)
            share = 0.0
            with LocalServer(exports=Path(folder)) as server:
                for way, scores in served_scores(subject, version, server):
                    say(f"  {way}")
                    apart = np.abs(scores.astype(np.float64) - expected)  # (B, T)
                    share = max(share, float((apart / limits).max()))
                    off = apart.max(axis=1)
                    differences[way] = {n: float(off[rows].max()) for n, rows in parts.items()}
                    for task, value in _aucs(subject, scores, kept).items():
                        if value is not None and base[task] is not None:
                            deltas[task] = max(deltas[task], abs(value - base[task]))
        result["tables"][name] = {
            "share": share,
            "differences": differences,
            "auc_evaluated": base,
            "auc_delta": deltas,
        }
    return result


def _aucs(subject: Subject, scores: np.ndarray, rows: np.ndarray) -> dict[str, float | None]:
    assert subject.labels is not None
    pairs = enumerate(subject.tasks)
    return {task: auc(subject.labels[rows, k], scores[rows, k]) for k, task in pairs}


def _rows(subject: Subject, at: slice) -> dict[str, Any]:
    """Rows as a client has them."""
    size = at.stop - at.start
    rows = {name: values.slice(at.start, size) for name, values in subject.columns.items()}
    return {**rows, **{name: values[at] for name, values in subject.vectors.items()}}


def _chunks(subject: Subject, size: int) -> Iterator[slice]:
    count = len(next(iter(subject.columns.values())))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def holds(result: Mapping[str, Any]) -> bool:
    """Whether every difference is within what is allowed, and every AUC within the bound."""
    tables = result["tables"].values()
    return all(of["share"] <= 1 for of in tables) and all(
        delta <= BOUND for of in tables for delta in of["auc_delta"].values()
    )


def table(result: Mapping[str, Any]) -> Table:
    """What is printed."""
    rows = ", ".join(f"{count:,} {name}" for name, count in result["rows"].items())
    shown = Table(title=f"{result['model']}: largest difference on {rows}")
    for head in ("tables", "of allowed", "way", *result["rows"]):
        shown.add_column(head)
    for storage, of in result["tables"].items():
        for way, by_change in of["differences"].items():
            shown.add_row(
                storage, f"{of['share']:.0%}", way, *(f"{v:.1e}" for v in by_change.values())
            )
        deltas = ", ".join(f"{task} {delta:.6f}" for task, delta in of["auc_delta"].items())
        shown.add_row(storage, f"{BOUND:g}", f"|dAUC|: {deltas}", end_section=True)
    return shown


def main(arguments: list[str] | None = None) -> int:
    """Exits with 1 where a difference is larger than allowed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.served_scores", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--data-dir", type=Path, help="raw files of the run's data set")
    parser.add_argument("--model", default="foundation", help="`foundation` or `ranker_<scenario>`")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    try:
        subject = trained_subject(
            options.out, options.model, data_dir=options.data_dir, rows=options.rows
        )
        tables = lookups(open_run(options.out), subject) if subject.vectors else None
        result = measure(subject, tables=tables)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    Console(width=150).print(table(result))
    return 0 if holds(result) else 1


if __name__ == "__main__":
    sys.exit(main())
