"""Sharded tables: the same metrics, checkpoints that load on other shard counts, merged exports."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.optim.model_optimizers import ModelOptimizers
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.run import open_run
from lfm4ads_tf.training.checkpoints import TrainingCheckpoint
from lfm4ads_tf.training.config import OptimizerConfig

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sharded(
    cli: Callable[..., Any], shop_arguments: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Upstream, representations, one downstream and the exports of a run with four shards."""
    out = tmp_path_factory.mktemp("sharded") / "run"
    options = [*shop_arguments, "--set", "embeddings.shards=4", "--out", out]
    options += ["--scenarios", "home", "--methods", "feature/linear/UR"]
    for stage in ("prepare", "pretrain", "extract", "transfer", "evaluate", "export"):
        done = cli(stage, *options)
        assert done.code == 0, done.text
    return out


def test_metrics_equal_those_of_one_shard(
    sharded: Path, shop_metrics: dict[str, Any], assert_same_metrics: Callable[..., None]
) -> None:
    ours = json.loads((sharded / "metrics.json").read_text())
    assert {e["method"] for e in ours["results"]} == {"upstream", "feature/linear/UR"}
    assert_same_metrics(ours, shop_metrics, 1e-6)


def _restored(out: Path, folder: Path, shards: int) -> tuple[FoundationModel, ModelOptimizers, int]:
    """The upstream with a number of shards, with what the checkpoint of the run holds."""
    run = open_run(out)
    model = build.upstream(run.cache.layout, run.config, 0, shards=shards)
    objective = Objective.of(lambda batch: {}, OptimizerConfig())
    optimizers = ModelOptimizers(objective, model, [model.backbone.embeddings])
    position = TrainingCheckpoint(folder, model, optimizers).restore()
    return model, optimizers, position.step


def _values(model: FoundationModel) -> dict[str, np.ndarray]:
    """All weights and slots under names that do not depend on the number of shards."""
    found: dict[str, np.ndarray] = {}
    embeddings = model.backbone.embeddings
    parts = set()
    for name in embeddings.physical:
        shards = embeddings.parts(name)
        parts |= {id(p) for p in shards}
        found[f"table {name}"] = np.concatenate([p.numpy() for p in shards])
    for k, variable in enumerate(v for v in model.variables if id(v) not in parts):
        found[f"weight {k} {variable.name}"] = variable.numpy()
    return found


def test_a_checkpoint_of_four_shards_loads_on_one_and_three_with_its_slots(
    sharded: Path, tmp_path: Path, tensors: Callable[[Path], dict[str, Any]]
) -> None:
    """Weights bit-equal; saved again, the checkpoint holds every tensor, slots too."""
    folder = sharded / "upstream" / "seed_0"
    first = tensors(Path(tf.train.latest_checkpoint(str(folder / "checkpoint"))))
    assert any("slot" in name.lower() or "accumulator" in name.lower() for name in first), (
        "the checkpoint holds optimizer slots: " + ", ".join(sorted(first))
    )
    model, _, steps = _restored(sharded, folder, 4)
    expected = _values(model)
    assert len(model.backbone.embeddings.parts(model.backbone.embeddings.dims[0])) == 4
    for shards in (1, 3):
        own = tmp_path / f"on_{shards}"
        shutil.copytree(folder / "checkpoint", own / "checkpoint")
        # CheckpointManager notes absolute paths; the copy is found through its own folder.
        state = own / "checkpoint" / "checkpoint"
        state.write_text(state.read_text().replace(str(folder), str(own)))
        other, other_optimizers, other_steps = _restored(sharded, own, shards)
        assert len(other.backbone.embeddings.parts(other.backbone.embeddings.dims[0])) == shards
        assert other_steps == steps > 0
        found = _values(other)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
        again = TrainingCheckpoint(tmp_path / f"again_{shards}", other, other_optimizers)
        again.save(9, 9, steps)
        stored = tensors(
            Path(tf.train.latest_checkpoint(str(tmp_path / f"again_{shards}" / "checkpoint")))
        )
        compared = [n for n in first if not n.startswith("position/")]
        assert set(first) == set(stored)
        assert all(np.array_equal(first[n], stored[n]) for n in compared)


def test_exports_of_a_sharded_run_hold_one_merged_table(sharded: Path) -> None:
    run = open_run(sharded)
    model = build.upstream(run.cache.layout, run.config, 0)
    (rows,) = [fused.rows for fused in model.backbone.embeddings.layout.fused.values()]
    for name in ("foundation", "user_tower", "item_tower", "ranker_home"):
        folder = sharded / "exports" / name / "1"
        assert json.loads((folder / "blessing.json").read_text())["kind"] == name
        reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        shapes = [tuple(s) for s in reader.get_variable_to_shape_map().values()]
        # All features have one width, so there is one physical table: every other weight is
        # small. A tower's export holds the rows of its own side alone.
        tables = [s for s in shapes if len(s) == 2 and s[1] == 4 and s[0] > 50]
        assert len(tables) == 1, shapes
        whole = name in ("foundation", "ranker_home")
        assert tables[0][0] == rows if whole else 0 < tables[0][0] < rows
