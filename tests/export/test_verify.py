"""Verification: what is blessed, and every reason to refuse."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from export import verify_child
from export.verify import find_exports, main, verify_export
from export.warmup import read_warmup
from lfm4ads_tf.errors import ExportRefused

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(exports: Path, tmp_path: Path) -> Path:
    target = tmp_path / "model" / "1"
    shutil.copytree(exports / "user_tower" / "1", target)
    return target


def run_cli(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "export.verify", str(path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_command_line_blesses_an_export(exports: Path) -> None:
    done = run_cli(exports / "ranker_tab 1")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("ranker_tab 1/1: blessed; 41 rows") and "5 warm-up requests" in line


def test_refusal_is_the_last_line_and_exit_3(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage_warmup(copy)
    assert main([str(copy.parent)]) == 3
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("model/1 refused: the warm-up file is damaged: record 4 cannot be read")


def test_nothing_to_verify_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "absent")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert "No SavedModel version lies in" in capsys.readouterr().err


def test_folders_of_every_level_are_understood(exports: Path) -> None:
    every = [
        exports / kind / "1" for kind in ("foundation", "item_tower", "ranker_tab 1", "user_tower")
    ]
    assert find_exports(exports) == every
    assert find_exports(exports / "foundation") == every[:1]
    assert find_exports(every[0]) == every[:1]


def test_versions_are_taken_in_numeric_order_and_staging_is_skipped(tmp_path: Path) -> None:
    for name in ("10", "9", ".staging-11-1"):
        (tmp_path / "model" / name).mkdir(parents=True)
    assert [p.name for p in find_exports(tmp_path)] == ["9", "10"]


def truncate_variables(folder: Path) -> None:
    data = next((folder / "variables").glob("*.data-*"))
    data.write_bytes(data.read_bytes()[:-100])


def remove_variables(folder: Path) -> None:
    shutil.rmtree(folder / "variables")


def damage_graph(folder: Path) -> None:
    graph = folder / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:5000])


def edit_graph(folder: Path, edit: Callable[[saved_model_pb2.SavedModel], None]) -> None:
    path = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    edit(saved)
    path.write_bytes(saved.SerializeToString())


def remove_signature(folder: Path) -> None:
    edit_graph(folder, lambda saved: saved.meta_graphs[0].signature_def.pop("predict"))


def use_unknown_op(folder: Path) -> None:
    def edit(saved: saved_model_pb2.SavedModel) -> None:
        library = saved.meta_graphs[0].graph_def.library
        next(n for f in library.function for n in f.node_def if n.op == "GatherV2").op = "MyGather"

    edit_graph(folder, edit)


def use_python_op(folder: Path) -> None:
    def edit(saved: saved_model_pb2.SavedModel) -> None:
        library = saved.meta_graphs[0].graph_def.library
        next(n for f in library.function for n in f.node_def if n.op == "GatherV2").op = "PyFunc"

    edit_graph(folder, edit)


def change_golden(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path = folder / "assets.extra" / "golden.npz"
    with np.load(path) as held:
        arrays = dict(held)
    arrays["scores/representation"] = change(arrays["scores/representation"])
    np.savez(path, **arrays)


def shift_score(folder: Path) -> None:
    def change(scores: np.ndarray) -> np.ndarray:
        scores[3, 2] += 1e-4
        return scores

    change_golden(folder, change)


def drop_row(folder: Path) -> None:
    change_golden(folder, lambda scores: scores[:-1])


def damage_golden(folder: Path) -> None:
    path = folder / "assets.extra" / "golden.npz"
    path.write_bytes(path.read_bytes()[:200])


def remove_golden(folder: Path) -> None:
    (folder / "assets.extra" / "golden.npz").unlink()


def damage_warmup(folder: Path) -> None:
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    path.write_bytes(path.read_bytes()[:-3])


REASONS: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated variables": (truncate_variables, "^cannot be loaded: "),
    "no variables": (remove_variables, "^cannot be loaded: "),
    "damaged graph": (damage_graph, "^cannot be loaded: saved_model.pb is damaged"),
    "no signature": (remove_signature, "^the signature 'predict' is missing$"),
    "unknown op": (use_unknown_op, "^ops that a stock server does not have: MyGather$"),
    "python op": (use_python_op, "^ops that a stock server does not have: PyFunc$"),
    "other score": (shift_score, "^the scores differ .* by 0.0001 in row 3 "),
    "other rows": (drop_row, r"^'representation' of 'serving_default' is float32 \(41, 6\), "),
    "no golden": (remove_golden, "^there is no golden file "),
    "damaged golden": (damage_golden, "^the golden file cannot be read"),
}


def test_the_undamaged_copy_is_blessed(copy: Path) -> None:
    report = verify_child.verify(copy, [])
    assert report["rows_compared"] == 41 and report["largest_difference"] <= 1e-6


@pytest.mark.parametrize("cause", REASONS)
def test_reason_of_refusal(cause: str, copy: Path) -> None:
    damage, message = REASONS[cause]
    damage(copy)
    with pytest.raises(verify_child.Refused, match=message):
        verify_child.verify(copy, [])


def test_warmup_replays_real_rows_on_the_default_signature(copy: Path) -> None:
    verified_columns = ("user_id", "income", "age", "segments", "history", "pages")
    records = read_warmup(copy)
    assert len(records) == 5
    for signature, inputs in records:
        assert signature == "serving_default" and inputs.keys() == {"examples"}
        (example,) = verify_child.tensor_of(inputs["examples"]).numpy()
        columns = set(tf.train.Example.FromString(example).features.feature)
        assert columns and columns <= set(verified_columns)


def test_warmup_of_another_kind_is_refused(copy: Path) -> None:
    with tf.io.TFRecordWriter(str(copy / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        writer.write(b"\x0a\x00")  # a PredictionLog that holds a Classify request
    with pytest.raises(ExportRefused, match="record 0 is no Predict request"):
        verify_export(copy)
