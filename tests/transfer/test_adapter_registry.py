"""A user's adapter, registered under a name, from the configuration to a trained model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from pydantic import Field

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.named_method import read_method
from lfm4ads_tf.pipeline.sweep_candidate import sweep_candidates
from lfm4ads_tf.pipeline.sweep_options import SweepOptions
from lfm4ads_tf.strict import StrictModel, parse
from lfm4ads_tf.transfer.adapters.adapter import Adapted, Adapter
from lfm4ads_tf.transfer.adapters.registry import ADAPTERS
from lfm4ads_tf.transfer.config import AdapterConfig
from tests.rounding import assert_close

DIMS = {"UR": 3, "IR": 2}
NAME = "feature/low_rank/UR+IR"


class RankOptions(StrictModel):
    rank: int = Field(default=1, ge=1)
    scale: float = 1.0


class LowRankAdapter(Adapter):
    """x_0 = [E; scale (r P) Q] for each source r, P having `rank` columns."""

    Config: ClassVar[type[StrictModel]] = RankOptions
    widens: ClassVar[bool] = True

    def __init__(self, sources: Sequence[str], *, rank: int, scale: float, dim: int) -> None:
        super().__init__(sources, name="low_rank")
        self.scale = scale
        self.downs = [tf_keras.layers.Dense(rank, use_bias=False, name=f"p_{s}") for s in sources]
        self.ups = [tf_keras.layers.Dense(dim, use_bias=False, name=f"q_{s}") for s in sources]

    @classmethod
    def create(cls, sources: Sequence[str], config: AdapterConfig, options: Any, seed: int) -> Self:
        return cls(sources, rank=options.rank, scale=options.scale, dim=config.linear_dim)

    def call(
        self, representations: Mapping[str, tf.Tensor], width: int, training: bool = False
    ) -> Adapted:
        layers = zip(self.sources, self.downs, self.ups, strict=True)
        return Adapted(extra=[self.scale * q(p(representations[s])) for s, p, q in layers])


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    with ADAPTERS.added("low_rank", LowRankAdapter):
        yield


def run_of(**downstream: Any) -> Any:
    config = parse(RunConfig, {"downstream": downstream}, source="run")
    return SimpleNamespace(
        config=config, spec=SimpleNamespace(features={}, task_names=["click", "buy"])
    )


def test_it_is_parsed_built_and_trained(
    layout: FeatureLayout, make_batch: Callable[..., dict[str, Any]]
) -> None:
    options = {"low_rank": {"rank": 2, "scale": 3.0}}
    run = run_of(adapter_options=options, linear_dim=5)
    method = read_method(run, NAME)
    assert method.sources == ["UR", "IR"] and method.widens
    model = build.downstream(layout, run.config, method, DIMS, seed=1)
    rng = np.random.default_rng(0)
    batch = make_batch()
    rows = batch["ids"].shape[0]
    stored = {n: rng.normal(size=(rows, d + 1)).astype(np.float32) for n, d in DIMS.items()}
    batch["representations"] = {n: tf.constant(v) for n, v in stored.items()}
    labels = tf.constant(rng.integers(0, 2, (rows, 2)), tf.float32)

    tables = {id(part) for layer in model.all_embeddings for part in layer.all_parts()}
    optimizer = HybridOptimizer(0.1, 0.01)
    optimizer.build(
        model.all_embeddings, [v for v in model.trainable_variables if id(v) not in tables]
    )
    (adapter,) = model.adapters
    before = [v.numpy() for v in adapter.trainable_variables]
    with tf.GradientTape() as tape:
        logits = model(batch, training=True)
        loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits))
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    of = {id(v): g for v, g in zip(model.trainable_variables, gradients, strict=True)}
    assert len(before) == 4
    for variable, old in zip(adapter.trainable_variables, before, strict=True):
        g = of[id(variable)].numpy().astype(np.float64)
        assert np.abs(g).max() > 0
        # Adam's first step: both moments are the gradient's own
        step = 0.01 * np.sqrt(1e-3) * g / (np.sqrt(1e-3) * np.abs(g) + 1e-7)
        np.testing.assert_allclose(variable.numpy(), old - step, rtol=1e-5, atol=1e-6)

    adapted = adapter(batch["representations"], width=1)
    for k, value in enumerate(stored.values()):
        p, q = adapter.downs[k].kernel.numpy(), adapter.ups[k].kernel.numpy()
        assert p.shape == (value.shape[1], 2) and q.shape == (2, 5)
        magnitude = 3 * np.abs(value) @ np.abs(p) @ np.abs(q)
        assert_close(adapted.extra[k], 3 * value @ p @ q, terms=9, magnitude=magnitude)


def test_a_sweep_compares_it() -> None:
    found = sweep_candidates(run_of(), SweepOptions("feature", "towers", "gate,low_rank"))
    assert "feature/low_rank/CR_user@towers" in [c.method.name for c in found]


def test_frozen_layers_cannot_read_what_it_joins() -> None:
    with pytest.raises(UserError, match="Frozen layers cannot learn"):
        read_method(run_of(), f"module/warm_start/cross_1+frozen & {NAME}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low_rnk": {}}, "unknown adapter 'low_rnk'. Did you mean 'low_rank'?"),
        ({"low_rank": {"rnk": 2}}, "rnk: unknown key. Did you mean 'rank'?"),
        ({"low_rank": {"rank": 0}}, "adapter_options.low_rank is not valid:\n  rank: "),
        ({"mlp": {"units": [3]}}, "The adapter 'mlp' has no options of its own."),
    ],
)
def test_options_that_nobody_reads_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        run_of(adapter_options=options)
    assert message in str(error.value)


def test_without_its_plug_in_a_name_is_unknown() -> None:
    with pytest.raises(UserError, match="The adapter 'low_rnk' is unknown. Did you mean 'low_rank"):
        read_method(run_of(), "feature/low_rnk/UR")
