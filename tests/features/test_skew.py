"""The key `skew` of the feature spec: strict, and no part of what identifies a run."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from lfm4ads_tf.config import Resolved, RunConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.skew import SkewConfig, SkewLimits
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.spec_file import parse_spec
from lfm4ads_tf.pipeline.prepare import source_fingerprint
from lfm4ads_tf.pipeline.run import Run

RAW: dict[str, Any] = {
    "name": "tiny",
    "log": {"files": ["log.csv"]},
    "keys": {"user": "u", "item": "i", "time": "t"},
    "tasks": {"click": "c"},
    "split": {"by": "t", "train_until": 6, "valid_until": 8},
    "features": {
        "u": {"owner": "user", "kind": "vocabulary"},
        "i": {"owner": "item", "kind": "vocabulary"},
        "price": {"owner": "context", "kind": "numeric"},
        "rate": {"owner": "item", "kind": "statistic", "task": "click", "keys": ["item"]},
        "seen": {"owner": "user", "kind": "sequence", "events_of": "click", "table": "i"},
        "words": {"owner": "context", "kind": "sequence"},
    },
}


def _spec(**skew: Any) -> FeatureSpec:
    raw = copy.deepcopy(RAW)
    if skew:
        raw["skew"] = skew
    return parse_spec(raw)


def test_a_feature_has_its_own_limits_and_else_the_general_ones() -> None:
    spec = _spec(linf=0.2, features={"price": {"missing": 0.5}})
    price = spec.skew.limits("price", spec.features["price"])
    assert price == SkewLimits(linf=0.2, missing=0.5, oov=0.05)
    assert spec.skew.limits("u", spec.features["u"]) == SkewLimits(linf=0.2, missing=0.05, oov=0.05)
    assert _spec().skew == SkewConfig(linf=0.1, missing=0.05, oov=0.05, features={})


def test_features_that_move_by_themselves_are_held_to_limits_when_named() -> None:
    spec = _spec(features={"seen": {"linf": 0.3}})
    assert spec.skew.limits("rate", spec.features["rate"]) is None
    assert spec.skew.limits("words", spec.features["words"]) is not None  # a plain list
    held = spec.skew.limits("seen", spec.features["seen"])
    assert held == SkewLimits(linf=0.3, missing=0.05, oov=0.05)


@pytest.mark.parametrize(
    ("skew", "message"),
    [
        ({"linff": 0.1}, "skew.linff: unknown key. Did you mean 'linf'?"),
        ({"linf": 1.5}, "skew.linf"),
        ({"oov": -0.1}, "skew.oov"),
        ({"missing": "much"}, "skew.missing"),
        ({"features": {"price": {"lin": 0.1}}}, "skew.features.price.lin: unknown key"),
        ({"features": {"prize": {"linf": 0.1}}}, "'prize'. Did you mean 'price'?"),
    ],
)
def test_what_the_spec_refuses(skew: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        _spec(**skew)
    assert message in str(refused.value)


def test_limits_make_no_other_run_and_no_other_data(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("u,i,t,c\n")
    plain, limited = _spec(), _spec(linf=0.9, features={"price": {"oov": 0.2}})
    assert source_fingerprint(plain, tmp_path) == source_fingerprint(limited, tmp_path)
    out = tmp_path / "out"
    first = Run(out, Resolved(spec=plain, config=RunConfig()))
    first.begin()
    (out / "data").mkdir()  # the folder belongs to this configuration from now on
    Run(out, Resolved(spec=limited, config=RunConfig()))  # not refused
    other = parse_spec({**copy.deepcopy(RAW), "thresholds": {"cold_item": 9}})
    with pytest.raises(UserError, match="another configuration"):
        Run(out, Resolved(spec=other, config=RunConfig()))


def test_a_run_from_before_the_key_goes_on(tmp_path: Path) -> None:
    import yaml

    resolved = Resolved(spec=_spec(), config=RunConfig())
    document = yaml.safe_load(resolved.to_yaml())
    del document["spec"]["skew"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "data").mkdir()
    Run(tmp_path, resolved)  # not refused
