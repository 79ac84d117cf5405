"""Versions appear and disappear by one rename, and only when they are blessed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lfm4ads_tf.errors import ExportRefused, UserError
from lfm4ads_tf.export import publishing
from lfm4ads_tf.export.blessing import BLESSING_FILE, bless, file_digests, read_blessing
from lfm4ads_tf.export.publishing import (
    clear_leftovers,
    new_staging,
    next_version,
    publish,
    restore,
    roll_back,
    rolled_back_versions,
    versions,
)
from lfm4ads_tf.export.version_folders import version_folders

ROOT = Path(__file__).parents[2]


def staged(folder: Path, text: str = "weights") -> Path:
    """A blessed staging folder."""
    staging = new_staging(folder)
    (staging / "variables").mkdir()
    (staging / "saved_model.pb").write_text("graph", encoding="utf-8")
    (staging / "variables" / "data").write_text(text, encoding="utf-8")
    bless(staging, {"files": file_digests(staging)}, model="m")
    return staging


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model with the versions 1, 2 and 3."""
    folder = tmp_path / "m"
    for _ in range(3):
        publish(staged(folder), folder)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_versions_count_up_and_keep_their_files(model: Path) -> None:
    assert names(model) == ["1", "2", "3"]
    assert read_blessing(model / "3")["model"] == "m"
    assert publish(staged(model), model, 7) == model / "7"
    assert publish(staged(model), model) == model / "8"


def remove_blessing(staging: Path) -> None:
    (staging / BLESSING_FILE).unlink()


def deny(staging: Path) -> None:
    edit(staging, blessed=False)


def damage_blessing(staging: Path) -> None:
    (staging / BLESSING_FILE).write_text("{", encoding="utf-8")


def forget_files(staging: Path) -> None:
    edit(staging, files=None)


def forge_digest(staging: Path) -> None:
    edit(staging, files={**file_digests(staging), "saved_model.pb": "0" * 64})


def change_weights(staging: Path) -> None:
    (staging / "variables" / "data").write_text("Weights", encoding="utf-8")


def remove_weights(staging: Path) -> None:
    (staging / "variables" / "data").unlink()


def add_file(staging: Path) -> None:
    (staging / "variables" / "more").write_text("", encoding="utf-8")


def link_file(staging: Path) -> None:
    """What the link points at is the same: it may not stay so."""
    elsewhere = staging.parents[1] / "data"
    (staging / "variables" / "data").rename(elsewhere)
    (staging / "variables" / "data").symlink_to(elsewhere)


def link_folder(staging: Path) -> None:
    (staging / "assets").symlink_to(staging / "variables")


def edit(staging: Path, **changes: object) -> None:
    path = staging / BLESSING_FILE
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")


UNBLESSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "no blessing": (remove_blessing, "^there is no blessing.json: it was not verified$"),
    "denied": (deny, "^its blessing.json does not say that it is blessed$"),
    "damaged": (damage_blessing, "^its blessing.json cannot be read "),
    "no files": (forget_files, "^its blessing.json cannot be read "),
    "forged": (forge_digest, "^the file 'saved_model.pb' has changed since it was blessed$"),
    "changed": (change_weights, "^the file 'variables/data' has changed since it was blessed$"),
    "removed": (remove_weights, "^the file 'variables/data' that was blessed is missing$"),
    "added": (add_file, "^the file 'variables/more' was not there when it was blessed$"),
    "link": (link_file, "^'variables/data' is a symbolic link; a version holds its files itself$"),
    "link to a folder": (link_folder, "^'assets' is a symbolic link; "),
    "another model's": (
        lambda staging: edit(staging, model="n"),
        "^its blessing.json is that of the model 'n', not of 'm'$",
    ),
    "nobody's": (
        lambda staging: edit(staging, model=None),
        "^its blessing.json is that of the model 'None', not of 'm'$",
    ),
}


