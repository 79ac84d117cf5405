"""A training of a small log by a cluster inside one process, beside that of one machine.

    python -m tests.cluster.training_bodies DATA FOLDER OPTIONS

Prints a JSON object on its last line. What is compared was computed before the cluster is joined.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import lfm4ads_tf  # noqa: F401 - settles which Keras is used
from lfm4ads_tf.cluster.addresses import free_ports
from lfm4ads_tf.cluster.cluster_config import ClusterConfig
from lfm4ads_tf.cluster.config import ClusterSettings
from lfm4ads_tf.cluster.host_functions import register
from lfm4ads_tf.cluster.parameter_servers import ParameterServers
from lfm4ads_tf.cluster.row_loader import ROWS, RowLoader
from lfm4ads_tf.cluster.shared_folder import SEEN, seen
from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.execution import Execution
from lfm4ads_tf.embeddings.placement.segment_files import HOST_FUNCTIONS
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.scoring import predict_rows
from lfm4ads_tf.representations.store import open_join
from lfm4ads_tf.strict import parse
from lfm4ads_tf.training.config import TrainingConfig
from lfm4ads_tf.training.schedule import Phase
from lfm4ads_tf.training.trainer import Trainer
from tests.cluster.scripts import report_and_leave

TRAINING = {
    "batch_size": 16,
    "checkpoint_every": 8,
    "optimizer": {"table_learning_rate": 0.1, "dense_learning_rate": 0.01},
}


def joined(workers: int, servers: int, **settings: Any) -> ParameterServers:
    """A cluster whose servers and workers are threads of this process."""
    ports = free_ports(workers + servers + 1)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    config = ClusterConfig(
        addresses[-1], tuple(addresses[:workers]), tuple(addresses[workers : workers + servers])
    )
    register(ROWS, RowLoader(open_join))
    register(SEEN, seen)
    for name, function in HOST_FUNCTIONS.items():
        register(name, function)
    options = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=8)
    spec = config.as_spec()
    for task in config.tasks:
        if task.job != "chief":
            tf.distribute.Server(spec, task.job, task.index, protocol="grpc", config=options)
    return ParameterServers(config, ClusterSettings(**settings))


def trained(
    execution: Execution, cache: EncodedCache, folder: Path, *, weights: bool, steps: int
) -> dict[str, Any]:
    """Trains `steps` batches, resumed once in the middle, and scores all rows."""
    part = {
        "network": {
            "user_tower": [4],
            "item_tower": [4],
            "block": {"layers": [{"type": "cross", "depth": 1}, {"type": "dnn", "units": [6]}]},
        },
        "embeddings": {"dim": 4, "shards": execution.shards or 1},
    }
    config = parse(RunConfig, {"upstream": part}, source="test")
    training = parse(TrainingConfig, TRAINING, source="test")
    rows = np.arange(min(cache.rows, steps * training.batch_size - 5))
    drawn = np.random.default_rng(0).uniform(0.5, 2.0, cache.rows).astype(np.float32)
    with execution.scope():
        model = build.upstream(cache.layout, config, 1)
        trainer = Trainer(
            model,
            model.all_embeddings,
            Objective.of(model.loss_terms, training.optimizer),
            cache,
            training,
            seed=3,
            label="test",
            folder=folder,
            tensorboard=folder / "tensorboard",
            validate=lambda: -float(np.mean(predict_rows(model, cache, rows))),
            row_weights=drawn if weights else None,
            quiet=True,
        )
        result = trainer.fit([Phase("one", rows, validate=True)])
        losses = [*result.history[0]["losses"].values()]
        scores = predict_rows(model, cache, rows)
        optimizer = next(iter(trainer.optimizers.optimizers.values()))
        made = int(optimizer.iterations.numpy())
        devices = sorted({part.device for part in model.backbone.embeddings.all_parts()})
        words = hashlib.sha256()
        for variable in [*model.variables, *optimizer.variables]:
            words.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return {
        "digest": words.hexdigest(),
        "steps": result.steps,
        "iterations": made,
        "losses": losses,
        "scores": np.asarray(scores, np.float64).tolist(),
        "devices": devices,
    }


def both() -> dict[str, Any]:
    """Runs both trainings."""
    data, folder, options = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    cache = EncodedCache(data)
    common = {"weights": options.pop("weights", False), "steps": options.pop("steps", 20)}
    alone = trained(Execution(), cache, folder / "alone", **common)
    cluster = joined(options.pop("workers", 2), options.pop("servers", 2), **options)
    folder.mkdir(parents=True, exist_ok=True)
    cluster.require_shared(folder)
    together = trained(cluster, cache, folder / "cluster", **common)
    return {"alone": alone, "cluster": together}


if __name__ == "__main__":
    report_and_leave(both)
