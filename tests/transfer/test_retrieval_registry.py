"""A user's retrieval method, registered under a name, from the configuration to a trained model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.retrieval.config import RetrievalConfig
from lfm4ads_tf.strict import parse
from lfm4ads_tf.training.config import TrainingConfig
from lfm4ads_tf.transfer.retrieval.method import RetrievalMethod, parse_retrieval_method
from lfm4ads_tf.transfer.retrieval.registry import RETRIEVAL_METHODS
from lfm4ads_tf.transfer.retrieval.retrieval_loss import RetrievalLoss
from lfm4ads_tf.transfer.retrieval.two_vector_model import TwoVectorModel
from tests.rounding import assert_close

STORED = ["UR", "IR", "CR_user@towers"]
DIMS = {"UR": 3, "IR": 2}
_PREFIX = "model/content*"


class ContentRetriever(TwoVectorModel):
    """s(u, i) = <W r(u), V x(i)>, x being the item's own numbers: nothing is stored of items."""

    def __init__(self, source: str, dim: int, *, item_counts: np.ndarray, task: int) -> None:
        super().__init__(dim, name="content_retriever")
        self.source = source
        self.projection = tf_keras.layers.Dense(dim, use_bias=False, name="projection")
        self.content = tf_keras.layers.Dense(dim, use_bias=False, name="content")
        self._loss = RetrievalLoss("bce", item_counts, task)

    def call(self, batch: EncodedBatch, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        return self.users(batch), self.items(batch)

    def users(self, batch: EncodedBatch, training: bool = False) -> tf.Tensor:
        return self.projection(batch["representations"][self.source][:, :-1])

    def items(self, batch: EncodedBatch, training: bool = False) -> tf.Tensor:
        return self.content(batch["dense"][:, 1:3])

    def loss_terms(self, batch: EncodedBatch, training: bool = True) -> dict[str, tf.Tensor]:
        return {"retrieval": self._loss(*self(batch, training=training), batch)}


@dataclass(frozen=True)
class Content(RetrievalMethod):
    source: str

    @classmethod
    def names(cls, stored: Collection[str]) -> list[str]:
        return [_PREFIX + name for name in stored if name != "IR"]

    @classmethod
    def parse(cls, name: str, stored: Collection[str]) -> Self | None:
        return cls(name, name.removeprefix(_PREFIX)) if name in cls.names(stored) else None

    @property
    def user_sources(self) -> list[str]:
        return [self.source]

    def training(self, config: RetrievalConfig) -> TrainingConfig:
        return config.projection

    def build(
        self,
        layout: FeatureLayout,
        config: RetrievalConfig,
        dims: Mapping[str, int],
        *,
        item_counts: np.ndarray,
        task: int,
        seed: int,
    ) -> ContentRetriever:
        return ContentRetriever(self.source, config.dim, item_counts=item_counts, task=task)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    with RETRIEVAL_METHODS.added(_PREFIX, Content):
        yield


def test_it_is_parsed_built_and_trained(
    layout: FeatureLayout, make_batch: Callable[..., dict[str, Any]]
) -> None:
    raw = {"methods": ["model/content*UR"], "dim": 4, "projection": {"epochs": 3}}
    config = parse(RunConfig, {"retrieval": raw}, source="run")
    (name,) = config.retrieval.methods
    method = parse_retrieval_method(name, STORED)
    assert method == Content(name, "UR") and method.sources == ["UR"]
    assert method.training(config.retrieval).epochs == 3
    model = build.retriever(layout, config, method, DIMS, np.ones(15, np.int64), task=1, seed=1)
    assert model.all_embeddings == []

    rng = np.random.default_rng(0)
    batch = make_batch(12)
    stored = rng.normal(size=(12, 4)).astype(np.float32)
    labels = rng.integers(0, 2, (12, 2)).astype(np.float32)
    batch |= {"representations": {"UR": tf.constant(stored)}, "labels": tf.constant(labels)}
    w, v = (of.kernel.numpy().astype(np.float64) for of in (model.projection, model.content))
    x, r, y = batch["dense"].numpy()[:, 1:3].astype(np.float64), stored[:, :-1], labels[:, 1]
    user, item = r @ w, x @ v
    assert_close(model.users(batch), user, terms=4, magnitude=np.abs(r) @ np.abs(w))
    assert_close(model.items(batch), item, terms=3, magnitude=np.abs(x) @ np.abs(v))

    # dL/ds = (sigmoid(s) - y) / B; W gets r^T (dL/ds item), V gets x^T (dL/ds user)
    error = (1 / (1 + np.exp(-(user * item).sum(axis=1))) - y)[:, None] / 12  # (B, 1)
    expected = [r.T @ (error * item), x.T @ (error * user)]
    optimizer = HybridOptimizer(0.1, 0.01)
    optimizer.build([], model.trainable_variables)
    with tf.GradientTape() as tape:
        loss = model.loss_terms(batch)["retrieval"]
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    assert len(model.trainable_variables) == 2
    for kernel, old, g in zip((model.projection, model.content), (w, v), expected, strict=True):
        step = 0.01 * np.sqrt(1e-3) * g / (np.sqrt(1e-3) * np.abs(g) + 1e-7)
        np.testing.assert_allclose(kernel.kernel.numpy(), old - step, rtol=1e-5, atol=1e-5)


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'model/contents\*UR' is unknown. Did you mean") as error:
        parse_retrieval_method("model/contents*UR", STORED)
    assert "use one of model/own, model/IR*UR, model/IR*CR_user@towers, model/content*UR" in str(
        error.value
    )