@pytest.mark.parametrize("cause", UNBLESSED)
def test_what_is_not_blessed_is_not_published(cause: str, model: Path) -> None:
    damage, message = UNBLESSED[cause]
    staging = staged(model)
    damage(staging)
    with pytest.raises(ExportRefused, match=message):
        publish(staging, model)
    assert versions(model) == [1, 2, 3] and staging.exists()


def test_no_number_is_used_twice(model: Path) -> None:
    assert roll_back(model, 1) == [2, 3]
    assert next_version(model) == 4
    staging = staged(model)
    with pytest.raises(UserError, match="Version 3 of 'm' exists already"):
        publish(staging, model, 3)
    assert publish(staging, model, keep=1) == model / "4"
    assert names(model) == ["4"]  # the rolled back ones are older than what is kept
    with pytest.raises(UserError, match="Version 2 of 'm' comes too late"):
        publish(staged(model), model, 2)


def test_the_newest_are_kept(model: Path) -> None:
    publish(staged(model), model, keep=3)
    assert versions(model) == [2, 3, 4]
    roll_back(model, 3)
    publish(staged(model), model, keep=2)
    assert versions(model) == [3, 5] and rolled_back_versions(model) == [4]
    with pytest.raises(UserError, match="At least one version"):
        publish(staged(model), model, keep=0)


def test_a_version_that_cannot_be_deleted_does_not_undo_the_new_one(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Path) -> None:
        raise PermissionError("read only")

    staging = staged(model)
    monkeypatch.setattr(publishing.shutil, "rmtree", fail)
    assert publish(staging, model, keep=3) == model / "4"
    assert versions(model) == [2, 3, 4] and "version 1 of m is not deleted" in caplog.text


def test_publishing_at_once_gives_each_a_number_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    stagings = []
    for i in range(8):
        staged(folder).rename(folder / f".staging-x{i}-{os.getpid()}")
        stagings.append(folder / f".staging-x{i}-{os.getpid()}")
    with ThreadPoolExecutor(8) as threads:
        published = list(threads.map(lambda staging: publish(staging, folder), stagings))
    assert sorted(int(path.name) for path in published) == versions(folder) == list(range(1, 9))


_WRITER = """
import sys
from pathlib import Path
from lfm4ads_tf.export.publishing import new_staging
staging = new_staging(Path(sys.argv[1]))
with (staging / "saved_model.pb").open("wb") as file:
    while True:
        file.write(b"x" * 1000)
        file.flush()
        print("written", flush=True)
"""


