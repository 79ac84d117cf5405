from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lfm4ads_tf.cluster import local
from lfm4ads_tf.cluster.task import Task
from lfm4ads_tf.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("run", "runs/movielens"),
        ("run --spec synthetic", "runs/synthetic"),
        ("run --spec=spec.yaml --quiet", "runs/010"),
        ("run --spec spec.yaml --set name=mine --set upstream.name=x", "runs/mine"),
        ("run --spec no.yaml --out here --seed 3", "here"),
        ("pretrain --out=a --out b", "b"),
    ],
)
def test_the_run_folder_is_train_py_s(
    arguments: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("spec.yaml").write_text("name: 010\n")
    assert local.run_folder(arguments.split()) == Path(expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--workers 0 -- run", "--workers must be at least 1"),
        ("--ps -1 -- run", "--ps must be at least 0"),
        ("--max-restarts -1 -- run", "--max-restarts must be at least 0"),
        ("--workers 1", "No command of train.py"),
        ("-- --out x", "No command of train.py"),
        ("-- run --cluster env", "Fix: leave --cluster out"),
        ("-- run --cluster=c.yaml", "Fix: leave --cluster out"),
        ("-- run --task worker:0", "Fix: leave --task out"),
        ("-- run --spec no.yaml", "The feature spec no.yaml cannot be read"),
        ("-- run --spec nameless.yaml", "has no name"),
        ("-- run --spec", "An argument of train.py cannot be read"),
        ("-- run --out file/below", "cannot be written"),
    ],
)
def test_what_is_refused(
    given: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nameless.yaml").write_text("tasks: {}\n")
    Path("file").touch()
    assert local.main(given.split()) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("given", ["--worker x -- run", "--hosts 2 -- run"])
def test_options_that_are_none(given: str) -> None:
    with pytest.raises(SystemExit) as left:
        local.main(given.split())
    assert left.value.code == 2


def test_every_process_gets_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    class Fake:
        def __init__(self, command: Any, folder: Path, **options: Any) -> None:
            seen.update(command=command, folder=folder, **options)

        def run(self) -> int:
            return 7

    monkeypatch.setattr(local, "Supervisor", Fake)
    arguments = "--workers 3 --ps 0 --max-restarts 9 -- pretrain --out o --seed 1"
    assert local.main(arguments.split()) == 7
    assert (seen["workers"], seen["servers"], seen["max_restarts"]) == (3, 0, 9)
    assert seen["folder"] == Path("o/cluster")
    line: Sequence[str] = seen["command"](Task("worker", 1))
    assert line[:3] == [sys.executable, "-m", "lfm4ads_tf.command_line"]
    assert line[3:] == "pretrain --out o --seed 1 --cluster env".split()


def test_the_launcher_does_without_tensorflow() -> None:
    code = "import sys, lfm4ads_tf.cluster.local; sys.exit('tensorflow' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_an_argument_error_is_the_user_s() -> None:
    with pytest.raises(UserError):
        local.run_locally([], workers=1)
