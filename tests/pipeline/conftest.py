"""A small run over the ads log, prepared but not trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lfm4ads_tf.config import resolve
from lfm4ads_tf.pipeline.prepare import prepare
from lfm4ads_tf.pipeline.run import Run
from tests.conftest import ADS_SPEC, ads_tables, write_tables

_NETWORK = {
    "user_tower": [4],
    "item_tower": [4],
    "block": {"layers": [{"type": "cross", "depth": 1}]},
}
_OPTIMIZER = {"weight_decay": 0.0, "table_l2": 0.0, "dense_learning_rate": 0.01}
RUN: dict[str, Any] = {
    "budget": "75s",
    "embeddings": {"dim": 4},
    "upstream": {"network": _NETWORK, "training": {"optimizer": _OPTIMIZER}},
    "downstream": {"network": _NETWORK, "training": {"optimizer": _OPTIMIZER}, "min_rows": 50},
    "retrieval": {"enabled": False},
}


@pytest.fixture(scope="session")
def ads_run(tmp_path_factory: pytest.TempPathFactory, ads_features: Any) -> Callable[..., Run]:
    """`ads_run(*assignments, change=None)`: a prepared run whose searches move few settings.

    `config` and `options` are those of `resolve`.
    """

    def make(
        *assignments: str, change: Any = None, config: Path | None = None, options: Any = None
    ) -> Run:
        folder = tmp_path_factory.mktemp("ads_run")
        tables = ads_tables()
        if change is not None:
            change(tables)
        write_tables(folder / "files", tables)
        features = ads_features("user_id", "user_click", "clicked", "item_id", "tab")
        spec = {**ADS_SPEC, "features": features, "run": RUN}
        path = folder / "spec.yaml"
        path.write_text(yaml.safe_dump(spec, sort_keys=False), "utf-8")
        run = Run(folder / "out", resolve(path, assignments, options, config), quiet=True)
        run.begin()
        prepare(run, folder / "files")
        return run

    return make
