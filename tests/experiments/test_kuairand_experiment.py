"""The command, on a small folder of official files, under both schedules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from lfm4ads_tf.experiments import original_schedule
from lfm4ads_tf.experiments.kuairand import main
from lfm4ads_tf.experiments.public_method import METHODS

pytestmark = pytest.mark.slow

SMALL = [
    "--set=upstream.training.replay=0",
    "--set=downstream.training.epochs=1",
    "--set=retrieval.training.epochs=1",
]


def call(folder: Path, out: Path, *more: str) -> int:
    return main(["--data-dir", str(folder), "--out", str(out), "--quiet", *more])


def metrics(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "metrics.json").read_text("utf-8"))
    for entry in found["results"]:
        del entry["wall_s"]
    return found


@pytest.fixture(scope="module")
def eagerly() -> Iterator[None]:
    """Tracing 29 models would take longer than training them on so few rows."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def original(
    eagerly: None, kuairand_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("original") / "out"
    assert call(kuairand_folder, out, "--schedule", "original", "--tabs", "1") == 0
    return out


@pytest.mark.slow
def test_ours(kuairand_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--tabs", "1", *SMALL)
    assert call(kuairand_folder, tmp_path, *given, "--methods", "Vanilla,CR'_1") == 0
    results = list((tmp_path / "run" / "downstream").rglob("results.json"))
    before = {path: path.stat().st_mtime_ns for path in results}
    assert len(before) == 2
    chosen = "Vanilla,CR'_1,gate CR_3,IR & CR_5,Retriever"
    assert call(kuairand_folder, tmp_path, *given, "--methods", chosen) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert not list((tmp_path / "run" / "downstream").rglob("checkpoint"))
    tested = {
        e["label"]: e["metrics"]["auc"]
        for e in metrics(tmp_path)["results"]
        if e["split"] == "test" and e["scenario"] == "1"
    }
    assert set(tested) == {"upstream", *chosen.split(",")}
    assert all(0 < value < 1 for value in tested.values())
    assert "| gate CR_3 |" in capsys.readouterr().out


def test_original_has_every_method(original: Path) -> None:
    found = metrics(original)
    tested = [e for e in found["results"] if e["split"] == "test" and e["stage"] != "upstream"]
    assert {(e["method"], e["scenario"]) for e in tested} == {(m.name, "1") for m in METHODS}
    assert len(tested) == 29 and found["rows"] == {"train": 360, "valid": 120, "test": 120}
    assert all(0 <= e["metrics"]["auc"] <= 1 for e in tested)
    whole = [e for e in found["results"] if e["scenario"] == "all" and e["split"] == "test"]
    assert [(e["method"], e["rows"]) for e in whole] == [("upstream", 120)]
    for name in ("results.md", "curves.svg", "curves.png"):
        assert (original / name).stat().st_size > 1000


def test_original_goes_on_after_a_kill(
    kuairand_folder: Path, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = original_schedule.fit_original
    calls: list[str | None] = []

    def killed(model: Any, log: Any, tab: str | None) -> Any:
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(tab)
        return real(model, log, tab)

    monkeypatch.setattr(original_schedule, "fit_original", killed)
    given = ("--schedule", "original", "--tabs", "1,0", "--methods", "SUM,gate CR_3,IR & CR_4")
    assert call(kuairand_folder, tmp_path, *given) == 130
    assert calls == [None, "1", "0", "1"]
    assert not (tmp_path / "metrics.json").exists()

    def counted(model: Any, log: Any, tab: str | None) -> Any:
        calls.append(tab)
        return real(model, log, tab)

    monkeypatch.setattr(original_schedule, "fit_original", counted)
    assert call(kuairand_folder, tmp_path, *given) == 0
    assert calls[4:] == ["0", "1", "0"], "finished models are not trained again"
    uninterrupted = {
        (e["method"], e["scenario"], e["split"]): e["metrics"]["auc"]
        for e in metrics(original)["results"]
    }
    found = metrics(tmp_path)["results"]
    assert {e["scenario"] for e in found if e["method"] == "feature/linear/UR"} == {"0", "1"}
    for entry in found:
        key = (entry["method"], entry["scenario"], entry["split"])
        if key in uninterrupted:
            assert entry["metrics"]["auc"] == pytest.approx(uninterrupted[key], abs=1e-6)


def test_original_warns(
    kuairand_folder: Path, original: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert call(kuairand_folder, original, "--schedule", "original", "--tabs", "1") == 0
    assert "its ids know the test rows" in caplog.text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--methods", "gate CR3"], "Did you mean 'gate CR_3'"),
        (["--schedule", "original", "--tabs", "1,9"], "The tab '9' is unknown"),
        (["--tabs", ","], "--tabs names nothing"),
        (["--trials", "0"], "--trials must be at least 1"),
        (["--set", "downstream.nothing=1"], "nothing"),
    ],
)
def test_what_the_user_can_mend_exits_with_2(
    kuairand_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    message: str,
) -> None:
    assert call(kuairand_folder, tmp_path, *more) == 2
    text = capsys.readouterr().err
    assert text.startswith("Error: ") and message in text and "Traceback" not in text


def test_another_schedule_or_other_data_are_refused(
    kuairand_folder: Path, original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(kuairand_folder, original, "--schedule", "ours") == 2
    assert "holds the experiment with another schedule" in capsys.readouterr().err
    more = ("--schedule", "original", "--set", "split.train_until=20220430")
    assert call(kuairand_folder, original, *more) == 2
    assert "holds the experiment with another data" in capsys.readouterr().err
    other = tmp_path / "other"
    chosen = ("--schedule", "original", "--tabs", "1", "--methods", "IR & UR")
    assert call(kuairand_folder, other, *chosen) == 0
    left = other / "left"
    left.touch()
    assert call(kuairand_folder, other, *chosen, "--overwrite") == 0
    assert left.exists(), "the same experiment goes on"
    more = ("--overwrite", "--set", "split.train_until=20220430")
    assert call(kuairand_folder, other, *chosen, *more) == 0
    assert not left.exists()
    assert call(tmp_path, tmp_path / "out") == 2
    assert "does not hold the KuaiRand-Pure files" in capsys.readouterr().err
