"""The synthetic ads log: what it holds, and how hard its clicks are to predict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression

from lfm4ads_tf.data import synthetic
from lfm4ads_tf.data.synthetic import SyntheticAdsLog
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.metrics import auc, best_possible_auc

ROWS = 100_000


def read(folder: Path) -> dict[str, pa.Table]:
    return {name: pq.read_table(folder / f"{name}.parquet") for name in ("log", "users", "ads")}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pa.Table]:
    folder = tmp_path_factory.mktemp("synthetic")
    SyntheticAdsLog(rows=ROWS).write(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "ads.parquet",
        "log.parquet",
        "users.parquet",
    ]
    return read(folder)


def column(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy(zero_copy_only=False)


def days(rows: int, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the train and the test rows."""
    log, day = SyntheticAdsLog(rows=rows), column(table, "day")
    return day < log.train_until, day >= log.valid_until


def test_files_hold_the_documented_columns(written: dict[str, pa.Table]) -> None:
    log, users, ads = written["log"], written["users"], written["ads"]
    assert (log.num_rows, users.num_rows, ads.num_rows) == (ROWS, 2000, 300)
    time = column(log, "time_ms")
    assert (np.diff(time) >= 0).all()
    stamp = time.astype("datetime64[ms]")
    shown = np.char.replace(stamp.astype("datetime64[D]").astype(str), "-", "").astype(int)
    np.testing.assert_array_equal(shown, column(log, "day"))
    hours = (stamp - stamp.astype("datetime64[D]")).astype("timedelta64[h]").astype(int)
    np.testing.assert_array_equal(hours, column(log, "hour"))
    assert len(np.unique(shown)) == 14
    assert set(column(log, "user_id")) <= set(column(users, "user_id"))
    assert set(column(log, "ad_id")) <= set(column(ads, "ad_id"))
    assert set(column(log, "position")) == set(range(synthetic.POSITIONS))
    assert not any(log[name].null_count for name in log.column_names)

    for row, weights in zip(
        users["interests"].to_pylist(), users["interest_weights"].to_pylist(), strict=True
    ):
        assert 1 <= len(set(row)) == len(row) == len(weights) <= synthetic.MAX_INTERESTS
        assert sum(weights) == pytest.approx(1.0, abs=0.01)
    assert 0.05 < np.isnan(column(users, "activity")).mean() < 0.15
    assert ads.schema.field("creative").type == pa.list_(pa.float32(), 16)
    lengths = [len(row) for row in ads["keywords"].to_pylist()]
    assert (min(lengths), max(lengths)) == (2, synthetic.MAX_KEYWORDS)
    assert (column(ads, "bid") > 0).all()


def test_labels_follow_their_probabilities(written: dict[str, pa.Table]) -> None:
    log = written["log"]
    click, conversion = column(log, "click"), column(log, "conversion")
    assert (conversion <= click).all()
    for label, p in ((click, "p_click"), (conversion, "p_conversion")):
        probability = column(log, p)
        assert 0.0 < probability.min() and probability.max() < 1.0
        # Groups by size of the probability: the label mean lies within 4.5 standard errors.
        for rows in np.array_split(np.argsort(probability), 10):
            mean, p_rows = label[rows].mean(), probability[rows]
            error = np.sqrt((p_rows * (1 - p_rows)).sum()) / len(rows)
            assert abs(mean - p_rows.mean()) < 4.5 * error
    assert (column(log, "p_conversion") < column(log, "p_click")).all()


