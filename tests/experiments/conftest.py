"""A small folder with the official KuaiRand-Pure file and column names."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

USERS, VIDEOS = 40, 25
DATES = (20220428, 20220429, 20220430, 20220501, 20220503)
PER_DATE = 120
_RANGES = (
    "user_active_degree",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
)
_FLAGS = ("is_lowactive_period", "is_live_streamer", "is_video_author")


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="session")
def kuairand_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tabs, five days; clicks depend on the user, the video and the tab."""
    folder = tmp_path_factory.mktemp("kuairand")
    draw = np.random.default_rng(0)
    taste, appeal = draw.normal(size=USERS), draw.normal(size=VIDEOS)
    users = [
        {
            "user_id": u,
            **{name: f"r{draw.integers(3)}" for name in _RANGES},
            **{name: draw.integers(2) for name in _FLAGS},
            **{
                f"onehot_feat{k}": "" if draw.random() < 0.1 else float(draw.integers(3))
                for k in range(18)
            },
        }
        for u in range(USERS - 1)  # the last user has no row
    ]
    videos = [
        {
            "video_id": v,
            "author_id": v // 2,
            "video_type": "AD" if v == 3 else "NORMAL",
            "upload_dt": f"2022-04-{1 + v % 5:02d}",
            "upload_type": "Kmovie",
            "visible_status": 0.0,
            "music_id": "" if v % 7 == 0 else v // 3,
            "music_type": 9.0,
            "tag": "1,2" if v % 4 == 0 else v % 4,
        }
        for v in range(VIDEOS)
    ]
    log = []
    for day, date in enumerate(DATES):
        # The last user and the last video are seen on the last day only.
        late = int(date == DATES[-1])
        for k in range(PER_DATE):
            u = int(draw.integers(USERS - 1 + late))
            v = int(draw.integers(VIDEOS - 1 + late))
            tab = int(draw.integers(2))
            chance = 1 / (1 + np.exp(-taste[u] - appeal[v] + tab))
            log.append(
                {
                    "user_id": u,
                    "video_id": v,
                    "date": date,
                    "time_ms": 1_651_000_000_000 + day * 86_400_000 + k * 1000,
                    "is_click": int(draw.random() < chance),
                    "tab": tab,
                }
            )
    # The files are not in order of time, and one row's clock disagrees with its date.
    log[5]["time_ms"] += 4 * 86_400_000
    draw.shuffle(log)  # type: ignore[arg-type]
    _write(folder / "log_standard_4_25_to_5_05_pure.csv", log)
    _write(folder / "user_features_pure.csv", users)
    _write(folder / "video_features_basic_pure.csv", videos)
    return folder
