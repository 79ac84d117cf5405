"""The command line of the rollback."""

from __future__ import annotations

from pathlib import Path

import pytest

from lfm4ads_tf.export.blessing import BLESSING_FILE, bless, file_digests
from lfm4ads_tf.export.publishing import new_staging, publish, versions
from lfm4ads_tf.export.rollback import main


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model with the versions 1, 2 and 3."""
    folder = tmp_path / "ranker"
    for _ in range(3):
        staging = new_staging(folder)
        (staging / "saved_model.pb").write_text("graph", encoding="utf-8")
        bless(staging, {"files": file_digests(staging)}, model="ranker")
        publish(staging, folder)
    return folder


def test_goes_back_and_forth(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model)]) == 0
    out = capsys.readouterr().out
    assert "ranker: the newest version is 2; taken out: 3" in out and "--restore 3" in out
    assert main([str(model), "--to", "1"]) == 0
    assert versions(model) == [1]
    assert main([str(model), "--restore", "3"]) == 0
    assert "version 3 is back in service" in capsys.readouterr().out
    assert versions(model) == [1, 3]


def test_refusal_is_the_last_line_and_exit_3(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model / "2" / BLESSING_FILE).unlink()
    assert main([str(model)]) == 3
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("ranker refused: version 2 cannot be served: there is no blessing.json")
    assert versions(model) == [1, 2, 3]
    assert main([str(model), "--to", "1"]) == 0
    assert main([str(model)]) == 3
    assert "nothing would be left" in capsys.readouterr().out.splitlines()[-1]


def test_unusable_arguments_are_exit_2(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model / "absent")]) == 2
    assert main([str(model), "--to", "9"]) == 2
    assert main([str(model), "--restore", "1"]) == 2
    error = capsys.readouterr().err
    assert "There is no folder" in error and "no version 9" in error and "not rolled back" in error