def test_scenarios_are_unequal_and_heads_heavy(written: dict[str, pa.Table]) -> None:
    log = written["log"]
    names, counts = np.unique(column(log, "scenario").astype(str), return_counts=True)
    shares = dict(zip(names.tolist(), counts / ROWS, strict=True))
    for name, (share, _, _) in synthetic.SCENARIOS.items():
        assert shares[name] == pytest.approx(share, abs=0.01)
    for key, size in (("user_id", 2000), ("ad_id", 300)):
        counts = np.sort(np.bincount(column(log, key), minlength=size))[::-1]
        assert counts[: size // 10].sum() > 0.2 * ROWS


def test_test_days_show_cold_ads_that_train_days_do_not(written: dict[str, pa.Table]) -> None:
    train, test = days(ROWS, written["log"])
    ad = column(written["log"], "ad_id")
    assert train.mean() == pytest.approx(10 / 14, abs=1e-3)
    assert test.mean() == pytest.approx(2 / 14, abs=1e-3)
    cold = ~np.isin(ad[test], ad[train])
    assert 0.03 < cold.mean() < 0.25


def test_equal_seed_gives_equal_files_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        SyntheticAdsLog(rows=5000, seed=seed).write(tmp_path / name)
    a, b, c = (read(tmp_path / name) for name in "abc")
    for table in a:
        assert (tmp_path / "a" / f"{table}.parquet").read_bytes() == (
            tmp_path / "b" / f"{table}.parquet"
        ).read_bytes()
        assert not a[table].equals(c[table])


@pytest.mark.parametrize("rows", [100_000, 300_000])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_best_possible_auc_is_in_range_and_that_of_the_clicks(
    rows: int, seed: int, tmp_path: Path
) -> None:
    SyntheticAdsLog(rows=rows, seed=seed).write(tmp_path)
    log = pq.read_table(tmp_path / "log.parquet")
    _, test = days(rows, log)
    p, click = column(log, "p_click")[test], column(log, "click")[test]
    best = best_possible_auc(p)
    assert 0.72 < best < 0.82
    assert auc(click, p) == pytest.approx(best, abs=4.0 / np.sqrt(12 * click.sum()))


def one_hot(codes: np.ndarray) -> sp.csr_matrix:
    width = int(codes.max()) + 1
    return sp.csr_matrix(
        (np.ones(len(codes)), codes, np.arange(len(codes) + 1)), (len(codes), width)
    )


def multi_hot(lists: pa.ChunkedArray) -> sp.csr_matrix:
    values = lists.combine_chunks()
    codes = np.unique(np.array(values.values.to_pylist()), return_inverse=True)[1]
    return sp.csr_matrix((np.ones(len(codes)), codes, values.offsets.to_numpy()))


def single_features(tables: dict[str, pa.Table]) -> sp.csr_matrix:
    """All inputs of the log without a cross: one-hot, multi-hot and numbers."""
    log, users, ads = tables["log"], tables["users"], tables["ads"]

    def codes(table: pa.Table, name: str) -> np.ndarray:
        return np.unique(np.array(table[name].to_pylist()), return_inverse=True)[1]

    activity = column(users, "activity")
    creative = ads["creative"].combine_chunks().values.to_numpy().reshape(-1, 16)  # (ads, 16)
    of_user = [one_hot(codes(users, name)) for name in ("user_id", "age_bucket", "gender", "city")]
    of_user += [multi_hot(users["interests"])]
    of_user += [sp.csr_matrix(np.column_stack([np.nan_to_num(activity), np.isnan(activity)]))]
    of_ad = [one_hot(codes(ads, name)) for name in ("ad_id", "advertiser_id", "category")]
    of_ad += [multi_hot(ads["keywords"])]
    of_ad += [sp.csr_matrix(np.column_stack([np.log(column(ads, "bid")), creative]))]
    context = [one_hot(codes(log, name)) for name in ("scenario", "device", "position", "hour")]
    user_rows = sp.hstack(of_user).tocsr()[column(log, "user_id")]
    ad_rows = sp.hstack(of_ad).tocsr()[column(log, "ad_id")]
    return sp.hstack([user_rows, ad_rows, *context]).tocsr()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_single_features_stay_below_the_best_possible(seed: int, tmp_path: Path) -> None:
    rows = ROWS // 2  # enough for the fit, and for sampling noise far below the gap
    SyntheticAdsLog(rows=rows, seed=seed).write(tmp_path)
    tables = read(tmp_path)
    train, test = days(rows, tables["log"])
    click, p = column(tables["log"], "click"), column(tables["log"], "p_click")
    inputs = single_features(tables)
    model = LogisticRegression(C=0.03, max_iter=300).fit(inputs[train], click[train])
    score = model.decision_function(inputs[test])
    # Both AUCs on the same clicks, so that their sampling noise cancels.
    assert auc(click[test], score) < auc(click[test], p[test]) - 0.02
    assert auc(click[test], score) > 0.65  # single features do say something


@pytest.mark.parametrize(
    "sizes", [{"rows": 0}, {"rows": 10, "days": 4}, {"rows": 10, "users": -1}, {"seed": -1}]
)
def test_refuses_impossible_sizes(sizes: dict[str, int]) -> None:
    with pytest.raises(UserError, match="needs"):
        SyntheticAdsLog(**sizes)


def test_a_tiny_log_and_a_long_one_are_written(tmp_path: Path) -> None:
    SyntheticAdsLog(rows=3, users=2, ads=1, advertisers=1).write(tmp_path / "tiny")
    assert read(tmp_path / "tiny")["log"].num_rows == 3
    log = SyntheticAdsLog(rows=4000, days=40)
    assert (log.train_until, log.valid_until) == (20240406, 20240408)
    log.write(tmp_path / "long")
    assert len(np.unique(column(read(tmp_path / "long")["log"], "day"))) == 40


def test_refuses_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        SyntheticAdsLog(rows=100).write(tmp_path / "file")


def test_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise RuntimeError("stopped")

    monkeypatch.setattr(synthetic._World, "_probabilities", stop)
    with pytest.raises(RuntimeError, match="stopped"):
        SyntheticAdsLog(rows=100).write(tmp_path)
    assert not list(tmp_path.iterdir())
