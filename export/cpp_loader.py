"""Runs exports in C++, through `tensorflow::LoadSavedModel` of the installed TensorFlow.

It is the loader of TensorFlow Serving: what it loads and answers needs no Python.
`python -m lfm4ads_tf.export.cpp_loader` compiles it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import named_tensor_pb2

from lfm4ads_tf.compiled_files import compiled_file
from lfm4ads_tf.errors import ExportRefused, UserError

_LOG = logging.getLogger(__name__)
_SOURCE = Path(__file__).with_name("loader.cc")
_NOT_LOADED, _FAILED_REQUEST, _OTHER = 10, 11, 12
_FIX = "install g++ or clang++ on Linux, or set CXX to a C++17 compiler"

ANSWER_S = 600.0
"""Seconds in which a process must have loaded a model and answered; far more than it needs."""

Requests = Mapping[str, Mapping[str, Any]]
"""Signature -> input -> TensorProto, tensor or array."""

Answers = dict[str, dict[str, np.ndarray]]
"""Signature -> output -> array; texts are objects of type bytes."""


@dataclass(frozen=True)
class CppTimings:
    """What a run in C++ took: seconds to load, and per signature the median of the timed runs."""

    load_s: float
    run_ms: dict[str, float]


def loader_path() -> Path:
    """Where the program of this source and TensorFlow installation lies, built or not."""
    digest = hashlib.blake2b(_SOURCE.read_bytes(), digest_size=8)
    digest.update(f"{tf.version.VERSION} {tf.sysconfig.get_lib()}".encode())
    return compiled_file(_SOURCE.parent, f"loader-{digest.hexdigest()}")


def build_loader() -> Path:
    """Compiles the program unless it is there.

    Returns:
        Its path.

    Raises:
        UserError: There is no C++ compiler, it fails, or what it makes does not start.
    """
    target = loader_path()
    if target.exists():
        return target
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None or sys.platform != "linux":
        raise UserError(
            "The C++ loader cannot be compiled here.",
            received=f"platform {sys.platform}, compiler {compiler}",
            fix=_FIX,
        )
    library = tf.sysconfig.get_lib()
    _LOG.info("compiling the C++ loader, once for this TensorFlow")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            staging = Path(folder) / "loader"
            # -w: the warnings would be about TensorFlow's headers
            _checked([compiler, "-O1", "-w", *tf.sysconfig.get_compile_flags(), str(_SOURCE)] + [
                "-o", str(staging), *tf.sysconfig.get_link_flags(),
                # the kernels register themselves in this library; nothing refers to them by name
                "-Wl,--no-as-needed", "-l:libtensorflow_cc.so.2", f"-Wl,-rpath,{library}",
            ])  # fmt: skip
            _checked([str(staging), "--version"])
            os.replace(staging, target)
    except OSError as error:
        raise UserError("The C++ loader cannot be compiled.", received=error, fix=_FIX) from error
    return target


def run_cpp(folder: Path, requests: Requests, repeats: int = 0) -> tuple[Answers, CppTimings]:
    """Loads a version folder in C++ and answers requests.

    Args:
        folder: The version folder.
        requests: See `Requests`; inputs have the keys of the signature, not tensor names.
        repeats: Timed runs of each request, after the one that gives the answer.

    Returns:
        The outputs, and what it took; without `repeats` there is no time per run.

    Raises:
        ExportRefused: The model cannot be loaded, a request fails, or the process dies or does not
            answer in `ANSWER_S`.
        UserError: The program cannot be compiled or started.
    """
    program = build_loader()
    with tempfile.TemporaryDirectory() as scratch:
        asked, answered = Path(scratch) / "requests", Path(scratch) / "answers"
        with asked.open("wb") as file:
            _write_requests(file, requests)
        command = [str(program), str(folder), str(asked), str(answered), str(repeats)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=ANSWER_S
            )
        except subprocess.TimeoutExpired as error:
            raise ExportRefused(f"the C++ loader did not answer in {ANSWER_S:g} s") from error
        except OSError as error:
            raise UserError("The C++ loader does not start.", received=error, fix=_FIX) from error
        if done.returncode:
            _fail(done)
        with answered.open("rb") as file:
            return _read_answers(file, list(requests), repeats)


def _fail(done: subprocess.CompletedProcess[str]) -> None:
    """Tells a model that fails from a program that does."""
    lines = [line for line in done.stderr.strip().splitlines() if line] or ["no message"]
    # TensorFlow's own log lines come first; a message of several lines keeps its first one
    logged = [i for i, line in enumerate(lines) if line[:1] in "IWEF" and line[1:2].isdigit()]
    messages = lines[logged[-1] + 1 :] if logged else lines
    reason = (messages or lines[-1:])[0][:300]
    if done.returncode == _NOT_LOADED:
        raise ExportRefused(f"the C++ loader cannot load it: {reason}")
    if done.returncode == _FAILED_REQUEST:
        raise ExportRefused(f"a request fails in the C++ loader: {reason}")
    if done.returncode == _OTHER:  # it runs, but not with this model: out of memory, say
        raise ExportRefused(f"the C++ loader fails with it: {reason}")
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise ExportRefused(f"the C++ loader dies of it with {name} ({reason})")
    raise UserError(
        "The C++ loader does not work.", received=f"exit code {done.returncode}: {reason}", fix=_FIX
    )


def _write_requests(file: BinaryIO, requests: Requests) -> None:
    file.write(_number(len(requests)))
    for signature, inputs in requests.items():
        file.write(_text(signature.encode()))
        file.write(_number(len(inputs)))
        for key, value in inputs.items():
            held = named_tensor_pb2.NamedTensorProto(name=key, tensor=_proto(value))
            file.write(_text(held.SerializeToString()))


def _read_answers(
    file: BinaryIO, signatures: list[str], repeats: int
) -> tuple[Answers, CppTimings]:
    (load_s,) = struct.unpack("<d", file.read(8))
    answers: Answers = {}
    run_ms = {}
    for signature in signatures:
        outputs = {}
        for _ in range(_read_number(file)):
            held = named_tensor_pb2.NamedTensorProto.FromString(file.read(_read_number(file)))
            outputs[held.name] = tf.make_ndarray(held.tensor)
        answers[signature] = outputs
        times = struct.unpack(f"<{repeats}d", file.read(8 * repeats))
        if times:
            run_ms[signature] = statistics.median(times)
    return answers, CppTimings(load_s, run_ms)


def _proto(value: Any) -> tensor_pb2.TensorProto:
    if isinstance(value, tensor_pb2.TensorProto):
        return value
    return tf.make_tensor_proto(value.numpy() if tf.is_tensor(value) else value)


def _number(value: int) -> bytes:
    return struct.pack("<Q", value)


def _text(value: bytes) -> bytes:
    return _number(len(value)) + value


def _read_number(file: BinaryIO) -> int:
    (value,) = struct.unpack("<Q", file.read(8))
    return int(value)


def _checked(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise UserError(
            "Compiling the C++ loader failed.",
            received=f"{' '.join(command)}\n{done.stderr[-2000:]}",
            fix=_FIX,
        )


if __name__ == "__main__":
    try:
        print(f"C++ loader: {build_loader()}")
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
