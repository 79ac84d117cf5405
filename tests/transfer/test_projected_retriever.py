from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.optim.model_optimizers import ModelOptimizers
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.optim.step import training_step
from lfm4ads_tf.training.config import OptimizerConfig, TrainingConfig
from lfm4ads_tf.transfer.retrieval.projected_retriever import ProjectedRetriever
from lfm4ads_tf.transfer.retrieval.retriever import Retriever
from lfm4ads_tf.transfer.retrieval.two_vector_model import TwoVectorModel
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

COUNTS = np.array([5, 0, 1, 7, 2, 5])


def with_representations(batch: dict[str, Any], rows: int, seed: int = 3) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    stored = {}
    for name, width in (("UR", 4), ("IR", 3)):
        values = rng.normal(size=(rows, width + 1)).astype(np.float32)
        values[:, -1] = 1.0
        stored[name] = tf.constant(values)
    return {**batch, "representations": stored}


def test_softmax_loss_of_the_projection_against_numpy(
    make_batch: Callable[..., dict[str, Any]],
) -> None:
    model = ProjectedRetriever("UR", 3, item_counts=COUNTS, seed=1)
    batch = with_representations(make_batch(), 12)
    user, item = (v.numpy().astype(float) for v in model(batch))
    kernel, bias = (v.numpy().astype(float) for v in model.projection.weights)
    source = batch["representations"]["UR"].numpy()[:, :-1].astype(float)
    assert_close(
        user,
        source @ kernel + bias,
        terms=5,
        magnitude=np.abs(source) @ np.abs(kernel) + np.abs(bias),
    )
    assert np.array_equal(item, batch["representations"]["IR"].numpy()[:, :-1])
    codes, q = batch["item"].numpy(), np.maximum(COUNTS, 1) / COUNTS.sum()
    losses = []
    sizes = np.abs(user) @ np.abs(item).T - np.log(q.min())
    for b in range(12):
        logits = [
            user[b] @ item[c] - np.log(q[codes[c]])
            for c in range(12)
            if c == b or codes[c] != codes[b]
        ]
        own = user[b] @ item[b] - np.log(q[codes[b]])
        losses.append(np.log(np.sum(np.exp(logits))) - own)
    assert_close(_loss(model, batch), np.mean(losses), terms=12 + 3, magnitude=sizes.max())


@pytest.mark.parametrize("projected", [True, False])
def test_bce_loss_reads_one_task_and_skips_unknown_labels(
    projected: bool,
    layout: FeatureLayout,
    embeddings: EmbeddingsConfig,
    make_batch: Callable[..., dict[str, Any]],
) -> None:
    batch = with_representations(make_batch(), 12)
    labels = batch["labels"].numpy()
    labels[:4, 1] = np.nan
    batch["labels"] = tf.constant(labels)
    if projected:
        model: Any = ProjectedRetriever("UR", 3, item_counts=COUNTS, loss="bce", task=1)
    else:
        model = Retriever(layout, [6], 3, embeddings, item_counts=COUNTS, loss="bce", task=1)
    user, item = (v.numpy().astype(float) for v in model(batch))
    p = 1 / (1 + np.exp(-(user * item).sum(axis=1)))
    y = labels[4:, 1]
    expected = -(y * np.log(p[4:]) + (1 - y) * np.log(1 - p[4:])).sum() / 12
    largest = (np.abs(user) * np.abs(item)).sum(axis=1).max() + np.log(2)
    assert_close(_loss(model, batch), expected, terms=12 + 3, magnitude=largest)


def test_only_w_and_b_are_trained(make_batch: Callable[..., dict[str, Any]]) -> None:
    model = ProjectedRetriever("UR", 3, item_counts=COUNTS, seed=1)
    batch = with_representations(make_batch(), 12)
    model(batch)
    assert [v.shape for v in model.trainable_variables] == [(4, 3), (3,)]
    before = {n: v.numpy() for n, v in batch["representations"].items()}
    spec = tf.nest.map_structure(tf.type_spec_from_value, batch)
    training = TrainingConfig(optimizer=OptimizerConfig(dense_learning_rate=0.05))
    objective = Objective.of(model.loss_terms, training.optimizer)
    step = training_step(objective, ModelOptimizers(objective, model, []), spec)
    losses = [float(step(batch).total) for _ in range(40)]
    assert losses[-1] < losses[0] - 0.1
    for name, values in before.items():
        assert np.array_equal(batch["representations"][name], values)


def _loss(model: TwoVectorModel, batch: dict[str, Any]) -> tf.Tensor:
    return model.loss_terms(batch)["retrieval"]