def test_a_killed_export_leaves_no_version_and_the_next_one_cleans_up(model: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(model)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"written\n"
    running = f".staging-4-{socket.gethostname()}-{writer.pid}"
    clear_leftovers(model)
    assert names(model) == [running, "1", "2", "3"]  # a running one keeps its folder
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert (model / running / "saved_model.pb").stat().st_size > 0
    assert versions(model) == [1, 2, 3]
    new_staging(model).rmdir()
    assert names(model) == ["1", "2", "3"]


def test_another_hosts_export_is_left_alone_for_a_day(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = 999_999_999  # no process has this number
    mine = model / f".staging-4-{socket.gethostname()}-{gone}"
    others = [model / f".staging-4-an-other.host-{gone}", model / f".deleted-1-other-{os.getpid()}"]
    for folder in (mine, *others):
        folder.mkdir()
    clear_leftovers(model)
    assert not mine.exists() and all(folder.exists() for folder in others)
    now = time.time()
    monkeypatch.setattr(publishing.time, "time", lambda: now + 23 * 3600)
    clear_leftovers(model)
    assert all(folder.exists() for folder in others)
    monkeypatch.setattr(publishing.time, "time", lambda: now + 25 * 3600)
    clear_leftovers(model)
    assert names(model) == ["1", "2", "3"]


def test_a_version_of_another_model_is_not_taken_up(model: Path) -> None:
    """A copied folder, or a renamed one, brings its blessing along."""
    other = model.rename(model.with_name("n"))
    with pytest.raises(ExportRefused, match="version 2 cannot be served: .* model 'm', not of 'n'"):
        roll_back(other)
    (other / "3").rename(other / "rolled-back-3")
    with pytest.raises(ExportRefused, match="version 3 cannot be served: .* model 'm', not of 'n'"):
        restore(other, 3)
    assert names(other) == ["1", "2", "rolled-back-3"]
    assert read_blessing(other / "1")["model"] == "m"


def test_versions_are_folders_with_ascii_digits(tmp_path: Path) -> None:
    for name in (
        "10",
        "9",
        "007",
        "7",
        "\u00b2",
        "+4",
        "-1",
        "1.0",
        "rolled-back-12",
        ".staging-13",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / "11").touch()
    found = version_folders(tmp_path)
    assert list(found.items()) == [(n, tmp_path / str(n)) for n in (7, 9, 10)]
    assert version_folders(tmp_path, "rolled-back-") == {12: tmp_path / "rolled-back-12"}
    assert versions(tmp_path) == [7, 9, 10] and next_version(tmp_path) == 13
    assert version_folders(tmp_path / "absent") == {}


_EXPORTER = """
import importlib.util, sys
from pathlib import Path
found = importlib.util.spec_from_file_location("conftest_of_exports", sys.argv[1])
module = importlib.util.module_from_spec(found)
found.loader.exec_module(module)
world = module.World()
model = world.built(lambda: world.foundation(shards=1))
world.export("user_tower", model, Path(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("written", ["saved_model.pb", "assets.extra/contract.json"])
def test_a_killed_exporter_leaves_no_version(written: str, tmp_path: Path) -> None:
    """Killed while it writes, or while it verifies."""
    conftest = str(Path(__file__).with_name("conftest.py"))
    command = [sys.executable, "-c", _EXPORTER, conftest, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    folder = tmp_path / "user_tower"
    while not list(folder.glob(f".staging-1-*/{written}")):
        assert killed.poll() is None, "it ended before it was killed"
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert versions(folder) == [] and len(names(folder)) == 1
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stderr=subprocess.DEVNULL)
    assert names(folder) == ["1"]
    read_blessing(folder / "1")


def test_rolling_back_and_restoring(model: Path) -> None:
    publish(staged(model), model)
    assert roll_back(model) == [4]
    assert names(model) == ["1", "2", "3", "rolled-back-4"]
    assert roll_back(model, 1) == [2, 3]
    assert roll_back(model, 1) == []
    assert restore(model, 3) == model / "3"
    assert versions(model) == [1, 3] and rolled_back_versions(model) == [2, 4]


def test_the_newest_leaves_last(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of the latest version must not load one in between."""
    newest = []
    rename = os.rename

    def watched(source: Path, target: Path) -> None:
        rename(source, target)
        newest.append(versions(model)[-1])

    monkeypatch.setattr(publishing.os, "rename", watched)
    roll_back(model, 1)
    assert newest == [3, 1]


def test_what_cannot_be_rolled_back_is_said(model: Path) -> None:
    with pytest.raises(UserError, match="no version 9 of 'm' in service.\nReceived: .* 1, 2, 3"):
        roll_back(model, 9)
    with pytest.raises(UserError, match="Version 9 of 'm' was not rolled back"):
        restore(model, 9)
    remove_blessing(model / "2")
    with pytest.raises(ExportRefused, match="version 2 cannot be served: there is no blessing"):
        roll_back(model)
    roll_back(model, 1)
    with pytest.raises(ExportRefused, match="version 2 cannot be served: there is no blessing"):
        restore(model, 2)
    with pytest.raises(
        ExportRefused, match="nothing would be left to serve: there is version 1 al"
    ):
        roll_back(model)
    assert names(model) == ["1", "rolled-back-2", "rolled-back-3"]
