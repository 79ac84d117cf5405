"""The loader of TensorFlow Serving, in C++: same answers as Python, and clear failures."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.errors import ExportRefused, UserError
from lfm4ads_tf.export import cpp_loader
from lfm4ads_tf.export.cpp_loader import build_loader, run_cpp
from lfm4ads_tf.export.verify_child import read_golden
from tests.rounding import assert_close

pytestmark = pytest.mark.processor


@pytest.fixture(scope="session")
def compiled() -> Path:
    try:
        return build_loader()
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("compiled")
def test_answers_equal_those_of_python(exports: Path) -> None:
    folder = exports / "ranker_tab 1" / "1"
    asked = ("classify", "encode", "rank")  # texts, ids, and inputs with rows of their own
    requests, expected, _ = ({s: of[s] for s in asked if s in of} for of in read_golden(folder))
    answers, timings = run_cpp(folder, requests, repeats=3)
    assert answers.keys() == requests.keys() == timings.run_ms.keys()
    assert timings.load_s > 0 and min(timings.run_ms.values()) > 0
    for signature, outputs in expected.items():
        assert answers[signature].keys() == outputs.keys()
        for name, wanted in outputs.items():
            found = answers[signature][name]
            assert found.shape == wanted.shape
            if wanted.dtype.kind == "f":
                assert_close(found, wanted, terms=200, what=name)
            else:
                assert np.array_equal(found.astype(wanted.dtype), wanted)
    assert answers["classify"]["classes"][3].tolist() == [b"click", b"like"]


@pytest.mark.usefixtures("compiled")
def test_arrays_tensors_and_protos_are_the_same_request(exports: Path) -> None:
    folder = exports / "user_tower" / "1"
    (examples,) = read_golden(folder)[0]["serving_default"].values()
    found = []
    for value in (examples, tf.constant(examples), tf.make_tensor_proto(examples, tf.string)):
        answers, timings = run_cpp(folder, {"serving_default": {"examples": value}})
        found.append(answers["serving_default"]["representation"])
        assert not timings.run_ms
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ({"absent": {}}, "request fails in the C.. loader: there is no signature 'absent'"),
        ({"serving_default": {"rows": np.zeros(1)}}, "'serving_default' has no input 'rows'"),
        ({"serving_default": {"examples": np.zeros(2)}}, "'serving_default' fails: "),
    ],
)
def test_failing_requests_are_refused(exports: Path, requests: Any, message: str) -> None:
    with pytest.raises(ExportRefused, match=message):
        run_cpp(exports / "user_tower" / "1", requests)


@pytest.mark.usefixtures("compiled")
def test_a_model_that_cannot_be_loaded_is_refused(exports: Path, tmp_path: Path) -> None:
    folder = tmp_path / "1"
    shutil.copytree(exports / "user_tower" / "1", folder)
    data = next((folder / "variables").glob("*.data-*"))
    data.write_bytes(data.read_bytes()[:-100])
    with pytest.raises(ExportRefused, match=r"the C\+\+ loader cannot load it: .*[Rr]ead"):
        run_cpp(folder, {})


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        ("echo 'no library' >&2; exit 127", UserError, "exit code 127: no library"),
        ("kill -SEGV $$", ExportRefused, "dies of it with SIGSEGV"),
        ("echo 'not a model' >&2; exit 10", ExportRefused, "cannot load it: not a model"),
        ("echo 'bad_alloc' >&2; exit 12", ExportRefused, "loader fails with it: bad_alloc"),
        ("exec sleep 60", ExportRefused, r"the C\+\+ loader did not answer in 0.5 s"),
    ],
)
def test_a_broken_program_is_told_from_a_broken_model(
    script: str, error: type[Exception], message: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(cpp_loader, "build_loader", lambda: program(tmp_path / "loader", script))
    if "sleep" in script:
        monkeypatch.setattr(cpp_loader, "ANSWER_S", 0.5)
    with pytest.raises(error, match=message):
        run_cpp(tmp_path, {})


def test_a_compiler_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "cache" / "loader-1"
    monkeypatch.setattr(cpp_loader, "loader_path", lambda: target)
    monkeypatch.setenv("CXX", str(program(tmp_path / "cxx", "echo 'bad flag' >&2; exit 1")))
    with pytest.raises(UserError, match="Compiling the C.. loader failed.(.|\n)*bad flag"):
        build_loader()
    monkeypatch.setenv("CXX", str(tmp_path / "absent"))
    with pytest.raises(UserError, match="cannot be compiled"):
        build_loader()
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="compiler None"):
        build_loader()
    assert not list((tmp_path / "cache").iterdir())
