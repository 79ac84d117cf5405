"""Where files are compiled to, and what is said where kernels cannot be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from lfm4ads_tf import compiled_files
from lfm4ads_tf.compiled_files import compiled_file
from lfm4ads_tf.kernels import build


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment in which the package is installed, with nothing compiled."""
    package = tmp_path / "environment" / "site-packages" / "lfm4ads_tf"
    (package / "export").mkdir(parents=True)
    monkeypatch.setattr(compiled_files, "_PACKAGE", package)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "environment"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "environment"


def test_a_checkout_keeps_them_beside_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert build.library_path().parent == Path(build.__file__).parent / "_build"
    _nothing_can_be_written(monkeypatch)
    assert compiled_file(tmp_path, "k.so") == tmp_path / "cache" / "lfm4ads_tf" / "k.so"
    (tmp_path / "_build").mkdir()
    (tmp_path / "_build" / "k.so").touch()
    assert compiled_file(tmp_path, "k.so") == tmp_path / "_build" / "k.so"


def test_an_installed_package_keeps_them_in_its_environment(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = environment / "share" / "lfm4ads_tf" / "k.so"
    assert compiled_file(environment / "site-packages" / "lfm4ads_tf" / "kernels", "k.so") == ours
    _nothing_can_be_written(monkeypatch)
    assert compiled_file(environment, "k.so") == tmp_path / "cache" / "lfm4ads_tf" / "k.so"
    ours.parent.mkdir(parents=True)
    ours.touch()
    assert compiled_file(environment, "k.so") == ours  # whoever installed the package built them


@pytest.mark.skipif(sys.platform != "linux", reason="they are compiled on Linux alone")
def test_what_to_do_where_no_folder_can_be_written(
    environment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", sys.executable)  # not reached
    (environment / "share").write_text("a file where the folder should be", "utf-8")
    assert build.main() == 2
    told = capsys.readouterr()
    assert told.out == "" and "The training kernels cannot be written." in told.err
    assert str(environment / "share") in told.err and "XDG_CACHE_HOME" in told.err


@pytest.mark.slow  # compiles
@pytest.mark.skipif(
    sys.platform != "linux" or not (shutil.which("g++") or shutil.which("clang++")),
    reason="there is no compiler",
)
def test_an_installed_package_compiles_them(
    environment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    for _ in range(2):  # the second finds them
        assert build.main() == 0
        assert capsys.readouterr().out == f"Training kernels: {build.library_path()}\n"
    (built,) = (environment / "share" / "lfm4ads_tf").iterdir()
    # in a process of its own: this one may have loaded the ops of the checkout
    load = "import sys, tensorflow as tf; tf.load_op_library(sys.argv[1])"
    subprocess.run([sys.executable, "-c", load, built], check=True, capture_output=True)


def _nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is for a user who may only read; permissions do not bind root."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
