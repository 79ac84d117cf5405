"""The wheel: what is in it, and that it works from any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_COPIED = (".*", "runs", "build", "dist", "*.egg-info", "__pycache__", "_build")
FOLDERS = {
    "lfm4ads_tf": "lfm4ads_tf",
    "export": "lfm4ads_tf/export",
    "feature_specs": "lfm4ads_tf/feature_specs",
}
"""Folder of the checkout -> its place in the wheel."""

_SCRIPTS = """
import importlib.metadata, sys
(found,) = importlib.metadata.distributions(path=[sys.argv[1]])
scripts = [e for e in found.entry_points if e.group == "console_scripts"]
for script in scripts:
    assert callable(script.load()), script
    module = sys.modules[script.module]
    assert module.__file__.startswith(sys.argv[1]), module.__file__
print(len(scripts))
"""

pytestmark = pytest.mark.slow  # builds, installs and starts Python several times


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, with compiled kernels and a compiled loader of some machine."""
    copy = tmp_path_factory.mktemp("checkout") / "source"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
    for folder in ("lfm4ads_tf/kernels", "export"):
        built = copy / folder / "_build"
        built.mkdir()
        for name in ("compiled-0123.so", "compiled.cc"):
            (built / name).touch()
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the copy."""
    folder = tmp_path_factory.mktemp("wheel")
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    (wheel,) = folder.iterdir()
    return wheel


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the wheel is installed."""
    folder = tmp_path_factory.mktemp("site")
    _pip("install", "--no-deps", "--target", folder, wheel)
    return folder


def test_one_name_and_every_file_once(source: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    version = wheel.name.split("-")[1]
    assert {name.split("/")[0] for name in names} == {
        "lfm4ads_tf",
        f"lfm4ads_tf-{version}.dist-info",
    }
    expected = [
        f"{place}/{path.relative_to(source / folder).as_posix()}"
        for folder, place in FOLDERS.items()
        for path in (source / folder).rglob("*")  # does not follow the links in a package
        if path.is_file() and "_build" not in path.parts
    ]
    assert {"lfm4ads_tf/export/loader.cc", "lfm4ads_tf/feature_specs/kuairand.yaml"} < {*expected}
    assert sorted(name for name in names if ".dist-info/" not in name) == sorted(expected)


def test_console_scripts_are_there(site: Path, tmp_path: Path) -> None:
    done = _run(site, tmp_path, "-c", _SCRIPTS, site)
    scripts = sorted(path.name for path in (site / "bin").iterdir())
    assert int(done.stdout) == len(scripts) and "lfm4ads-train" in scripts
    helped = _run(site, tmp_path, site / "bin" / "lfm4ads-train", "--help")
    assert "lfm4ads-train" in helped.stdout and "pretrain" in helped.stdout


def test_a_run_of_the_wheel_is_one_of_the_checkout(site: Path, tmp_path: Path) -> None:
    """From another folder, without compiled kernels; the checkout goes on with the run folder."""
    shared = ["prepare", "--out", str(tmp_path / "run"), "--quiet"]
    shared += ["--set", "dataset_options.rows=2000"]
    _run(site, tmp_path, "-m", "lfm4ads_tf.command_line", *shared, "--spec", "synthetic")
    written = {
        path: path.read_bytes()
        for path in (tmp_path / "run").rglob("*")
        if path.is_file() and path.suffix != ".log"
    }
    assert tmp_path / "run" / "data" / "manifest.json" in written
    assert not [path for path in site.rglob("*") if path.name == "_build"]
    _run(ROOT, ROOT, "train.py", *shared, "--spec", "feature_specs/synthetic.yaml")
    assert {path: path.read_bytes() for path in written} == written


def _pip(command: str, *arguments: object) -> None:
    options = ["--quiet", "--no-index", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", command, *options, *map(str, arguments)], check=True
    )


def _run(package: Path, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Python in a folder, with the package of another one."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(package), "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done
