"""Where TensorFlow's files of a checkpoint are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from lfm4ads_tf.embeddings.placement.chief_files import checkpoint_options
from tests.cluster.scripts import report_of_module


def test_nothing_changes_without_a_cluster() -> None:
    assert checkpoint_options() is None


@pytest.mark.slow
def test_the_chief_writes_what_lies_on_servers(tmp_path: Path) -> None:
    folders = [tmp_path / "chief", tmp_path / "server"]
    for folder in folders:
        folder.mkdir()
    of_chief, of_server, read = report_of_module(
        "tests.cluster.chief_files_script", *map(str, folders)
    )
    assert {"w", "ckpt-1", "checkpoint"} <= set(of_chief)
    assert of_server == [] and read == [1.0, 2.0]
