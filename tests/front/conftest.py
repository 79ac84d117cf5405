"""A small log in files, encoded through the front door, and an upstream fitted along its chain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import lfm4ads_tf as lfm
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.spec_file import parse_spec
from tests.conftest import ADS_SPEC, ads_tables, write_tables

NETWORK: dict[str, Any] = {
    "user_tower": [4],
    "item_tower": [4],
    "block": {"layers": [{"type": "cross", "depth": 1}, {"type": "dnn", "units": [4]}]},
}


@dataclass(frozen=True)
class Files:
    """A spec and the folder of its files."""

    spec: FeatureSpec
    folder: Path


@dataclass(frozen=True)
class Fitted:
    """An upstream that was fitted along a chain."""

    upstream: lfm.FoundationModel
    chain: lfm.PeriodChain


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory, ads_features: Any) -> Files:
    """The small log, with side tables and auxiliary rows."""
    folder = tmp_path_factory.mktemp("front") / "files"
    write_tables(folder, ads_tables())
    features = ads_features("user_id", "user_click", "clicked", "interests", "item_id", "tab")
    return Files(parse_spec({**ADS_SPEC, "features": features}), folder)


@pytest.fixture(scope="session")
def log(files: Files) -> lfm.EncodedLog:
    """The log, encoded from its files."""
    return lfm.encode(files.spec, files.folder)


@pytest.fixture(scope="session")
def network() -> lfm.NetworkConfig:
    """Small towers, a cross layer and a dense one."""
    return lfm.NetworkConfig.model_validate(NETWORK)


@pytest.fixture(scope="session")
def fitted(log: lfm.EncodedLog, network: lfm.NetworkConfig) -> Fitted:
    """An upstream with tables in two shards."""
    upstream = lfm.FoundationModel(
        log.layout, network, lfm.EmbeddingsConfig(dim=4, shards=2), seed=1
    )
    upstream.compile(lfm.HybridOptimizer(0.1, 0.01))
    chain = lfm.PeriodChain(log, batch_size=32)
    upstream.fit(chain.dataset(), callbacks=[chain], verbose=0)
    return Fitted(upstream, chain)


@pytest.fixture(scope="session")
def stored(log: lfm.EncodedLog, fitted: Fitted) -> lfm.RepresentationStore:
    """Its representations."""
    return lfm.extract(fitted.upstream, log, fitted.chain)
