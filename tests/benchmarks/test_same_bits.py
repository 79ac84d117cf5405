"""Two run folders side by side."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from benchmarks.same_bits import differences, main


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A folder with a file of each kind, and a copy."""
    before = tmp_path / "before"
    (before / "upstream" / "weights").mkdir(parents=True)
    np.save(before / "upstream" / "table.npy", np.float32([[1, np.nan]]))
    np.savez(before / "upstream" / "predictions.npz", test_frozen=np.float32([0.25, 0.5]))
    pq.write_table(pa.table({"key": ["a", "b"]}), before / "part.parquet")
    results = {"entries": [{"auc": 0.7, "wall_s": 3.0}, {"auc": None, "wall_s": 1.0}]}
    (before / "upstream" / "results.json").write_text(json.dumps(results))
    checkpoint = tf.train.Checkpoint(w=tf.Variable([1.0, 2.0]))
    checkpoint.write(str(before / "upstream" / "weights" / "weights"))
    module = tf.Module()
    module.scale = tf.Variable(2.0)
    module.serve = tf.function(
        lambda x: {"y": module.scale * x}, input_signature=[tf.TensorSpec([None], name="x")]
    )
    version = before / "exports" / "ranker" / "1"
    tf.saved_model.save(module, str(version), signatures={"serving_default": module.serve})
    (version / "assets.extra").mkdir()
    proto = np.frombuffer(tf.make_tensor_proto(np.float32([1, 3])).SerializeToString(), np.uint8)
    np.savez(version / "assets.extra" / "golden.npz", **{"requests/serving_default/x": proto})
    after = Path(shutil.copytree(before, tmp_path / "after"))
    return before, after


def test_a_copy_is_the_same_and_every_kind_of_file_counts(folders: tuple[Path, Path]) -> None:
    told: Counter[str] = Counter()
    assert not list(differences(*folders, told))
    assert set(told) == {"*.npy", "*.npz", "*.parquet", "*.index", "*.json", "exports"}


def test_times_and_added_keys_are_no_difference(folders: tuple[Path, Path]) -> None:
    path = folders[1] / "upstream" / "results.json"
    document = json.loads(path.read_text())
    document["entries"][0] |= {"wall_s": 9.0, "losses": {"tasks": 0.1}}
    path.write_text(json.dumps(document))
    told: Counter[str] = Counter()
    assert not list(differences(*folders, told))
    assert told["added key losses"] == 1


def _one_bit_more(path: Path) -> None:
    array = np.load(path)
    array[0, 0] = np.nextafter(array[0, 0], np.float32(2))
    np.save(path, array)


def _other_weights(path: Path) -> None:
    tf.train.Checkpoint(w=tf.Variable([1.0, 2.5])).write(str(path / "weights"))


def _other_export(path: Path) -> None:
    module = tf.Module()
    module.serve = tf.function(
        lambda x: {"y": 3.0 * x}, input_signature=[tf.TensorSpec([None], name="x")]
    )
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        ("upstream/table.npy", _one_bit_more, "differs by up to 1.19e-07"),
        ("upstream/table.npy", Path.unlink, "only in"),
        ("upstream/weights", _other_weights, "w/.ATTRIBUTES/VARIABLE_VALUE differs by up to 0.5"),
        (
            "upstream/predictions.npz",
            lambda p: np.savez(p, test_frozen=np.float32([0.25])),
            "float32(2,) and float32(1,)",
        ),
        (
            "part.parquet",
            lambda p: pq.write_table(pa.table({"key": ["a", "c"]}), p),
            "other rows",
        ),
        (
            "upstream/results.json",
            lambda p: p.write_text(p.read_text().replace("0.7", "0.71")),
            ".entries[0].auc is 0.7 and 0.71",
        ),
        ("exports/ranker/1", _other_export, "y differs by up to 3"),
    ],
)
def test_what_differs_is_told(
    folders: tuple[Path, Path], place: str, change: object, message: str
) -> None:
    assert callable(change)
    change(folders[1] / place)
    wrong = list(differences(*folders, Counter()))
    assert len(wrong) == 1 and message in wrong[0], wrong


def _code(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> object:
    monkeypatch.setattr(sys, "argv", ["same_bits", *map(str, folders)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_the_exit_code_tells_a_difference_and_that_there_is_nothing_to_compare(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _code(monkeypatch, *folders) == 0
    _one_bit_more(folders[1] / "upstream" / "table.npy")
    assert _code(monkeypatch, *folders) == 1
    assert _code(monkeypatch, tmp_path / "none", tmp_path / "none_either") == 2
