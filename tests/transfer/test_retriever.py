from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.transfer.retrieval.retriever import Retriever
from lfm4ads_tf.transfer.retrieval.two_vector_model import TwoVectorModel
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

COUNTS = np.array([5, 0, 1, 7, 2, 5])


def test_loss_is_the_corrected_softmax_without_accidental_hits(
    layout: FeatureLayout, embeddings: EmbeddingsConfig, make_batch: Callable[..., dict[str, Any]]
) -> None:
    model = Retriever(layout, [6], 3, embeddings, item_counts=COUNTS, seed=1)
    batch = make_batch()
    user, item = (v.numpy().astype(float) for v in model(batch))
    assert user.shape == item.shape == (12, 3)
    codes = batch["item"].numpy()
    assert len(set(codes)) < len(codes)  # so that there are accidental hits
    q = np.maximum(COUNTS, 1) / COUNTS.sum()
    losses = []
    for b in range(12):
        logits = {
            c: user[b] @ item[c] - np.log(q[codes[c]])
            for c in range(12)
            if c == b or codes[c] != codes[b]
        }
        losses.append(np.log(sum(np.exp(v) for v in logits.values())) - logits[b])
    sizes = np.abs(user) @ np.abs(item).T - np.log(q.min())
    assert_close(_loss(model, batch), np.mean(losses), terms=12 + 3, magnitude=sizes.max())


@pytest.mark.parametrize("loss", ["softmax", "bce"])
@pytest.mark.parametrize("each", [False, True])
def test_a_row_counts_by_its_weight(
    loss: Any,
    each: bool,
    layout: FeatureLayout,
    embeddings: EmbeddingsConfig,
    make_batch: Callable[..., dict[str, Any]],
) -> None:
    """The loss is linear in the weights: that of weights e_b is the term of row b."""
    task = 1
    model = Retriever(layout, [6], 3, embeddings, item_counts=COUNTS, loss=loss, task=task, seed=1)
    batch = make_batch()
    model(batch)
    weights = np.random.default_rng(3).uniform(0, 3, (12, 2)).astype(np.float32)
    given = weights if each else weights[:, 0]
    counted = weights[:, task] if each else weights[:, 0]
    terms = [
        float(_loss(model, {**batch, "weights": tf.constant(row)}))
        for row in np.eye(12, dtype=np.float32)
    ]
    plain = float(_loss(model, batch))
    size = np.abs(terms).sum()
    assert_close(plain, sum(terms), terms=12 + 3, magnitude=size)
    found = _loss(model, {**batch, "weights": tf.constant(given)})
    assert_close(found, counted.astype(np.float64) @ terms, terms=12 + 3, magnitude=3 * size)
    ones = _loss(model, {**batch, "weights": tf.ones([12, 2] if each else [12])})
    assert float(ones) == plain


def test_towers_see_their_own_side(
    layout: FeatureLayout, embeddings: EmbeddingsConfig, make_batch: Callable[..., dict[str, Any]]
) -> None:
    model = Retriever(layout, [], 3, embeddings, item_counts=COUNTS, seed=1)
    batch = make_batch()
    names = [f.name for f in layout.single]
    ids = batch["ids"].numpy()
    ids[:, names.index("item")] = 3
    before, after = model(batch), model({**batch, "ids": ids})
    assert np.array_equal(before[0], after[0])
    assert not np.array_equal(before[1], after[1])


def _loss(model: TwoVectorModel, batch: dict[str, Any]) -> tf.Tensor:
    return model.loss_terms(batch)["retrieval"]
