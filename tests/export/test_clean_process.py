"""One process proves many exports: none sees another, and one that dies costs itself alone.

The process here serves as `verify_child` does, but its TensorFlow is a stand-in that loads at once.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lfm4ads_tf.errors import ExportRefused
from lfm4ads_tf.export import verify_child
from lfm4ads_tf.export.clean_process import CleanProcess

CHILD = """
import importlib.util, os, sys, threading, time
from unittest.mock import MagicMock

for name in ("", ".core.framework", ".core.protobuf", ".python.framework"):
    sys.modules[f"tensorflow{{name}}"] = MagicMock()
spec = importlib.util.spec_from_file_location("verify_child", {source!r})
child = importlib.util.module_from_spec(spec)
sys.modules["verify_child"] = child
spec.loader.exec_module(child)
seen = []


def verify(folder, warmup):
    seen.append(folder.name)
    if folder.name == "refused":
        raise child.Refused("the scores differ")
    if folder.name == "dies":
        print("a message before the end", file=sys.stderr, flush=True)
        os.kill(os.getpid(), 11)
    if folder.name == "leaves":
        os._exit(0)
    if folder.name == "raises":
        raise ValueError("a defect")
    if folder.name == "answers":
        os.write(1, b'{{"code": 0, "last": false}}\\n')
        os._exit(7)
    if folder.name == "hangs":
        time.sleep(60)
    return {{"seen": seen, "process": os.getpid(), "parent": os.getppid(), "warmup": warmup}}


child.verify = verify
if {thread}:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
child.main()
"""


def child_of(folder: Path, *, thread: bool = False) -> Path:
    path = folder / "child.py"
    path.write_text(CHILD.format(source=verify_child.__file__, thread=thread), "utf-8")
    return path


@pytest.fixture
def process(tmp_path: Path) -> Iterator[CleanProcess]:
    with CleanProcess(child_of(tmp_path)) as held:
        yield held


def test_each_export_has_a_process_that_has_seen_no_other(process: CleanProcess) -> None:
    warmup = [{"signature": "predict", "inputs": {}}]
    told = [process.prove(Path(name), warmup, 30) for name in ("a", "b")]
    assert [report["seen"] for report in told] == [["a"], ["b"]]
    assert told[0]["process"] != told[1]["process"] and told[0]["parent"] == told[1]["parent"]
    assert told[0]["warmup"] == warmup


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("refused", r"^the scores differ$"),
        ("dies", r"^cannot be loaded: the verifying process ended with -11 \(a message before "),
        ("leaves", r"^cannot be loaded: the verifying process ended with 0 \(no message\)$"),
        ("raises", r"^cannot be loaded: .* ended with 1 \(ValueError: a defect\)$"),
        ("answers", r"^cannot be loaded: .* ended with 7 \({"),
    ],
)
def test_one_that_is_lost_costs_itself_alone(
    name: str, message: str, process: CleanProcess
) -> None:
    before = process.prove(Path("a"), [], 30)
    with pytest.raises(ExportRefused, match=message):
        process.prove(Path(name), [], 30)
    after = process.prove(Path("b"), [], 30)
    assert after["seen"] == ["b"] and after["parent"] == before["parent"]


def test_one_that_hangs_is_killed_and_the_next_has_another_process(process: CleanProcess) -> None:
    before = process.prove(Path("a"), [], 30)
    with pytest.raises(ExportRefused, match=r"^the verifying process did not answer in 0\.3 s$"):
        process.prove(Path("hangs"), [], 0.3)
    assert process.prove(Path("b"), [], 30)["parent"] != before["parent"]
    with pytest.raises(ProcessLookupError):
        os.kill(before["parent"], 0)


def test_a_process_that_is_killed_is_replaced(process: CleanProcess) -> None:
    before = process.prove(Path("a"), [], 30)
    os.kill(before["parent"], 9)
    after = None
    until = time.monotonic() + 30
    while after is None and time.monotonic() < until:
        try:  # what was asked of the dead one is refused, never blessed
            after = process.prove(Path("b"), [], 30)
        except ExportRefused as refused:
            assert "ended with -9" in str(refused)
    assert after is not None and after["parent"] != before["parent"]


def test_where_forking_is_not_safe_each_export_has_the_process_to_itself(tmp_path: Path) -> None:
    with CleanProcess(child_of(tmp_path, thread=True)) as process:
        told = [process.prove(Path(name), [], 30) for name in ("a", "b")]
        with pytest.raises(ExportRefused, match=r"ended with -11 \(a message before the end\)"):
            process.prove(Path("dies"), [], 30)
    assert [report["seen"] for report in told] == [["a"], ["b"]]
    assert told[0]["process"] != told[1]["process"]
    assert {report["parent"] for report in told} == {os.getpid()}


def test_closing_ends_what_is_being_proven(tmp_path: Path) -> None:
    process = CleanProcess(child_of(tmp_path))
    told = process.prove(Path("a"), [], 30)
    process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(told["parent"], 0)


def test_starting_does_not_wait_for_a_proof(process: CleanProcess) -> None:
    process.prove(Path("a"), [], 30)
    with ThreadPoolExecutor(1) as worker:
        proof = worker.submit(process.prove, Path("hangs"), [], 30)
        until = time.monotonic() + 30
        while not process._lock.locked() and time.monotonic() < until:
            time.sleep(0.01)
        process.start()  # returns: the proof that hangs would be waited for half a minute
        assert not proof.done()
        process.close()
        with pytest.raises(ExportRefused):
            proof.result(30)


def test_a_closed_one_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = CleanProcess(child_of(tmp_path))
    process.close()
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    process.start()
    with pytest.raises(ExportRefused, match="ended before"):
        process.prove(Path("a"), [], 30)
