"""Training from the packed form of a run's encoded cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.pack import pack


@pytest.mark.slow
def test_training_from_packed_rows_gives_the_same_upstream(
    cli: Callable[..., Any],
    shop_arguments: list[str],
    shop_run: tuple[Path, Any],
    tmp_path: Path,
) -> None:
    options = [*shop_arguments, "--out", tmp_path / "run", "--seeds", "1"]
    assert cli("prepare", *options).code == 0
    pack(EncodedCache(tmp_path / "run" / "data"), tmp_path / "packed", block_rows=64, files=3)
    done = cli("pretrain", *options, "--set", f"packed_cache={tmp_path / 'packed'}")
    assert done.code == 0, done.text

    def metrics(out: Path) -> list[Any]:
        entries = json.loads((out / "upstream" / "seed_0" / "results.json").read_text())["entries"]
        return [entry["metrics"] for entry in entries]

    assert metrics(tmp_path / "run") == metrics(shop_run[0])


def test_packed_rows_of_other_data_are_refused(
    cli: Callable[..., Any], shop_arguments: list[str], shop_run: tuple[Path, Any], tmp_path: Path
) -> None:
    options = [*shop_arguments, "--out", tmp_path / "run"]
    assert cli("prepare", *options).code == 0
    pack(EncodedCache(tmp_path / "run" / "data"), tmp_path / "packed")
    manifest = tmp_path / "packed" / "manifest.json"
    changed = json.loads(manifest.read_text()) | {"source": "another"}
    manifest.write_text(json.dumps(changed))
    done = cli("pretrain", *options, "--set", f"packed_cache={tmp_path / 'packed'}")
    assert done.code == 2 and "other encoded data" in done.text
    assert not (tmp_path / "run" / "upstream" / "seed_0" / "results.json").exists()
