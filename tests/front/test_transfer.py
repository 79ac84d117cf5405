"""Representations, downstream models and exports through the front door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import lfm4ads_tf as lfm
from lfm4ads_tf.config import DownstreamConfig
from lfm4ads_tf.data.samples import cache_rows, read_samples
from lfm4ads_tf.data.splits import AUXILIARY
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.skew.in_process_model import InProcessModel
from lfm4ads_tf.features.spec_file import parse_spec
from lfm4ads_tf.representations.config import RepresentationsConfig
from tests.conftest import ADS_SPEC, ads_tables, write_tables
from tests.front.conftest import Fitted
from tests.rounding import assert_close


def test_stored_towers_are_the_upstreams_at_the_end_of_training(
    log: lfm.EncodedLog, fitted: Fitted, stored: lfm.RepresentationStore
) -> None:
    """The last event of a user in training has the features that UR was made of, or newer ones."""
    keys, vectors = stored.frozen("UR")
    assert vectors.shape == (len(keys), stored.dims["UR"])
    known = {key for key, n in zip(log.cache.keys("user").to_pylist(), np.bincount(
        log.cache.user[np.flatnonzero((log.cache.split == 0) | (log.cache.split == AUXILIARY))],
        minlength=len(log.cache.keys("user"))), strict=True) if n}  # fmt: skip
    assert set(keys.to_pylist()) == known


def test_stored_users_are_what_a_row_behind_the_training_gives(
    log: lfm.EncodedLog, fitted: Fitted, stored: lfm.RepresentationStore
) -> None:
    """A valid row sees the user's features at the end of training, as the stored UR does."""
    keys, vectors = stored.frozen("UR")
    place = {key: k for k, key in enumerate(keys.to_pylist())}
    users = log.cache.keys("user").to_pylist()
    batch = next(iter(log.dataset("valid", batch_size=60)))
    seen = [
        (k, place[users[log.cache.user[row]]])
        for k, row in enumerate(log.rows("valid")[:60])
        if users[log.cache.user[row]] in place
    ]
    assert len(seen) > 20
    rows, stored_rows = (list(x) for x in zip(*seen, strict=True))
    represented = fitted.upstream.represent(batch)["UR"].numpy()[rows]
    # the same sums in batches of other sizes
    towers = fitted.upstream.backbone
    inputs = np.abs(towers.set_views(batch)["user"][0].numpy()[rows])  # (R, d)
    (layer,) = towers.user_tower.layers
    magnitude = inputs @ np.abs(layer.kernel.numpy()) + np.abs(layer.bias.numpy())
    terms = inputs.shape[1] + 16  # of the product, and of the bags before it
    assert_close(vectors[stored_rows], represented, terms=terms, magnitude=magnitude)


@pytest.mark.slow
def test_later_rows_change_nothing_that_earlier_ones_see(
    network: lfm.NetworkConfig, ads_features: Any, changed_from: Any, tmp_path: Path
) -> None:
    """Features and representations of rows of days before 4, bit by bit."""
    tf.config.experimental.enable_op_determinism()
    seen = []
    for change in (lambda tables: None, changed_from(4, labels_only=True)):
        tables = ads_tables()
        change(tables)
        folder = tmp_path / str(len(seen))
        write_tables(folder, tables)
        features = ads_features("segment", "user_click", "tags", "item_love")
        spec = parse_spec({**ADS_SPEC, "features": features})
        log = lfm.encode(spec, folder)
        upstream = lfm.FoundationModel(log.layout, network, lfm.EmbeddingsConfig(dim=4))
        upstream.compile(lfm.HybridOptimizer(0.1, 0.01))
        chain = lfm.PeriodChain(log, batch_size=16)
        upstream.fit(chain.dataset(), callbacks=[chain], verbose=0)
        stored = lfm.extract(upstream, log, chain)
        train = log.rows("train")
        early = train[log.cache.period[train] < 4]
        joined = stored.lookup(log.cache, list(stored.dims))(early)
        seen.append({"dense": log.cache.take(early)["dense"], **joined})
    first, second = seen
    assert first["dense"].shape[0] > 200
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


def test_extraction_leaves_the_upstream_as_it_was(
    log: lfm.EncodedLog, fitted: Fitted, stored: lfm.RepresentationStore
) -> None:
    data = log.dataset("test", batch_size=64)
    before = fitted.upstream.predict(data, verbose=0)
    fitted.chain.loader(fitted.upstream)(None)
    np.testing.assert_array_equal(fitted.upstream.predict(data, verbose=0), before)


def test_rows_of_a_period_see_no_later_representation(
    log: lfm.EncodedLog, stored: lfm.RepresentationStore
) -> None:
    rows = log.rows("train")
    first = rows[log.cache.period[rows] == log.cache.period[rows].min()]
    join = stored.lookup(log.cache, ["UR"])
    seen = join(first)["UR"][:, -1] > 0
    earlier = set(log.cache.user[log.cache.auxiliary_rows].tolist())
    np.testing.assert_array_equal(seen, [u in earlier for u in log.cache.user[first].tolist()])


def test_without_a_chain_representations_must_be_said_to_know_all(
    log: lfm.EncodedLog, fitted: Fitted
) -> None:
    with pytest.raises(UserError, match="chain = PeriodChain"):
        lfm.extract(fitted.upstream, log)
    single = RepresentationsConfig(snapshots="single", layers=["cross_1"])
    known = lfm.extract(fitted.upstream, log, config=single)
    assert list(known.dims) == ["CR_user@cross_1", "UR", "CR_item@cross_1", "IR"]


