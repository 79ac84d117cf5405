"""Console scripts: what an installation puts on the path, and what it says without Keras 2."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_CONFIG = ConfigParser()
_CONFIG.read(ROOT / "setup.cfg", "utf-8")
SCRIPTS = dict(
    line.split(" = ")
    for line in _CONFIG["options.entry_points"]["console_scripts"].strip().splitlines()
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_calls_a_main(script: str) -> None:
    assert script.startswith("lfm4ads-")  # by this name the package knows a command of ours
    module, _, function = SCRIPTS[script].partition(":")
    assert module.startswith("lfm4ads_tf.") and function == "main"
    assert callable(importlib.import_module(module).main)


def test_the_guide_names_every_script() -> None:
    guide = (ROOT / "docs" / "cli.md").read_text("utf-8")
    told = {
        line.split("`")[1]: line.split("`")[3]
        for line in guide.splitlines()
        if line.startswith("| `lfm4ads-")
    }
    assert told == {
        script: f"python -m {target.partition(':')[0].removesuffix('.__main__')}"
        for script, target in SCRIPTS.items()
    }


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.argv = ['/somewhere/bin/lfm4ads-verify']; import lfm4ads_tf.export.verify",
        "import sys; sys.argv = ['train.py']; import train",
    ],
)
def test_keras_3_is_refused_without_a_traceback(code: str) -> None:
    done = _without_keras_2("-c", code)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("Error: TF_USE_LEGACY_KERAS asks for Keras 3")


@pytest.mark.parametrize("module", ["lfm4ads_tf.command_line", "export.client"])
def test_keras_3_is_refused_where_a_module_is_run(module: str) -> None:
    done = _without_keras_2("-m", module)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("Error: TF_USE_LEGACY_KERAS asks for Keras 3")


def test_another_program_gets_the_error() -> None:
    """A program of a user's may catch it."""
    code = "import sys; sys.argv = ['train.py']\ntry: import lfm4ads_tf\n"
    code += "except Exception as error: print(type(error).__name__)"
    done = _without_keras_2("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "UserError\n", "")


def _without_keras_2(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_USE_LEGACY_KERAS": "0"},
        capture_output=True,
        text=True,
    )
