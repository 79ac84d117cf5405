"""The benchmark of models over sets of embeddings, on a tiny network."""

from __future__ import annotations

import json

from benchmarks import set_models
from benchmarks.set_models import PRODUCTS, SEPARATE, STEM_STEP, Plan, run
from tests.rounding import EPSILON

TINY = Plan(
    features=4,
    rows=30,
    dim=3,
    units=(5, 4),
    tower=(3,),
    batch=16,
    log=64,
    rounds=2,
    warmup=0,
    steps=1,
)


def test_both_networks_are_the_same_function() -> None:
    found = run(TINY)
    assert set(found["seconds"]) == {STEM_STEP, SEPARATE, PRODUCTS}
    assert all(seconds > 0 for seconds in found["seconds"].values())
    assert found["separate_over_stem"] > 0 and found["stem_over_products"] > 0
    # sums of 12, 5, 4, 4 and 3 terms behind each other, of logits that nearly cancel
    assert 0 <= found["logits_apart"] < 4 * 28 * EPSILON
    assert json.loads(json.dumps(found))["plan"]["dim"] == 3


def test_the_weights_of_a_set_decide(monkeypatch) -> None:
    """Tables that were not copied are noticed."""
    monkeypatch.setattr(set_models.ShardedEmbedding, "write_table", lambda *_: None)
    assert run(TINY)["logits_apart"] > 1e-3
