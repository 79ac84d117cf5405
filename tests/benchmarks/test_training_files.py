"""The training by hand that the older tables of docs/results.md were made with."""

from __future__ import annotations

from pathlib import Path

import pytest

from lfm4ads_tf.config import resolve

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("name", "upstream", "downstream"),
    [
        ("kuairand", (1024, 0.1, 1), (256, 0.1, 8, 2)),
        ("movielens", (2048, 0.05, 1), (2048, 0.05, 4, 1)),
        ("synthetic", (1024, 0.1, 1), (1024, 0.1, 6, 1)),
    ],
)
def test_it_is_what_the_specs_said(
    name: str, upstream: tuple[float, ...], downstream: tuple[float, ...]
) -> None:
    config = resolve(
        ROOT / "feature_specs" / f"{name}.yaml",
        config_path=ROOT / "benchmarks" / "training" / f"{name}.yaml",
    ).config
    one, two = config.upstream.training, config.downstream.training
    assert not one.auto and not two.auto and one.schedule == "chain"
    assert (one.replay, one.final_passes) == (9 if name == "synthetic" else 0, 0)
    rates = one.optimizer.table_learning_rate, two.optimizer.table_learning_rate
    assert (one.batch_size, rates[0], one.passes) == upstream
    assert (two.batch_size, rates[1], two.epochs, two.patience) == downstream
    rate = 5e-4 if name == "synthetic" else 1e-3
    assert one.optimizer.dense_learning_rate == two.optimizer.dense_learning_rate == rate
