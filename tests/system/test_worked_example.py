"""The worked example of docs/data.md, as a reader would try it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
import pytest

from lfm4ads_tf.features import kinds, spec
from lfm4ads_tf.strict import StrictModel

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "data.md"


def test_the_spec_has_under_thirty_lines(shop_yaml: str) -> None:
    assert len(shop_yaml.strip().splitlines()) < 30


@pytest.mark.slow
def test_the_example_as_written_trains_and_transfers(
    cli: Callable[..., Any], shop: Any, shop_yaml: str, tmp_path: Path
) -> None:
    """No option but those that the document names."""
    spec = tmp_path / "shop.yaml"
    spec.write_text(shop_yaml, "utf-8")
    options = ["--spec", spec, "--data-dir", shop.folder, "--out", tmp_path / "out"]
    for stage in ("prepare", "pretrain", "extract", "transfer", "evaluate"):
        done = cli(stage, *options, "--scenarios", "home")  # one of the two, for time
        assert done.code == 0, done.text
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["rows"] == {"train": 1996, "valid": 409, "test": 395}
    downstream = [e for e in found["results"] if e["stage"] == "downstream"]
    assert {e["scenario"] for e in downstream} == {"home"}
    assert {e["method"] for e in downstream} == {"upstream", "none", "feature/linear/UR", "full"}
    gate = "feature/gate/UR+IR+CR_user@cross_3+CR_item@cross_3"
    assert found["full"] == f"{gate} & module/warm_start/output"
    clicks = [e for e in downstream if e["task"] == "click" and e["slice"] == "all"]
    aucs = [e["metrics"]["auc"] for e in clicks if e["method"] != "upstream"]
    assert all(math.isfinite(a) for a in aucs) and np.mean(aucs) > 0.55


def _models(annotation: Any) -> list[type[StrictModel]]:
    """The strict models that an annotation mentions."""
    if get_origin(annotation) is None:
        found = isinstance(annotation, type) and issubclass(annotation, StrictModel)
        return [annotation] if found else []
    return [m for part in get_args(annotation) for m in _models(part)]


def _keys() -> set[str]:
    """Every key that a feature spec may hold."""
    seen: set[type[StrictModel]] = set()
    waiting: list[type[StrictModel]] = [spec.FeatureSpec, *get_args(kinds.FeatureConfig)]
    while waiting:
        model = waiting.pop()
        if model in seen:
            continue
        seen.add(model)
        for field in model.model_fields.values():
            waiting += _models(field.annotation)
    assert len(seen) >= 17
    return {key for model in seen for key in model.model_fields}


def test_the_document_names_every_key_and_kind() -> None:
    text = DOCUMENT.read_text("utf-8")
    missing = [key for key in sorted(_keys()) if f"`{key}`" not in text]
    assert not missing
    for kind in get_args(kinds.FeatureConfig):
        (name,) = get_args(kind.model_fields["kind"].annotation)
        assert f"### `{name}`" in text, name