def test_a_warm_start_to_the_output_gives_the_upstreams_scores(
    log: lfm.EncodedLog, fitted: Fitted
) -> None:
    ranker = lfm.build_downstream("module/warm_start/output", fitted.upstream, log, "t0")
    data = log.dataset("test", scenario="t0", batch_size=64)
    ours, theirs = (m.predict(data, verbose=0) for m in (ranker, fitted.upstream))
    assert len(ours) > 20
    # shared and own head summed before the product instead of after it: a few roundings
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["feature/gate/UR+CR_user@cross_1", "full", "module/isomorphic"])
def test_a_transfer_is_trained_saved_and_loaded(
    log: lfm.EncodedLog,
    fitted: Fitted,
    stored: lfm.RepresentationStore,
    method: str,
    tmp_path: Path,
) -> None:
    from tf_keras.models import load_model

    theirs = fitted.upstream.configuration()
    config = DownstreamConfig(
        network=theirs.network, embeddings=theirs.embeddings, warm_start_rates={"tables": 0.5}
    )
    ranker = lfm.build_downstream(
        method, fitted.upstream, log, "t1", representations=stored, config=config
    )
    assert ("copied_tables" in ranker.group_rates) == (method != "feature/gate/UR+CR_user@cross_1")
    if ranker.group_rates:
        with pytest.raises(UserError, match="lacks the learning rates"):
            ranker.compile(lfm.HybridOptimizer())
    ranker.compile(lfm.HybridOptimizer(group_rates=ranker.group_rates))
    rows = {"scenario": "t1", "representations": stored, "sources": ranker.sources}
    ranker.fit(log.dataset("train", **rows), verbose=0)  # type: ignore[arg-type]
    ranker.save(tmp_path / "ranker.keras")
    loaded = load_model(tmp_path / "ranker.keras")
    assert loaded.origin == ranker.origin and loaded.origin["scenario"] == "t1"
    data = log.dataset("test", **rows)  # type: ignore[arg-type]
    one, other = ranker.predict(data, verbose=0), loaded.predict(data, verbose=0)
    np.testing.assert_array_equal(one, other)


def test_what_does_not_fit_is_told(
    log: lfm.EncodedLog, fitted: Fitted, stored: lfm.RepresentationStore
) -> None:
    upstream = fitted.upstream
    with pytest.raises(UserError, match="no scenario 't9'"):
        lfm.build_downstream("none", upstream, log, "t9")
    with pytest.raises(UserError, match="reads stored representations"):
        lfm.build_downstream("feature/linear/UR", upstream, log, "t0")
    with pytest.raises(UserError, match="unknown"):
        lfm.build_downstream("feature/linear/URR", upstream, log, "t0", representations=stored)
    with pytest.raises(UserError, match="no scenario 't9'"):
        log.dataset("train", scenario="t9")
    with pytest.raises(UserError, match="no split 'tests'.*test"):
        log.dataset("tests")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="not stored"):
        log.dataset("train", representations=stored, sources=["CR_user@cross_9"])


@pytest.mark.slow
def test_an_export_scores_raw_rows_as_the_model_does(
    log: lfm.EncodedLog, fitted: Fitted, stored: lfm.RepresentationStore, tmp_path: Path
) -> None:
    method = "feature/linear/UR & module/warm_start/towers"
    ranker = lfm.build_downstream(method, fitted.upstream, log, "t0", representations=stored)
    with pytest.raises(UserError, match="built for scenario 't0'"):
        lfm.export_model(ranker, log, tmp_path, scenario="t1", representations=stored)
    plain = lfm.DownstreamModel(log.layout, lfm.NetworkConfig(), lfm.EmbeddingsConfig(dim=4))
    with pytest.raises(UserError, match="for its scenario"):
        lfm.export_model(plain, log, tmp_path)
    again = lfm.extract(fitted.upstream, log, fitted.chain)
    with pytest.raises(UserError, match="another version of the representations"):
        lfm.export_model(ranker, log, tmp_path, representations=again)
    with pytest.raises(UserError, match="representations=<what it was trained with>"):
        lfm.export_model(ranker, log, tmp_path, scenario="t0")
    with pytest.raises(UserError, match="cannot be exported as 'user_tower'"):
        lfm.export_model(ranker, log, tmp_path, scenario="t0", name="user_tower")
    version = lfm.export_model(ranker, log, tmp_path, representations=stored)
    served = lfm.load_export(version, log)
    samples = log.samples(40, "t0")
    answers = served.predict(samples)
    with pytest.MonkeyPatch.context() as patch:  # a signature's outputs come in any order
        run = InProcessModel.run
        patch.setattr(InProcessModel, "run", lambda *a: dict(reversed(run(*a).items())))
        assert list(served.predict(samples)) == list(answers) == list(log.layout.tasks)
    kept = cache_rows(read_samples(log.folder))
    rows = kept[np.isin(kept, log.rows("test", "t0"))][:40]
    data = log.dataset("test", scenario="t0", representations=stored, sources=ranker.sources)
    scores = dict(zip(log.rows("test", "t0"), ranker.predict(data, verbose=0), strict=True))
    for k, task in enumerate(log.layout.tasks):
        expected = [scores[row][k] for row in rows]
        np.testing.assert_allclose(answers[task], expected, rtol=1e-4, atol=1e-5)
    for key in ("item_id", "user_id"):
        with pytest.raises(UserError, match=f"lack the column '{key}'"):
            served.predict(samples.drop_columns([key]))
    with pytest.raises(UserError, match="no export"):
        lfm.load_export(tmp_path, log)
