"""Where TensorFlow's files of a checkpoint are written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lfm4ads_tf.embeddings.placement.chief_files import checkpoint_options
from tests.cluster.servers import ROOT


def test_nothing_changes_without_a_cluster() -> None:
    assert checkpoint_options() is None


@pytest.mark.slow
def test_the_chief_writes_what_lies_on_servers(tmp_path: Path) -> None:
    folders = [tmp_path / "chief", tmp_path / "server"]
    for folder in folders:
        folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster.chief_files_script", *map(str, folders)],
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "GRPC_FAIL_FAST": "use_caller"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    of_chief, of_server, read = json.loads(done.stdout.splitlines()[-1])
    assert {"w", "ckpt-1", "checkpoint"} <= set(of_chief)
    assert of_server == [] and read == [1.0, 2.0]
