from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import importlib.util, os, subprocess, sys, time
spec = importlib.util.spec_from_file_location("lifeline", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
if sys.argv[2] == "closed":
    os.close(0)
module.follow_launcher()
if sys.argv[2] == "child":
    print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid, flush=True)
else:
    print("up", flush=True)
time.sleep(60)
"""
_MODULE = Path(__file__).resolve().parents[2] / "lfm4ads_tf" / "cluster" / "lifeline.py"


def _start(what: str = "", *, value: str = "1", group: bool = False) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-S", "-c", _PROGRAM, str(_MODULE), what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "LFM4ADS_LIFELINE": value},
        start_new_session=group,
    )


def _close(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None


def test_a_process_ends_with_the_other_end_of_its_input() -> None:
    with _start() as process:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        _close(process)
        assert process.wait(10) == 3


def test_what_it_started_ends_with_it() -> None:
    with _start("child", group=True) as process:
        assert process.stdout is not None
        int(process.stdout.readline())
        _close(process)
        assert process.wait(10) == -signal.SIGKILL
        assert process.stdout.read() == ""  # returns when the child has closed it too


def test_a_closed_input_is_an_end() -> None:
    with _start("closed") as process:
        assert process.wait(10) == 3


def test_without_the_variable_nothing_is_followed() -> None:
    with _start(value="0") as process:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        _close(process)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.kill()
