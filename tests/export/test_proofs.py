"""Exports are proven and published while the next ones are written."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from lfm4ads_tf.errors import ExportRefused
from lfm4ads_tf.export import exporter, proofs
from lfm4ads_tf.export.blessing import file_digests
from lfm4ads_tf.export.clean_process import CleanProcess
from lfm4ads_tf.export.exporter import WrittenExport
from lfm4ads_tf.export.proofs import Proofs
from lfm4ads_tf.export.publishing import new_staging

SECONDS = 30  # far more than anything here takes


def written(out: Path, name: str, world: Any) -> WrittenExport:
    folder = out / name
    staging = new_staging(folder)
    (staging / "saved_model.pb").write_text(name)
    return WrittenExport(name, staging, folder, None, 3, world.spec, {"model": name}, "a note")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A verification that refuses `bad`; the models that it was asked for."""
    names: list[str] = []

    def verify(
        staging: Path, *, processors: AbstractContextManager[Any], **_: Any
    ) -> dict[str, Any]:
        with processors:
            names.append(staging.parent.name)
            if staging.parent.name == "bad":
                raise ExportRefused("the scores differ")
            return {"files": file_digests(staging)}

    monkeypatch.setattr(exporter, "verify_export", verify)
    return names


def test_one_is_proven_while_the_next_is_written(
    tmp_path: Path, world: Any, asked: list[str]
) -> None:
    with Proofs(processors=2) as held:
        future = held.submit(written(tmp_path, "a", world))
        with held.writing():
            assert future.result(SECONDS) == tmp_path / "a" / "1"
            assert asked == ["a"]


def test_on_one_processor_they_take_turns(tmp_path: Path, world: Any, asked: list[str]) -> None:
    with Proofs(processors=1) as held:
        with held.writing():
            future = held.submit(written(tmp_path, "a", world))
            with pytest.raises(TimeoutError):
                future.result(0.2)
            assert not asked
        assert future.result(SECONDS) == tmp_path / "a" / "1"


def test_a_refused_one_costs_itself_alone(
    tmp_path: Path, world: Any, asked: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lfm4ads_tf.export.proofs")
    with Proofs(processors=2) as held:
        futures: dict[str, Future[Path]] = {
            name: held.submit(written(tmp_path, name, world)) for name in ("a", "bad", "b")
        }
        with pytest.raises(ExportRefused, match="^The export 'bad' is refused: the scores differ$"):
            futures["bad"].result(SECONDS)
        assert futures["b"].result(SECONDS) == tmp_path / "b" / "1"
    assert asked == ["a", "bad", "b"]  # in order
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert caplog.messages == [f"exported {n} version 1 (a note), verified" for n in ("a", "b")]


def test_left_early_nothing_unproven_stays(
    tmp_path: Path, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), threading.Event()
    asked: list[str] = []

    def verify(staging: Path, **_: Any) -> Any:
        asked.append(staging.parent.name)
        begun.set()
        assert ended.wait(SECONDS)
        raise ExportRefused("the verifying process ended with -9")

    monkeypatch.setattr(exporter, "verify_export", verify)
    monkeypatch.setattr(CleanProcess, "close", lambda self: ended.set())

    def interrupted() -> None:
        with Proofs(processors=1) as held:
            for name in ("a", "b"):
                held.submit(written(tmp_path, name, world))
            assert begun.wait(SECONDS)
            raise KeyboardInterrupt

    (tmp_path / "b" / "7").mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert asked == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["7"]


def test_what_waits_for_a_place_is_not_proven_after_the_end(
    tmp_path: Path, world: Any, asked: list[str]
) -> None:
    held = Proofs(processors=1)
    with held.writing():
        future = held.submit(written(tmp_path, "a", world))
        with pytest.raises(TimeoutError):
            future.result(0.2)  # it waits
        held.close()
    with pytest.raises(ExportRefused, match="ended before"):
        future.result(SECONDS)
    assert not asked and not list(tmp_path.iterdir())


def test_a_large_one_is_waited_for(
    tmp_path: Path, world: Any, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()
    monkeypatch.setattr(proofs, "is_small", lambda _: begun.set() or False)
    with Proofs(processors=2) as held:
        future = held.submit(written(tmp_path, "a", world))
        assert begun.is_set() and future.done() and asked == ["a"]
