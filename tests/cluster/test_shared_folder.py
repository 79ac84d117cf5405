from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lfm4ads_tf.cluster import shared_folder
from lfm4ads_tf.cluster.task import Task
from lfm4ads_tf.errors import UserError

DEVICES = {Task("ps", 0): "third", Task("worker", 0): "first", Task("worker", 1): "second"}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Device -> what its process answers otherwise than this one would."""
    others: dict[str, dict[str, Any]] = {}

    def asked(path: str, device: str) -> bytes:
        answer = json.loads(shared_folder.seen(path.encode()))
        return json.dumps(answer | others.get(device, {})).encode()

    monkeypatch.setattr(shared_folder, "_asked", asked)
    return others


@pytest.mark.parametrize(
    ("device", "answer", "message"),
    [
        ("second", {"seen": False}, "worker:1 on .* does not see the chief's folder"),
        ("first", {"version": "0.0"}, "worker:0 on .* runs another version"),
        ("third", {"version": "0.0"}, "ps:0 on .* runs another version"),
        ("third", {"kernels": False}, "ps:0 on .* has no compiled kernels"),
        ("second", {"kernels": False}, "worker:1 on .* has no compiled kernels"),
    ],
)
def test_a_process_that_does_not_fit_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answers: dict[str, dict[str, Any]],
    device: str,
    answer: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setattr(shared_folder, "library", lambda: object())
    answers[device] = answer
    with pytest.raises(UserError, match=message):
        shared_folder.require_shared(tmp_path, DEVICES)
    assert not [*tmp_path.iterdir()]


def test_servers_need_not_see_the_folder_nor_kernels_that_the_chief_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, dict[str, Any]]
) -> None:
    answers["third"] = {"seen": False}
    shared_folder.require_shared(tmp_path, DEVICES)
    monkeypatch.setattr(shared_folder, "library", lambda: None)
    for device in ("first", "second", "third"):
        answers[device] = {"kernels": False, "seen": device != "third"}
    shared_folder.require_shared(tmp_path, DEVICES)
