"""`--config`: a file of run configuration keys between the spec's own and `--set`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lfm4ads_tf.config import Resolved, resolve
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.presets import PRESETS

SPEC: dict[str, Any] = {
    "name": "tiny",
    "log": {"files": ["log.csv"]},
    "keys": {"user": "u", "item": "i", "time": "t"},
    "tasks": {"click": "click"},
    "split": {"by": "day", "train_until": 3, "valid_until": 5},
    "features": {
        "u": {"owner": "user", "kind": "hashed"},
        "i": {"owner": "item", "kind": "hashed"},
    },
    "run": {"embeddings": {"dim": 8}, "seeds": 2, "downstream": {"min_rows": 7, "linear_dim": 3}},
}


def resolved(folder: Path, keys: Any, *assignments: str, **options: Any) -> Resolved:
    (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    (folder / "keys.yaml").write_text(keys if isinstance(keys, str) else yaml.safe_dump(keys))
    return resolve(folder / "spec.yaml", assignments, options, folder / "keys.yaml")


def test_the_file_is_above_the_spec_and_below_set_and_options(tmp_path: Path) -> None:
    part = {"full": "feature/gate/UR", "min_rows": 9, "adapter_dropout": 0.1}
    keys = {"downstream": part, "seeds": 4, "seed": 5, "embeddings": {"shards": 3}}
    config = resolved(tmp_path, keys, "downstream.adapter_dropout=0.2", seeds=6).config
    downstream = config.downstream
    assert downstream.full == "feature/gate/UR" and downstream.min_rows == 9
    assert downstream.linear_dim == 3 and downstream.adapter_dropout == 0.2
    assert (config.seed, config.seeds) == (5, 6)
    for tables in (config.upstream.embeddings, downstream.embeddings, config.retrieval.embeddings):
        assert (tables.dim, tables.shards) == (8, 3)


def test_without_a_file_nothing_changes_and_an_equal_file_is_the_same_run(tmp_path: Path) -> None:
    with_file = resolved(tmp_path, {"seeds": 2})
    assert with_file == resolve(tmp_path / "spec.yaml")


def test_a_preset_stands_below_the_file_that_names_it(tmp_path: Path) -> None:
    name = "public_experiment"
    of_set = resolve_with(tmp_path, f"preset={name}")
    of_file = resolved(tmp_path, {"preset": name}).config
    assert of_file == of_set
    assert PRESETS[name] and of_file != resolve_with(tmp_path)
    over = resolved(tmp_path, {"preset": name, "embeddings": {"dim": 5}}).config
    assert over.upstream.embeddings.dim == 5


def resolve_with(folder: Path, *assignments: str) -> Any:
    return resolved(folder, {"seeds": 2}, *assignments).config


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"downstrem": {}}, "unknown key 'downstrem'. Did you mean 'downstream'?"),
        ({"run": {"seeds": 3}}, "names the unknown key 'run'"),
        ({"downstream": {"ful": "none"}}, "downstream.ful: unknown key. Did you mean 'full'?"),
        ({"seeds": 0}, "seeds: "),
        ({"upstream": {"mmoe": {}}}, "does not read upstream.mmoe"),
        ("[1, 2]", "must hold a YAML mapping"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, keys: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        resolved(tmp_path, keys)
    assert message in str(error.value)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    resolved(tmp_path, {"seeds": 2})
    with pytest.raises(UserError, match="give --config"):
        resolve(tmp_path / "spec.yaml", config_path=tmp_path / "absent.yaml")
