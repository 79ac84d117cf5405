"""Where kernels are compiled to, and what is said where they cannot be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lfm4ads_tf.kernels import build


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sources of the kernels as an installed package has them: nothing is built."""
    folder = tmp_path / "site-packages" / "kernels"
    folder.mkdir(parents=True)
    for name in build._SOURCES:
        shutil.copy(Path(build.__file__).with_name(name), folder)
    monkeypatch.setattr(build, "_HERE", folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_kernels_lie_beside_the_package_or_in_the_cache(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = build.library_path()
    assert beside.parent == package / "_build"
    # root may write anywhere: a folder without the permission is none to it
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert build.library_path() == tmp_path / "cache" / "lfm4ads_tf" / beside.name
    beside.parent.mkdir()
    beside.touch()
    assert build.library_path() == beside  # whoever installed the package has built them


@pytest.mark.skipif(sys.platform != "linux", reason="they are compiled on Linux alone")
def test_what_to_do_where_no_folder_can_be_written(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", sys.executable)  # not reached
    (package / "_build").write_text("a file where the folder should be", "utf-8")
    assert build.main() == 2
    told = capsys.readouterr()
    assert told.out == "" and "The training kernels cannot be written." in told.err
    assert str(package / "_build") in told.err and "XDG_CACHE_HOME" in told.err
    assert {p.name for p in package.iterdir()} == {"_build", *build._SOURCES}


@pytest.mark.slow  # compiles
@pytest.mark.skipif(
    sys.platform != "linux" or not (shutil.which("g++") or shutil.which("clang++")),
    reason="there is no compiler",
)
def test_an_installed_package_compiles_them(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    for _ in range(2):  # the second finds them
        assert build.main() == 0
        assert capsys.readouterr().out == f"Training kernels: {build.library_path()}\n"
    (built,) = (package / "_build").iterdir()
    # in a process of its own: this one may have loaded the ops of the checkout
    load = "import sys, tensorflow as tf; tf.load_op_library(sys.argv[1])"
    subprocess.run([sys.executable, "-c", load, built], check=True, capture_output=True)
