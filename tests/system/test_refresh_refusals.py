"""What `train.py refresh` and the stages on a version refuse."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm4ads_tf.data.splits import TRAIN
from lfm4ads_tf.representations.store import RepresentationStore
from tests.quick_proof import quick_proof

pytestmark = pytest.mark.slow  # of a run that is trained and refreshed


def mixed(refreshed_copy: Path, what: str) -> Path:
    """A second version with a part of the first one's put into it."""
    second = refreshed_copy / "versions" / "2"
    shutil.rmtree(second / what, ignore_errors=True)
    shutil.copytree(refreshed_copy / what, second / what)
    return second


@pytest.mark.parametrize("command", ["predict", "export", "transfer"])
def test_a_downstream_of_another_version_is_refused(
    refreshed: Any, refreshed_copy: Path, cli: Callable[..., Any], tmp_path: Path, command: str
) -> None:
    second = mixed(refreshed_copy, "downstream")
    versions = [
        RepresentationStore(v / "representations" / "seed_0").version
        for v in (refreshed_copy, second)
    ]
    method = ["--set", "export.method=feature/linear/UR"]
    if command == "predict":
        text = (second / "config.yaml").read_text("utf-8")
        text = text.replace("    method: null", "    method: feature/linear/UR")
        (second / "config.yaml").write_text(text, "utf-8")
        arguments = ["--model", "ranker_home", "--input", str(refreshed.days[7] / "shop.csv")]
        arguments += ["--output", str(tmp_path / "scores.parquet")]
    elif command == "export":
        # The foundation model is not the matter here.
        arguments = [*refreshed.options, *method]
        from lfm4ads_tf.export import stage

        with quick_proof(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(stage._Exports, "is_due", lambda self, name, source: "ranker" in name)
            done = cli(command, "--out", second, *arguments)
        assert not (refreshed_copy / "exports").exists()
    else:
        arguments = refreshed.options
    if command != "export":
        done = cli(command, "--out", second, *arguments)
    assert done.code == 2, done.text
    assert all(version in done.err.replace("\n", "") for version in versions), done.err
    assert "train the model anew" in done.err
    assert not (tmp_path / "scores.parquet").exists()


def test_representations_of_another_version_are_refused(
    refreshed: Any, refreshed_copy: Path, cli: Callable[..., Any]
) -> None:
    second = refreshed_copy / "versions" / "2"
    expected = RepresentationStore(second / "representations" / "seed_0").version
    mixed(refreshed_copy, "representations")
    done = cli("transfer", *refreshed.options, "--out", second)
    assert done.code == 2, done.text
    assert expected in done.err and "seed_0-" in done.err and "Fix:" in done.err


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("earlier", "not later than the run's"),
        ("column", "lack the column 'age_group'"),
        ("empty", "has no data rows"),
        ("absent", "no such file"),
        ("unextracted", "run the stage `extract` first"),
        ("untrained", "run the stages `pretrain` and `extract` first"),
        ("version", "a version's folder"),
        ("neither", "by either --input or --data-dir"),
        ("event", "mode 'event' cannot be refreshed"),
        ("scenario", "of a scenario that the model knows"),
    ],
)
def test_what_cannot_be_refreshed_is_refused(
    refreshed: Any,
    refreshed_copy: Path,
    cli: Callable[..., Any],
    tmp_path: Path,
    case: str,
    message: str,
) -> None:
    lines = (refreshed.days[7] / "shop.csv").read_text("utf-8").splitlines()
    if case == "earlier":
        lines += (refreshed.days[6] / "shop.csv").read_text("utf-8").splitlines()[1:]
    elif case == "column":
        lines[0] = lines[0].replace("age_group", "age_grp")
    elif case == "empty":
        lines = lines[:1]
    elif case == "scenario":
        lines = [re.sub(",(home|search|mail),", ",elsewhere,", line) for line in lines]
    rows = tmp_path / "rows.csv"
    if case != "absent":
        rows.write_text("\n".join(lines) + "\n", "utf-8")
    out, newest = refreshed_copy, refreshed_copy / "versions" / "2"
    if case == "unextracted":
        shutil.rmtree(newest / "representations")
    elif case == "untrained":
        shutil.rmtree(newest / "upstream")
    elif case == "version":
        out = newest
    elif case == "event":
        for folder in (refreshed_copy, newest):
            text = (folder / "config.yaml").read_text("utf-8")
            text = text.replace("    mode: daily", "    mode: event")
            text = text.replace("    layers: null", "    layers: [dnn_1]")
            (folder / "config.yaml").write_text(text, "utf-8")
    before = refreshed.digests(refreshed_copy)
    arguments = [] if case == "neither" else ["--input", rows]
    done = cli("refresh", "--out", out, *arguments, "--quiet")
    assert done.code == 2, done.text
    assert message in done.err.replace("\n", " "), done.err
    assert "Fix:" in done.err or case == "neither"
    assert "Traceback" not in done.text
    there = {p.name for p in (refreshed_copy / "versions").iterdir()}
    assert there - {".3.unfinished"} == {"2"}
    assert not (refreshed_copy / "versions" / ".3.unfinished" / "data").exists()
    assert refreshed.digests(refreshed_copy) == before


def test_a_split_that_is_not_by_periods_is_refused(
    refreshed: Any, refreshed_copy: Path, cli: Callable[..., Any]
) -> None:
    path = refreshed_copy / "versions" / "2" / "data" / "split.npy"
    split = np.load(path)
    split[-1] = TRAIN
    np.save(path, split)
    rows = refreshed.days[7] / "shop.csv"
    done = cli("refresh", "--out", refreshed_copy, "--input", rows, "--quiet")
    assert done.code == 2 and "split by periods" in done.err


def test_data_of_a_version_come_from_refreshes_alone(
    refreshed: Any, refreshed_copy: Path, cli: Callable[..., Any]
) -> None:
    second = refreshed_copy / "versions" / "2"
    done = cli("prepare", *refreshed.options, "--data-dir", refreshed.data, "--out", second)
    assert done.code == 2 and "come from its refreshes" in done.err
