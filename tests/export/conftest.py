"""A spec with every kind of feature, untrained models over it, and their exports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tf_keras

from lfm4ads_tf.config import ExportConfig
from lfm4ads_tf.embeddings.config import EmbeddingsConfig, ServedStorage
from lfm4ads_tf.export import exporter
from lfm4ads_tf.export.blessing import file_digests
from lfm4ads_tf.export.exporter import export_model
from lfm4ads_tf.export.golden_rows import encoded_batch
from lfm4ads_tf.export.local_server.server import LocalServer
from lfm4ads_tf.export.request import ExportRequest
from lfm4ads_tf.export.samples import ExportSamples
from lfm4ads_tf.export.subject import ExportSubject
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitting import fit_encoding
from lfm4ads_tf.features.spec_file import parse_spec
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.transfer.adapters.gate import GateAdapter
from lfm4ads_tf.transfer.adapters.mlp import MlpAdapter
from lfm4ads_tf.transfer.downstream import DownstreamModel
from tests.quick_proof import quick_proof

SPEC: dict[str, Any] = {
    "name": "example",
    "log": {
        "files": ["log.csv"],
        "user_columns": ["age", "income", "segments", "pages"],
        "item_columns": ["brand", "tags", "tag_weights", "price", "vector"],
    },
    "keys": {"user": "user_id", "item": "item_id", "time": "time", "scenario": "tab"},
    "tasks": {"click": "is_click", "like": "is_like"},
    "split": {"by": "time", "train_until": 6, "valid_until": 8},
    "features": {
        "user_id": {"kind": "hashed", "owner": "user", "buckets": 200, "dim": 4},
        "income": {"kind": "numeric", "owner": "user", "transform": "log"},
        "age": {"kind": "numeric", "owner": "user", "transform": "buckets", "buckets": 4},
        "segments": {"kind": "multi", "owner": "user", "encoding": "vocabulary"},
        "history": {
            "kind": "sequence",
            "owner": "user",
            "events_of": "click",
            "table": "item_id",
            "max_length": 3,
        },
        "pages": {"kind": "sequence", "owner": "user", "max_length": 2, "buckets": 9},
        "item_id": {"kind": "vocabulary", "owner": "item", "min_count": 2},
        "brand": {"kind": "hashed", "owner": "item", "buckets": 7, "dim": 4},
        "price": {"kind": "numeric", "owner": "item"},
        "tags": {
            "kind": "multi",
            "owner": "item",
            "weights": "tag_weights",
            "pooling": "sum",
            "buckets": 50,
        },
        "vector": {"kind": "pretrained", "owner": "item", "size": 2},
        "s": {"kind": "statistic", "owner": "item", "task": "click", "keys": ["item"]},
        "weekday": {"kind": "identity", "owner": "context", "size": 7},
        "user_brand": {
            "kind": "crossed",
            "owner": "context",
            "columns": ["user_id", "brand"],
            "buckets": 500,
        },
    },
}
WIDTHS = {"UR": 3, "CR_user@cross_2": 5}
ROWS = 40


def random_rows(rng: np.random.Generator, rows: int) -> pa.Table:
    """Raw rows with missing values, empty lists and values that no vocabulary knows."""

    def sometimes(values: list[Any]) -> list[Any]:
        return [None if rng.random() < 0.15 else value for value in values]

    def texts(prefix: str, size: int) -> list[str]:
        return [f"{prefix}{k}" for k in rng.integers(0, size, rows)]

    def lists(prefix: str, most: int) -> list[list[str]]:
        sizes = rng.integers(0, most, rows)
        return [[f"{prefix}{k}" for k in rng.integers(0, 9, size)] for size in sizes]

    tags = lists("tag ", 5)
    return pa.table(
        {
            "user_id": sometimes(texts("ü", 30)),
            "item_id": sometimes(texts("i", 12)),
            "brand": sometimes(texts("b", 5)),
            "tab": sometimes(texts("tab ", 3)),
            "age": pa.array(sometimes(rng.integers(10, 80, rows).tolist()), pa.int64()),
            "income": pa.array(sometimes(rng.lognormal(3, 2, rows).tolist()), pa.float64()),
            "price": pa.array(sometimes(rng.normal(5, 2, rows).tolist()), pa.float64()),
            "weekday": pa.array(sometimes(rng.integers(-1, 9, rows).tolist()), pa.int64()),
            "segments": pa.array(sometimes(lists("s", 4)), pa.list_(pa.string())),
            "history": pa.array(lists("i", 7), pa.list_(pa.string())),
            "pages": pa.array(lists("p", 5), pa.list_(pa.string())),
            "tags": pa.array(tags, pa.list_(pa.string())),
            "tag_weights": pa.array([rng.random(len(t)).tolist() for t in tags]),
            "vector": pa.array(sometimes(rng.normal(size=(rows, 2)).tolist())),
            "s.count": pa.array(sometimes(rng.random(rows).tolist()), pa.float64()),
            "s.rate": rng.normal(size=rows),
        }
    )


class World:
    """Everything that an export starts from."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        train = random_rows(rng, 200)
        columns = {name: train[name] for name in train.column_names}
        self.raw_spec = SPEC
        self.spec = parse_spec(SPEC)
        fitted = fit_encoding(self.spec, columns, np.arange(200), np.ones(200, bool))
        self.encoder = Encoder(self.spec, fitted)
        self.samples = random_rows(rng, ROWS)
        self.samples = self.samples.set_column(
            1, "item_id", pa.array(["never seen", *self.samples["item_id"].to_pylist()[1:]])
        )
        self.representations = {}
        for name, width in WIDTHS.items():
            present = (rng.random((ROWS, 1)) < 0.7).astype(np.float32)
            values = rng.normal(size=(ROWS, width)).astype(np.float32) * present
            self.representations[name] = np.concatenate([values, present], axis=1)
        self.columns = {name: self.samples[name] for name in self.samples.column_names}
        self.batch = encoded_batch(self.encoder, self.columns, self.representations)
        self.network = NetworkConfig.model_validate(
            {
                "user_tower": [6],
                "block": {
                    "layers": [
                        {"type": "fm", "dim": 4},
                        {"type": "cross", "depth": 2},
                        {"type": "dnn", "units": [8, 6]},
                    ]
                },
            }
        )

    def new_rows(self, rows: int) -> pa.Table:
        return random_rows(np.random.default_rng(9), rows)

    def embeddings(self, shards: int, storage: ServedStorage = "float32") -> EmbeddingsConfig:
        return EmbeddingsConfig(dim=8, sets=2, init_scale=0.5).served(shards, storage)

    def foundation(
        self, shards: int, storage: ServedStorage = "float32", seed: int = 1
    ) -> tf_keras.Model:
        return FoundationModel(
            self.encoder.layout, self.network, self.embeddings(shards, storage), seed=seed
        )

    def ranker(
        self, shards: int, storage: ServedStorage = "float32", seed: int = 2
    ) -> tf_keras.Model:
        adapters = [
            MlpAdapter(["UR", "CR_user@cross_2"], units=[6, 4], seed=seed),
            GateAdapter(["CR_user@cross_2"], seed=seed),
        ]
        return DownstreamModel(
            self.encoder.layout,
            self.network,
            self.embeddings(shards, storage),
            adapters=adapters,
            seed=seed,
        )

    def built(self, make: Callable[..., tf_keras.Model]) -> tf_keras.Model:
        """A model as training leaves it: no variable at its initial value, slots within reach."""
        model = make()
        model(self.batch, training=False)
        rng = np.random.default_rng(3)
        for variable in model.trainable_variables:
            variable.assign_add(rng.normal(scale=0.1, size=variable.shape).astype(np.float32))
        tables = {id(v) for v in model.backbone.embeddings.trainable_variables}
        model.slots = HybridOptimizer(0.1, 0.1)
        model.slots.build(
            [model.backbone.embeddings],
            [v for v in model.trainable_variables if id(v) not in tables],
        )
        return model

    def export(self, kind: str, model: tf_keras.Model, out: Path, **options: Any) -> Path:
        """`export_model` with this world's rows; `rebuild` makes models of another seed.

        Args:
            options: Parts of subject, samples and request.
        """
        make = self.ranker if kind.startswith("ranker") else self.foundation
        options = {
            "name": kind,
            "samples": self.samples,
            "representations": self.representations,
            "config": ExportConfig(warmup_rows=5),
            "rebuild": lambda shards, storage: make(shards, storage, seed=99),
            **options,
        }
        parts = ("rebuild", "lookups", "index")
        subject = ExportSubject(model, **{k: options.pop(k) for k in parts if k in options})
        samples = ExportSamples(options.pop("samples"), options.pop("representations"))
        name = options.pop("name")
        request = ExportRequest(name, subject, self.encoder, samples, out, kind=kind, **options)
        return export_model(request)


@pytest.fixture
def unproven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports are published without the verification, for tests of something else."""
    monkeypatch.setattr(
        exporter, "verify_export", lambda staged, **_: {"files": file_digests(staged)}
    )


@pytest.fixture(scope="session")
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def models(world: World) -> dict[str, tf_keras.Model]:
    foundation = world.built(lambda: world.foundation(shards=2))
    return {
        "foundation": foundation,
        "ranker_tab 1": world.built(lambda: world.ranker(shards=1)),
        "user_tower": foundation,
        "item_tower": foundation,
    }


@pytest.fixture(scope="session")
def exports(
    world: World, models: dict[str, tf_keras.Model], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """One of each kind; the ranker, which has every signature, is proven as users' exports are."""
    out = tmp_path_factory.mktemp("run") / "exports"
    with quick_proof(but=["ranker_tab 1"]):
        for kind, model in models.items():
            world.export(kind, model, out)
    return out


@pytest.fixture(scope="session")
def server_of_exports(exports: Path) -> Iterator[LocalServer]:
    """One for all tests: loading and warming up takes seconds. Leave its models as they are."""
    with LocalServer(exports=exports, file_system_poll_wait_seconds=0) as server:
        yield server
