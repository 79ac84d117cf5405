"""A foundation model with branches and gates, exported: a request picks its branch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from lfm4ads_tf.export.exporter import export_model
from lfm4ads_tf.export.golden_rows import encoded_batch, with_missing_row
from lfm4ads_tf.export.request import ExportRequest
from lfm4ads_tf.export.request_schema import RequestSchema
from lfm4ads_tf.export.samples import ExportSamples
from lfm4ads_tf.export.subject import ExportSubject
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitting import fit_encoding
from lfm4ads_tf.features.row_sets import RowSet
from lfm4ads_tf.models.foundation import FoundationModel


def test_a_request_is_scored_by_its_own_branch(world: Any, tmp_path: Path, unproven: None) -> None:
    # No feature reads `place`: the request holds it for the sake of the branch.
    spec = world.spec.model_copy(update={"ads": RowSet(by="place", values=[1, "feed"])})
    places = np.array(["1", "feed", "home", None, "2"], object)

    def placed(table: Any) -> Any:
        rows = np.arange(table.num_rows) % len(places)
        return table.append_column("place", [places[rows].tolist()])

    samples = placed(world.samples)
    columns = {name: samples[name] for name in samples.column_names}
    rows = np.arange(samples.num_rows)
    encoder = Encoder(spec, fit_encoding(spec, columns, rows, np.ones(len(rows), bool)))
    block = world.network.block.model_copy(update={"structure": "gated", "mix_dim": 6})
    network = world.network.model_copy(update={"block": block})
    model = FoundationModel(encoder.layout, network, world.embeddings(1), branches=True, seed=1)
    batch = encoded_batch(encoder, columns, {})
    assert batch["branch"].numpy().tolist() == [1, 1, 0, 0, 0] * (len(rows) // 5)
    model(batch)
    rng = np.random.default_rng(3)
    for variable in model.trainable_variables:
        variable.assign_add(rng.normal(scale=0.1, size=variable.shape).astype(np.float32))

    subject, rows = ExportSubject(model), ExportSamples(samples)
    version = export_model(ExportRequest("m", subject, encoder, rows, tmp_path, kind="foundation"))

    loaded = tf.saved_model.load(str(version))
    fresh = with_missing_row(placed(world.new_rows(29)), encoder)
    request = RequestSchema(encoder.raw_types, {})
    found = loaded.signatures["serving_default"](tf.constant(request.examples(fresh, {})))
    encoded = encoded_batch(encoder, fresh, {})
    expected = tf.sigmoid(model(encoded)).numpy()
    other = tf.sigmoid(model({**encoded, "branch": 1 - encoded["branch"]})).numpy()
    for k, task in enumerate(encoder.layout.tasks):
        np.testing.assert_allclose(found[task], expected[:, k], atol=1e-5)
        assert np.abs(found[task] - other[:, k]).max() > 0.01
