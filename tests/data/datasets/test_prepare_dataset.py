"""prepare_dataset by name, and the synthetic log as a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lfm4ads_tf.data.datasets import DATASETS, prepare_dataset
from lfm4ads_tf.data.raw import load_raw
from lfm4ads_tf.data.sources import read_table
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.spec_file import load_spec
from lfm4ads_tf.files import staged_folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_unknown_name_and_option(tmp_path: Path) -> None:
    assert sorted(DATASETS) == ["census", "kuairand", "movielens", "synthetic"]
    with pytest.raises(UserError, match="Did you mean 'movielens'"):
        prepare_dataset("movielen", None, tmp_path)
    with pytest.raises(UserError, match="no option 'row'. Did you mean 'rows'"):
        prepare_dataset("synthetic", None, tmp_path, row=5)
    with pytest.raises(UserError, match="no option 'rows'"):
        prepare_dataset("kuairand", None, tmp_path, rows=5)
    with pytest.raises(UserError, match="at least 1 row"):
        prepare_dataset("synthetic", None, tmp_path, rows=0)
    assert not list(tmp_path.iterdir())


def test_synthetic_is_generated_once_and_by_its_seed(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = prepare_dataset("synthetic", None, cache, quiet=True, rows=2_000, seed=3)
    assert first == cache / "synthetic-2000-3"
    assert {"log.parquet", "users.parquet", "ads.parquet"} <= set(contents(first))
    assert read_table([first / "log.parquet"], {"user_id": "string"}).num_rows == 2_000
    written = (first / "log.parquet").stat().st_mtime_ns
    assert prepare_dataset("synthetic", None, cache, rows=2_000, seed=3) == first
    assert (first / "log.parquet").stat().st_mtime_ns == written
    again = prepare_dataset("synthetic", None, tmp_path / "other", rows=2_000, seed=3)
    assert contents(again) == contents(first)
    another = prepare_dataset("synthetic", None, cache, rows=2_000, seed=4)
    assert contents(another)["log.parquet"] != contents(first)["log.parquet"]
    assert sorted(path.name for path in cache.iterdir()) == ["synthetic-2000-3", "synthetic-2000-4"]


def test_synthetic_options_are_in_the_name_of_the_folder(tmp_path: Path) -> None:
    keys = {"rows": 500, "task_agreement": 0, "like_rate": 0.2}
    found = prepare_dataset("synthetic", None, tmp_path, **keys)
    assert found == tmp_path / "synthetic-500-0-task_agreement=0.0-like_rate=0.2"
    assert prepare_dataset("synthetic", None, tmp_path, **keys, scenario_agreement=None) == found
    for wrong in ("half", True):
        with pytest.raises(UserError, match="'task_agreement' is no number"):
            prepare_dataset("synthetic", None, tmp_path, rows=500, task_agreement=wrong)
    assert list(tmp_path.iterdir()) == [found]


def test_the_synthetic_spec_takes_likes_as_a_task(tmp_path: Path) -> None:
    options = {"rows": 2_000, "task_agreement": 0.5, "like_rate": 0.2}
    over = {
        "dataset_options": options,
        "tasks": {"like": "like"},
        "best_possible": {"like": "p_like"},
    }
    spec = load_spec("synthetic", over)
    folder = prepare_dataset("synthetic", None, tmp_path, **spec.dataset_options)
    raw, log = load_raw(spec, folder), pq.read_table(folder / "log.parquet")
    assert spec.task_names == ["click", "conversion", "like"]
    np.testing.assert_array_equal(raw.labels[:, 2], log["like"].to_numpy())
    assert raw.best_possible is not None
    np.testing.assert_allclose(raw.best_possible[:, 2], log["p_like"].to_numpy(), rtol=2**-23)
    del options["task_agreement"], options["like_rate"]
    plain = prepare_dataset("synthetic", None, tmp_path, **options)
    with pytest.raises(UserError, match="Column 'like' is missing"):
        load_raw(spec, plain)


def test_synthetic_from_a_given_folder(tmp_path: Path) -> None:
    given = prepare_dataset("synthetic", None, tmp_path / "made", rows=500, seed=1)
    assert prepare_dataset("synthetic", given, tmp_path / "cache", rows=9, seed=9) == given
    assert not (tmp_path / "cache").exists()
    (given / "ads.parquet").unlink()
    with pytest.raises(UserError, match="missing ads.parquet"):
        prepare_dataset("synthetic", given, tmp_path / "cache")


def test_staged_folder_is_all_or_nothing(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with pytest.raises(RuntimeError, match="stop"), staged_folder(target) as staging:
        (staging / "half").write_text("")
        raise RuntimeError("stop")
    assert not list(tmp_path.iterdir())
    for text in ("old", "new"):
        with staged_folder(target) as staging:
            (staging / text).write_text(text)
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert [path.name for path in target.iterdir()] == ["new"]


def test_staged_folder_in_an_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="cannot be written"),
        staged_folder(tmp_path / "file" / "x"),
    ):
        pytest.fail("the block must not run")
