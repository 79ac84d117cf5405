"""A ranker with the isomorphic module, experts of tokens and omitted features, in shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from lfm4ads_tf.config import ExportConfig
from lfm4ads_tf.export.exporter import export_model
from lfm4ads_tf.export.golden_rows import encoded_batch, with_missing_row
from lfm4ads_tf.export.request import ExportRequest
from lfm4ads_tf.export.request_schema import RequestSchema
from lfm4ads_tf.export.samples import ExportSamples
from lfm4ads_tf.export.subject import ExportSubject
from lfm4ads_tf.interactions.config import BlockConfig
from lfm4ads_tf.strict import parse
from lfm4ads_tf.transfer.downstream import DownstreamModel
from lfm4ads_tf.transfer.isomorphic import IsomorphicModule

KIND = "ranker_tab 1"
OMITTED = ["history", "price", "weekday"]
WIDTHS = {"UR": 6, "IR": 5}


def stored(rows: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = {}
    for name, width in WIDTHS.items():
        present = rng.random((rows, 1)) < 0.7
        vectors = rng.normal(size=(rows, width)) * present
        found[name] = np.concatenate([vectors, present], axis=1).astype(np.float32)
    return found


@pytest.mark.slow
def test_a_module_ranker_asks_for_what_it_reads_and_scores_as_the_keras_model(
    world: Any, tmp_path: Path, unproven: None
) -> None:
    whole = world.encoder.layout
    layout = whole.without(OMITTED)
    mixer = {"type": "mixer", "tokens": 3, "head_dim": 2, "depth": 1, "experts": 2}
    layers = [{**mixer, "norm": "pre", "decorrelation": 0.1}, {"type": "cross", "depth": 1}]
    block = parse(BlockConfig, {"structure": "parallel", "layers": layers}, source="block")
    network = world.network.model_copy(update={"block": block})
    upstream = world.network.model_copy(update={"item_tower": [5]})

    def make(shards: int, seed: int = 2) -> tf_keras.Model:
        tables = world.embeddings(shards)
        module = IsomorphicModule(
            layout, whole, upstream, tables, gate=True, head=True, copied=False, seed=seed
        )
        return DownstreamModel(layout, network, tables, module=module, seed=seed)

    values = stored(world.samples.num_rows, 4)
    model = make(3)
    model(encoded_batch(world.encoder, world.columns, values))
    rng = np.random.default_rng(3)
    for variable in model.trainable_variables:
        variable.assign_add(rng.normal(scale=0.1, size=variable.shape).astype(np.float32))
    folder = export_model(
        ExportRequest(
            KIND,
            ExportSubject(model, lambda shards, _: make(shards, seed=99)),
            world.encoder,
            ExportSamples(world.samples, values),
            tmp_path,
            config=ExportConfig(warmup_rows=3),
        )
    )
    unread = {"tab", "price", "weekday", "history"}
    columns = {c: t for c, t in world.encoder.raw_types.items() if c not in unread}
    schema = RequestSchema(columns, WIDTHS)
    rows = with_missing_row(world.new_rows(19), world.encoder)
    new = stored(20, 5)
    logits = model(encoded_batch(world.encoder, rows, new)).numpy().astype(np.float64)
    vectors = {name: value[:, :-1] for name, value in new.items()}
    predict = tf.saved_model.load(str(folder)).signatures["predict"]
    assert set(predict.structured_input_signature[1]) == set(schema.tensor_specs())
    tensors = {
        name: tf.constant(value, schema.tensor_specs()[name].dtype)
        for name, value in schema.tensors(rows, vectors).items()
    }
    outputs = predict(**tensors)
    for k, task in enumerate(whole.tasks):
        expected = 1 / (1 + np.exp(-logits[:, k]))
        np.testing.assert_allclose(outputs[task], expected, rtol=0, atol=1e-6)
