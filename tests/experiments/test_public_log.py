"""Factorisation over all rows, order and split."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from lfm4ads_tf.config import resolve
from lfm4ads_tf.experiments.kuairand import SPEC
from lfm4ads_tf.experiments.public_log import PublicLog, read_public_log


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read(folder: Path) -> tuple[PublicLog, list[dict[str, str]]]:
    raw = rows_of(folder / "log_standard_4_25_to_5_05_pure.csv")
    log = read_public_log(resolve(SPEC).spec, folder)
    return log, sorted(raw, key=lambda row: int(row["time_ms"]))


def test_codes_are_one_to_one_with_values(kuairand_folder: Path) -> None:
    log, raw = read(kuairand_folder)
    videos = {v["video_id"]: v for v in rows_of(kuairand_folder / "video_features_basic_pure.csv")}
    users = {u["user_id"]: u for u in rows_of(kuairand_folder / "user_features_pure.csv")}
    assert log.ids.shape == (len(raw), 36) and log.user_fields == 27
    # Test rows, the user without a row of features and missing values included.
    columns = {
        0: [row["user_id"] for row in raw],
        9: [users.get(row["user_id"], {}).get("onehot_feat0", "") for row in raw],
        27: [row["video_id"] for row in raw],
        33: [videos[row["video_id"]]["music_id"] for row in raw],
    }
    assert "" in columns[9] and "" in columns[33]
    for column, values in columns.items():
        pairs = set(zip(log.ids[:, column].tolist(), values, strict=True))
        assert len(pairs) == len(set(values)) == log.sizes[column]
    np.testing.assert_array_equal(log.user, log.ids[:, 0])
    offsets = np.concatenate([[0], np.cumsum(log.sizes)])
    np.testing.assert_array_equal(log.ids.min(axis=0), offsets[:-1])
    np.testing.assert_array_equal(log.ids.max(axis=0), offsets[1:] - 1)


def test_rows_go_by_time_and_splits_by_date(kuairand_folder: Path) -> None:
    log, raw = read(kuairand_folder)
    np.testing.assert_array_equal(log.labels, [int(row["is_click"]) for row in raw])
    assert [log.tabs[tab] for tab in log.tab] == [row["tab"] for row in raw]
    split = np.digitize([int(row["date"]) for row in raw], [20220501, 20220503])
    assert (np.diff(split) < 0).any(), "a clock disagrees with its date"
    tab = np.array([row["tab"] for row in raw])
    for k, name in enumerate(("train", "valid", "test")):
        np.testing.assert_array_equal(log.rows(name), np.flatnonzero(split == k))
        np.testing.assert_array_equal(
            log.rows(name, "1"), np.flatnonzero((split == k) & (tab == "1"))
        )
