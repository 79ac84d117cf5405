"""Logged rows: what was sent, and what training would have read in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.skew.logged_rows import read_logged_rows
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitted_encoding import FittedEncoding


@pytest.fixture(scope="module")
def encoder(ads: Any) -> Encoder:
    return Encoder(ads.spec, FittedEncoding.load(ads.folder / "encoding"))


def _log(path: Path, **more: Any) -> Path:
    rows = {
        "user_id": ["u1", "u2", "nobody"],
        "item_id": ["i1", "i2", "i3"],
        "tab": ["t0", "t1", "t0"],
        "hour": [1.0, 2.0, 3.0],
    }
    pq.write_table(pa.table({**rows, **more}), path)
    return path


def test_a_plain_log_is_sent_as_training_reads_it(
    ads: Any, encoder: Encoder, tmp_path: Path
) -> None:
    logged = read_logged_rows(ads.spec, ads.folder, _log(tmp_path / "log.parquet"), {})
    assert len(logged) == 3 and not logged.moving and not logged.tables and not logged.vectors
    offline = logged.offline(ads.spec, ads.folder, encoder)
    served = logged.served(offline)
    assert set(encoder.raw_types) <= set(served)
    for column in encoder.raw_types:
        assert served[column] is offline[column] or served[column].equals(offline[column])


def test_a_logged_column_of_a_side_table_is_sent_but_not_trained_on(
    ads: Any, encoder: Encoder, tmp_path: Path
) -> None:
    table = pq.read_table(ads.folder / "tables" / "users.parquet")
    of_u1 = table.filter(pa.compute.equal(table["user_id"], "u1"))["segment"].to_pylist()[0]
    path = _log(tmp_path / "log.parquet", segment=["sX", None, "s9"])
    logged = read_logged_rows(ads.spec, ads.folder, path, {})
    offline = logged.offline(ads.spec, ads.folder, encoder)
    served = logged.served(offline)
    assert served["segment"].to_pylist() == ["sX", None, "s9"]
    # the key without a row in the table keeps what the log says
    assert offline["segment"].to_pylist()[::2] == [of_u1, "s9"]
    assert list(logged.tables) == ["segment"]


def test_moving_columns_and_representations_are_sent_as_they_were_logged(
    ads: Any, encoder: Encoder, tmp_path: Path
) -> None:
    path = _log(
        tmp_path / "log.parquet",
        **{
            "user_click.rate": [0.5, None, 0.25],
            "clicked": [["i1", "i2"], [], None],
            "UR": [[1.0, 2.0], None, [3.0, 4.0]],
        },
    )
    logged = read_logged_rows(ads.spec, ads.folder, path, {"UR": 2, "IR": 2})
    offline = logged.offline(ads.spec, ads.folder, encoder)
    served = logged.served(offline)
    assert served["user_click.rate"].to_pylist() == [0.5, None, 0.25]
    assert served["clicked"].to_pylist() == [["i1", "i2"], [], []]
    assert offline["user_click.rate"][0] != 0.5
    np.testing.assert_array_equal(served["user_click.count"], offline["user_click.count"])
    np.testing.assert_array_equal(logged.vectors["UR"], [[1, 2], [0, 0], [3, 4]])
    assert "IR" not in logged.vectors
    last = logged.take(np.array([2]))
    assert last.numbers.tolist() == [2]
    assert last.moving["user_click.rate"].to_pylist() == [0.25]
    np.testing.assert_array_equal(last.vectors["UR"], [[3, 4]])


def test_a_vector_of_another_width_is_refused(ads: Any, tmp_path: Path) -> None:
    path = _log(tmp_path / "log.parquet", UR=[[1.0], [2.0], [3.0]])
    with pytest.raises(UserError, match="must hold vectors of 2 numbers"):
        read_logged_rows(ads.spec, ads.folder, path, {"UR": 2})


def test_a_log_of_text_is_read_as_the_spec_says(ads: Any, tmp_path: Path) -> None:
    how = {"format": "csv", "delimiter": "\t", "escape": "backslash"}
    spec = ads.spec.model_copy(update={"log": ads.spec.log.model_copy(update=how)})
    lines = ["user_id\titem_id\ttab\thour\tclicked\tUR", '"\\"u\t1"\ti1\tt0\t1\ti2|i3\t0.5|2']
    (tmp_path / "log.txt").write_text("\n".join(lines) + "\n")
    logged = read_logged_rows(spec, ads.folder, tmp_path / "log.txt", {"UR": 2})
    assert logged.plain["user_id"].to_pylist() == ['"u\t1']
    assert logged.moving["clicked"].to_pylist() == [["i2", "i3"]]
    assert logged.vectors["UR"].tolist() == [[0.5, 2.0]]
