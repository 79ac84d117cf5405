"""Compiles the training kernels: `lfm4ads-kernels`, or `python -m lfm4ads_tf.kernels.build`."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from lfm4ads_tf.compiled_files import compiled_file
from lfm4ads_tf.errors import UserError

_HERE = Path(__file__).parent
_SOURCES = ("rows.h", "rows.cc", "ops.cc")
# The arithmetic is compiled for this machine; TensorFlow's headers must not be, since their inline
# functions have to match the ones in TensorFlow's own library.
_ARITHMETIC = (
    "-march=native",
    "-fopenmp-simd",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",  # as TensorFlow's single ops round
)


def library_path() -> Path:
    """Where the kernels of this source, TensorFlow version and processor lie, built or not."""
    import tensorflow as tf

    digest = hashlib.blake2b(digest_size=8)
    for name in _SOURCES:
        digest.update((_HERE / name).read_bytes())
    digest.update(f"{tf.version.VERSION} {_processor()}".encode())
    return compiled_file(_HERE, f"kernels-{digest.hexdigest()}.so")


def build() -> Path:
    """Compiles the kernels unless they are there.

    Returns:
        The path of the shared library.

    Raises:
        UserError: There is no C++ compiler, it fails, or no folder can be written.
    """
    import tensorflow as tf

    target = library_path()
    if target.exists():
        return target
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None or sys.platform != "linux":
        raise UserError(
            "The training kernels cannot be compiled here.",
            received=f"platform {sys.platform}, compiler {compiler}",
            fix="install g++ or clang++ on Linux, or train without kernels: results are the same",
        )
    common = [compiler, "-c", "-O3", "-fPIC", "-fvisibility=hidden"]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            staging = Path(folder)
            _run([*common, "-std=c++17", *_ARITHMETIC, _HERE / "rows.cc", "-o", staging / "rows.o"])
            flags = tf.sysconfig.get_compile_flags()
            _run([*common, "-w", *flags, _HERE / "ops.cc", "-o", staging / "ops.o"])
            objects = [staging / "rows.o", staging / "ops.o"]
            linked = staging / "kernels.so"
            _run([compiler, "-shared", *objects, "-o", linked, *tf.sysconfig.get_link_flags()])
            os.replace(linked, target)
    except OSError as error:
        raise UserError(
            "The training kernels cannot be written.",
            received=error,
            fix="set XDG_CACHE_HOME to a folder that can be written, for the training too; or "
            "train without kernels: results are the same",
        ) from error
    return target


def _run(command: list[str | Path]) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise UserError(
            "Compiling the training kernels failed.",
            received=f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}",
            fix="set CXX to a C++17 compiler, or train without kernels: results are the same",
        )


def _processor() -> str:
    """What decides on the instruction set."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def main() -> int:
    """Compiles them and says where they are; returns 2 where they cannot be."""
    try:
        print(f"Training kernels: {build()}")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
