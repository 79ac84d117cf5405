from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.data.input import batches
from lfm4ads_tf.diagnostics.token_diagnosis import token_entries
from lfm4ads_tf.pipeline import build, token_sample
from lfm4ads_tf.pipeline.scoring import observed_means
from lfm4ads_tf.pipeline.token_sample import TokenSample
from lfm4ads_tf.strict import parse


@pytest.fixture(scope="module")
def ads(make_ads: Any, ads_features: Any) -> Any:
    return make_ads(features=ads_features("user_id", "segment", "item_id"))


def model_of(ads: Any, layer: dict[str, Any]) -> Any:
    network = {"user_tower": [], "item_tower": [], "block": {"layers": [layer]}}
    upstream = {"network": network, "embeddings": {"dim": 4}}
    return build.upstream(ads.cache.layout, parse(RunConfig, {"upstream": upstream}, source="r"), 0)


def test_the_sample_is_drawn_of_validation_rows_alone(
    ads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, valid = model_of(ads, {"type": "cross", "depth": 1}), ads.cache.rows_of("valid")
    assert np.array_equal(TokenSample(model, ads.cache, 0).rows, valid)  # few are all taken
    monkeypatch.setattr(token_sample, "ROWS", 20)
    rows = TokenSample(model, ads.cache, 0).rows
    assert len(rows) == 20 and np.isin(rows, valid).all() and (np.diff(rows) > 0).all()
    assert np.array_equal(rows, TokenSample(model, ads.cache, 0).rows)
    assert not np.array_equal(rows, TokenSample(model, ads.cache, 1).rows)


def test_tokens_of_the_sample_are_told_at_the_weights_of_now(
    ads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_sample, "ROWS", 20)
    layer = {"type": "mixer", "tokens": 3, "depth": 1, "readout": "task"}
    model = model_of(ads, layer)
    sample = TokenSample(model, ads.cache, 0)
    entries = sample.entries()
    (batch,) = batches(ads.cache, sample.rows, 20)
    labels = ads.cache.labels[sample.rows]
    of_tasks = dict(zip(ads.cache.layout.tasks, labels.T, strict=True))
    expected = token_entries(model.observed(batch), of_tasks, seed=0)
    assert [e["layer"] for e in entries] == ["mixer"] and entries[0]["rows"] == 20
    assert [t["task"] for t in entries[0]["tasks"]] == list(ads.cache.layout.tasks)
    for found, place in zip(entries[0]["places"], expected[0]["places"], strict=True):
        # the graph and the single operations may round apart, which k-means may tell
        assert found["erank"] == pytest.approx(place["erank"], rel=1e-4)
        assert found["correlation"] == pytest.approx(place["correlation"], rel=1e-3)
    assert sample.entries() == entries
    before = sample.numbers()["mixer/network_1/erank"]
    for variable in model.backbone.block.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    assert sample.numbers()["mixer/network_1/erank"] != before
    assert observed_means(model, ads.cache, sample.rows) == {}  # tokens are no numbers of a row


def test_numbers_of_rows_are_told_as_their_means(ads: Any) -> None:
    layer = {"type": "mixer", "tokens": 3, "head_dim": 2, "depth": 1, "experts": 2}
    model = model_of(ads, layer)
    sample = TokenSample(model, ads.cache, 0)
    numbers, means = sample.numbers(), observed_means(model, ads.cache, sample.rows)
    assert set(means) == {f"mixer/routes/{name}_1" for name in ("active", "passed", "silent")}
    assert {name: numbers[name] for name in means} == pytest.approx(means, rel=1e-6)


def test_a_model_without_tokens_is_asked_once(ads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(ads, {"type": "cross", "depth": 1})
    sample, calls = TokenSample(model, ads.cache, 0), []
    monkeypatch.setattr(sample, "_observed", lambda: calls.append(1) or {})
    assert sample.entries() == [] and sample.numbers() == {} and calls == [1]
    assert TokenSample(model, ads.cache, 0).numbers() == {}
