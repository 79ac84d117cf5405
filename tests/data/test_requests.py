from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from lfm4ads_tf.data.requests import complete, read_requests
from lfm4ads_tf.data.splits import TEST
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.offline import encode_columns


def log_rows(ads: Any) -> tuple[np.ndarray, pa.Table]:
    """Test rows as a user would send them: keys and the log's own columns."""
    rows = np.flatnonzero(ads.raw.split == TEST)
    names = ["user_id", "item_id", "tab", "hour"]
    return rows, pa.table({n: ads.raw.columns[n].take(pa.array(rows)) for n in names})


def encoded(ads: Any, path: Path) -> dict[str, Any]:
    encoder = Encoder(ads.spec, FittedEncoding.load(ads.folder / "encoding"))
    rows = read_requests(ads.spec, ads.folder, path)
    return encode_columns(encoder, complete(ads.spec, ads.folder, encoder, rows))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_new_rows_get_the_cached_values(ads: Any, tmp_path: Path, suffix: str) -> None:
    rows, table = log_rows(ads)
    path = tmp_path / f"rows.{suffix}"
    if suffix == "csv":
        pacsv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    found, cached = encoded(ads, path), ads.cache.take(rows, "frozen")
    for key in ("ids", "dense", "scenario"):
        assert np.array_equal(found[key], cached[key]), key
    for name, bag in cached["bags"].items():
        assert np.array_equal(found["bags"][name][0], bag.values), name
        assert np.array_equal(found["bags"][name][1], bag.splits), name


def test_a_side_column_in_the_rows_goes_before_the_stored_one(ads: Any, tmp_path: Path) -> None:
    _, table = log_rows(ads)
    brands = pa.array(["never seen"] * len(table))
    pq.write_table(table.append_column("brand", brands), tmp_path / "rows.parquet")
    rows = read_requests(ads.spec, ads.folder, tmp_path / "rows.parquet")
    assert rows["brand"].to_pylist() == ["never seen"] * len(table)
    assert rows["segment"].null_count < len(table)


def test_a_missing_column_is_named(ads: Any, tmp_path: Path) -> None:
    _, table = log_rows(ads)
    renamed = table.rename_columns(["user_id", "item_id", "tab", "hours"])
    pq.write_table(renamed, tmp_path / "rows.parquet")
    with pytest.raises(UserError, match="lack the column 'hour'.*Did you mean 'hours'"):
        read_requests(ads.spec, ads.folder, tmp_path / "rows.parquet")


def test_keys_that_a_feature_reads_as_integers(make_ads: Any, tmp_path: Path) -> None:
    """The user key is an identity feature: joins still go by its text."""

    def number(tables: Any) -> None:
        for name in ("log", "users", "history"):
            for row in tables[name]:
                row["user_id"] = row["user_id"].removeprefix("u")

    features = {
        "user_id": {"owner": "user", "kind": "identity", "size": 50},
        "segment": {"owner": "user", "kind": "hashed", "buckets": 7},
        "user_click": {"owner": "user", "kind": "statistic", "task": "click", "keys": ["user"]},
        "clicked": {
            "owner": "user",
            "kind": "sequence",
            "events_of": "click",
            "table": "item_id",
        },
        "item_id": {"owner": "item", "kind": "vocabulary"},
    }
    world = make_ads(number, features=features)
    rows = np.flatnonzero(world.raw.split == TEST)
    names = ["user_id", "item_id", "tab"]
    table = pa.table({n: world.raw.columns[n].take(pa.array(rows)) for n in names})
    pacsv.write_csv(table, tmp_path / "rows.csv")
    found, cached = encoded(world, tmp_path / "rows.csv"), world.cache.take(rows, "frozen")
    assert (found["ids"][:, 0] >= 0).all()
    assert np.array_equal(found["ids"], cached["ids"])
    assert np.array_equal(found["dense"], cached["dense"])
    assert np.array_equal(found["bags"]["clicked"][0], cached["bags"]["clicked"].values)
