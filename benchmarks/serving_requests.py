"""Serialized requests to an export, built from the samples of its run."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import lfm4ads_tf  # noqa: F401  (selects Keras 2 before TensorFlow is imported)

# isort: split
import numpy as np
import pyarrow as pa
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from lfm4ads_tf.data.samples import cache_rows, read_samples
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.publishing import versions
from lfm4ads_tf.export.request_schema import RequestSchema
from lfm4ads_tf.features.raw_types import RawType, raw_types
from lfm4ads_tf.features.spec_file import parse_spec, read_yaml
from lfm4ads_tf.pipeline.run import open_run
from lfm4ads_tf.pipeline.stored_representations import open_store

_MOST_ROWS = 4096
_LISTS = {"texts": pa.list_(pa.string()), "numbers": pa.list_(pa.float64())}


class ServingRequests:
    """Requests to one model, as the bytes that go over the wire.

    Rows are drawn from the samples with replacement, the same ones for the same seed.

    Args:
        out: The run folder, for its feature spec, samples and stored representations.
        model: Name of the model.
        exports: Folder of models, `OUT/exports` when absent.
        seed: Of the draws.

    Raises:
        UserError: There is no such export, or it has no contract.
    """

    def __init__(
        self, out: Path, model: str, *, exports: Path | None = None, seed: int = 0
    ) -> None:
        self.model = model
        folder = (exports or out / "exports") / model
        found = versions(folder) if folder.is_dir() else []
        path = folder / str(max(found, default=0)) / "assets.extra" / "contract.json"
        if not path.is_file():
            raise UserError(
                f"There is no export '{model}' with a contract.",
                received=str(folder),
                fix="export the run: `train.py export`",
            )
        self.contract: dict[str, Any] = json.loads(path.read_text("utf-8"))
        types = raw_types(parse_spec(read_yaml(out / "config.yaml")["spec"], source=str(out)))
        self._schema = RequestSchema(
            {c: types.get(c) or RawType(kind) for c, kind in self.contract["columns"].items()},
            self.contract["representations"],
        )
        samples = read_samples(out / "data").slice(0, _MOST_ROWS)
        self._rows = samples.num_rows
        self._columns = {c: _column(samples, c, of) for c, of in self._schema.columns.items()}
        self._vectors = _representations(out, samples, self._schema.representations)
        self._rng = np.random.default_rng(seed)

    def has(self, signature: str) -> bool:
        """Whether the model has a signature."""
        return signature in self.contract["signatures"]

    @property
    def k(self) -> int:
        """Items in an answer of a retrieval model."""
        return int(self.contract["signatures"]["serving_default"]["outputs"]["ids"]["shape"][1])

    def predict(self, batch: int, count: int) -> list[bytes]:
        """`PredictRequest`s of serialized examples, `count` of them with `batch` rows each."""
        return [
            self._grpc("serving_default", {"examples": self._drawn(batch)}) for _ in range(count)
        ]

    def predict_json(self, batch: int, count: int) -> list[bytes]:
        """The same as bodies of REST requests."""
        bodies = []
        for _ in range(count):
            held = [{"b64": base64.b64encode(e).decode()} for e in self._drawn(batch)]
            body = {"signature_name": "serving_default", "inputs": {"examples": held}}
            bodies.append(json.dumps(body).encode())
        return bodies

    def rank(self, candidates: int, count: int) -> list[bytes]:
        """`PredictRequest`s of one user and context with `candidates` items each."""
        user, item = self.contract["user_columns"], self.contract["item_columns"]
        own = {*self._schema.columns, *self._schema.representations}
        once = (self._schema.part(user), self._schema.part(own - {*user, *item}))
        each = self._schema.part(item)
        requests = []
        for _ in range(count):
            one, many = self._rng.integers(self._rows, size=1), self._places(candidates)
            tensors = self._tensors(each, many)
            for schema in once:
                tensors |= self._tensors(schema, one)
            requests.append(self._grpc("rank", tensors))
        return requests

    @cached_property
    def _examples(self) -> list[bytes]:
        return self._schema.examples(self._columns, self._vectors)

    def _places(self, rows: int) -> np.ndarray:
        return self._rng.integers(self._rows, size=rows)

    def _drawn(self, rows: int) -> list[bytes]:
        return [self._examples[place] for place in self._places(rows)]

    def _tensors(self, schema: RequestSchema, places: np.ndarray) -> dict[str, np.ndarray]:
        at = pa.array(places)
        return schema.tensors(
            {c: self._columns[c].take(at) for c in schema.columns},
            {name: self._vectors[name][places] for name in schema.representations},
        )

    def _grpc(self, signature: str, inputs: Mapping[str, Any]) -> bytes:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self.model
        request.model_spec.signature_name = signature
        for name, values in inputs.items():
            texts = isinstance(values, list) or values.dtype == object
            dtype = tf.string if texts else values.dtype
            request.inputs[name].CopyFrom(tf.make_tensor_proto(values, dtype))
        return bytes(request.SerializeToString())


def _column(samples: pa.Table, name: str, of: RawType) -> pa.Array:
    """A column of the samples; missing values for one that they lack, such as `exclude`."""
    wanted = _LISTS.get(of.kind, pa.string())
    if name not in samples.column_names:
        return pa.nulls(samples.num_rows, wanted)
    column = samples[name].combine_chunks()
    return column.cast(wanted) if column.type == pa.null() else column


def _representations(
    out: Path, samples: pa.Table, widths: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """The samples' stored representations, name -> (R, d)."""
    if not widths:
        return {}
    run = open_run(out)
    lookup = open_store(run, run.config.seed).lookup(run.cache, list(widths))
    stored = lookup(cache_rows(samples))  # (R, d + 1), the last column flags presence
    return {name: np.asarray(values[:, :-1], np.float32) for name, values in stored.items()}
