"""What native libraries print while they are imported is kept back; what went wrong is not."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lfm4ads_tf.quiet import hide_banner_of, native_stderr_hidden

ROOT = Path(__file__).parents[1]


def test_it_is_hidden_unless_the_block_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with native_stderr_hidden():
        os.write(2, b"a banner\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"

    def failing() -> None:
        with native_stderr_hidden(), native_stderr_hidden():
            os.write(2, b"a library is missing\n")
            raise ImportError

    with pytest.raises(ImportError):
        failing()
    assert capfd.readouterr().err == "a library is missing\n"


@pytest.mark.parametrize("fails", [False, True])
def test_the_banner_of_a_module_is_hidden_once(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    last = "raise ImportError('too old')" if fails else "value = 3"
    (tmp_path / "loud_one.py").write_text(f"import os\nos.write(2, b'a banner\\n')\n{last}\n")
    monkeypatch.syspath_prepend(tmp_path)
    finders = list(sys.meta_path)
    hide_banner_of("loud_one")
    try:
        if fails:
            with pytest.raises(ImportError, match="too old"):
                importlib.import_module("loud_one")
        else:
            assert importlib.import_module("loud_one").value == 3
            hide_banner_of("loud_one")  # it is there already
        assert capfd.readouterr().err == ("a banner\n" if fails else "")
        assert sys.meta_path == finders
    finally:
        sys.modules.pop("loud_one", None)


COMMAND = """
import runpy, sys
sys.argv = ["lfm4ads_tf.export.verify", sys.argv[1]]
try:
    runpy.run_module("lfm4ads_tf.export.verify", run_name="__main__", alter_sys=True)
except SystemExit as ended:
    assert ended.code == 2
import lfm4ads_tf.pipeline.stages
print(*(name for name in ("matplotlib", "sklearn", "lightgbm", "optuna") if name in sys.modules))
"""


def test_a_command_prints_its_own_lines_and_stages_import_what_they_need(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, str(tmp_path)],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"No SavedModel version lies in '{tmp_path.resolve()}'.\n"
    assert done.stdout == "\n"


@pytest.mark.slow  # a process for each, which imports TensorFlow
@pytest.mark.parametrize(
    "command",
    ["lfm4ads_tf.export.verify", "lfm4ads_tf.export.rollback"]
    + ["lfm4ads_tf.export.serving", "lfm4ads_tf.export.local_server"]
    + ["lfm4ads_tf.data.pack", "lfm4ads_tf.experiments.kuairand"]
    + ["benchmarks.encoding", "benchmarks.export_time", "benchmarks.ranking"],
)
def test_commands_are_quiet(command: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-m", command, "--help"],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stderr == "" and "usage" in done.stdout.lower()
