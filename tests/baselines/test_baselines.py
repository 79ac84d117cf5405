"""Every baseline against its definition, and none of them sees a later event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression as Linear

from lfm4ads_tf.baselines import light_gbm
from lfm4ads_tf.baselines.baseline import Baseline
from lfm4ads_tf.baselines.constant import Constant
from lfm4ads_tf.baselines.light_gbm import COMMON, ROUNDS, LightGBM
from lfm4ads_tf.baselines.logistic_regression import LogisticRegression
from lfm4ads_tf.baselines.popularity import SMOOTHING, Popularity
from lfm4ads_tf.baselines.registry import BASELINES, baselines_of
from lfm4ads_tf.baselines.sparse_table import SparseTable
from lfm4ads_tf.baselines.tree_table import TreeTable
from lfm4ads_tf.data.splits import TEST, TRAIN, VALID
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.metrics import auc
from lfm4ads_tf.seeding import derive


@pytest.fixture(autouse=True)
def few_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two settings that 360 rows can tell apart, and fewer trees."""
    monkeypatch.setattr(light_gbm, "SETTINGS", ({"num_leaves": 3}, {"num_leaves": 7}))
    monkeypatch.setattr(light_gbm, "PATIENCE", 10)
    monkeypatch.setattr(light_gbm, "BLIND_ROUNDS", 12)


def _fitted(kind: type[Baseline], cache: Any, **more: Any) -> Baseline:
    made = kind(cache, **more)
    made.fit()
    return made


def test_the_constant_is_the_rate_of_the_training_rows(ads: Any) -> None:
    cache = ads.cache
    found = _fitted(Constant, cache).predict(cache.rows_of("test"))
    rates = [np.mean([y for y in column if y == y]) for column in cache.labels[cache.train_rows].T]
    assert found.shape == (60, 2)
    np.testing.assert_allclose(found, np.tile(rates, (60, 1)), rtol=1e-6)
    assert auc(cache.labels[cache.rows_of("test"), 0], found[:, 0]) == 0.5


@pytest.mark.parametrize("refresh", ["frozen", "daily"])
def test_popularity_is_the_smoothed_rate_of_earlier_rows(ads: Any, refresh: Any) -> None:
    cache = ads.cache
    rows = np.sort(np.concatenate([cache.rows_of("valid"), cache.rows_of("test")]))
    found = _fitted(Popularity, cache).predict(rows, refresh)
    for row, rates in zip(rows, found, strict=True):
        counts = cache.split == TRAIN
        if refresh == "daily":
            held = np.isin(cache.split, (VALID, TEST))
            counts = counts | (held & (cache.period < cache.period[row]))
        for k in range(2):
            labels = cache.labels[counts, k]
            own = cache.labels[counts & (cache.item == cache.item[row]), k]
            prior = np.nanmean(labels)
            expected = (np.nansum(own) + SMOOTHING * prior) / (np.isfinite(own).sum() + SMOOTHING)
            assert rates[k] == pytest.approx(expected, rel=1e-5)


def test_logistic_regression_is_scikit_learns(ads: Any) -> None:
    cache = ads.cache
    made = _fitted(LogisticRegression, cache)
    table, train, rows = SparseTable(cache), cache.train_rows, cache.rows_of("test")
    for k in range(2):
        labels = cache.labels[train, k]
        known = np.isfinite(labels)
        exact = Linear(C=0.01, tol=1e-9, max_iter=10_000)
        exact.fit(table.take(train[known]).toarray().astype(np.float64), labels[known])
        expected = exact.predict_proba(table.take(rows).toarray())[:, 1]
        np.testing.assert_allclose(made.predict(rows)[:, k], expected, atol=5e-3)


def test_trees_are_what_lightgbm_gives_by_its_own_early_stopping(ads: Any) -> None:
    lightgbm = light_gbm._library()
    cache = ads.cache
    made = _fitted(LightGBM, cache, seed=3)
    table, rows = TreeTable(cache), cache.rows_of("test")
    for k, task in enumerate(cache.layout.tasks):
        values, labels = [], []
        for of in (cache.train_rows, cache.rows_of("valid")):
            of = of[np.isfinite(cache.labels[of, k])]
            values.append(table.take(of))
            labels.append(cache.labels[of, k])
        best: list[tuple[float, Any]] = []
        for setting in light_gbm.SETTINGS:
            model = lightgbm.LGBMClassifier(
                n_estimators=ROUNDS,
                num_leaves=setting["num_leaves"],
                learning_rate=COMMON["learning_rate"],
                min_child_samples=min(100, len(labels[0]) // 20),
                reg_lambda=COMMON["lambda_l2"],
                colsample_bytree=COMMON["feature_fraction"],
                subsample=COMMON["bagging_fraction"],
                subsample_freq=1,
                random_state=derive(3, f"baseline/lightgbm/{task}"),
                deterministic=True,
                force_row_wise=True,
                n_jobs=1,
                verbosity=-1,
            )
            model.fit(
                values[0],
                labels[0],
                eval_set=[(values[1], labels[1])],
                eval_metric="auc",
                callbacks=[
                    lightgbm.early_stopping(
                        light_gbm.PATIENCE, first_metric_only=True, verbose=False
                    )
                ],
            )
            value = auc(labels[1], model.predict_proba(values[1])[:, 1])
            best.append((value or 0.0, model))
        values_tried = [value for value, _ in best]
        assert made.facts[task]["valid_auc"] == pytest.approx(values_tried, abs=1e-6)
        model = best[int(np.argmax(values_tried))][1]
        assert made.facts[task]["trees"] == model.best_iteration_
        expected = model.predict_proba(table.take(rows))[:, 1]
        np.testing.assert_allclose(made.predict(rows)[:, k], expected, atol=1e-6)
    again = _fitted(LightGBM, cache, seed=3)
    assert np.array_equal(again.predict(rows), made.predict(rows))
    assert not np.array_equal(_fitted(LightGBM, cache, seed=4).predict(rows), made.predict(rows))


def test_settings_are_tried_on_the_latest_rows(ads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []
    boost = LightGBM._boost

    def counted(self: Any, setting: Any, seed: int, train: Any, *rest: Any) -> Any:
        trained.append(len(train[1]))
        return boost(self, setting, seed, train, *rest)

    monkeypatch.setattr(light_gbm, "TRIAL_ROWS", 100)
    monkeypatch.setattr(LightGBM, "_boost", counted)
    _fitted(LightGBM, ads.cache)
    known = np.isfinite(ads.cache.labels[ads.cache.train_rows]).sum(axis=0)
    assert trained == [100, 100, known[0], 100, 100, known[1]]


def test_validation_labels_of_one_class_stop_nothing(
    make_ads: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    def change(tables: Any) -> None:
        for row in tables["log"]:
            if row["day"] == 6:
                row["click"] = 0

    cache = make_ads(change).cache
    with caplog.at_level("WARNING", "lfm4ads_tf"):
        made = _fitted(LightGBM, cache)
    assert made.facts["click"]["trees"] == light_gbm.BLIND_ROUNDS
    assert "'click': its 60 known validation labels are of one class" in caplog.text
    assert np.isfinite(made.predict(cache.rows_of("test"))).all()


@pytest.mark.parametrize("kind", [LightGBM, LogisticRegression])
def test_one_class_among_the_rows_that_are_read_is_the_constant(
    make_ads: Callable[..., Any],
    kind: type[Baseline],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def change(tables: Any) -> None:
        for row in tables["log"]:
            if row["day"] == 5:
                row["click"] = 0

    cache = make_ads(change).cache
    monkeypatch.setattr(kind, "max_rows", 60)
    with caplog.at_level("WARNING", "lfm4ads_tf"):
        made = _fitted(kind, cache)
    rows = cache.rows_of("test")
    found, constant = made.predict(rows), _fitted(Constant, cache).predict(rows)
    (line,) = [m for m in caplog.messages if "constant" in m]
    assert f"rate {constant[0, 0]:.4f} for 'click': the 60 known labels" in line
    assert np.array_equal(found[:, 0], constant[:, 0]) and constant[0, 0] > 0
    assert len(np.unique(found[:, 1])) > 1  # the other task is learnt


@pytest.mark.parametrize("change", ["changed", "deleted"])
def test_validation_scores_know_no_test_row(
    ads: Any, make_ads: Callable[..., Any], changed_from: Any, change: str
) -> None:
    def delete(tables: Any) -> None:
        log = tables["log"]
        tables["log"] = [r for k, r in enumerate(log) if r["day"] < 7 or k % 8 == 0]

    cache = make_ads(changed_from(7) if change == "changed" else delete).cache
    for kind in BASELINES.values():
        ours, theirs = (_fitted(kind, of).predict(of.rows_of("valid")) for of in (ads.cache, cache))
        assert np.array_equal(ours, theirs), kind.name


def test_frozen_scores_know_no_label_after_training(
    ads: Any, make_ads: Callable[..., Any], changed_from: Any
) -> None:
    """But the number of trees, which validation labels choose as they choose an epoch."""
    cache = make_ads(changed_from(6, labels_only=True)).cache
    assert not np.array_equal(cache.labels[-120:], ads.cache.labels[-120:])
    for kind in (Constant, Popularity, LogisticRegression):
        for split in ("valid", "test"):
            ours, theirs = (
                _fitted(kind, of).predict(of.rows_of(split)) for of in (ads.cache, cache)
            )
            assert np.array_equal(ours, theirs), kind.name


def test_names_are_checked() -> None:
    names = ["constant", "lightgbm", "constant"]
    assert [kind.name for kind in baselines_of(names)] == ["lightgbm", "constant"]
    with pytest.raises(UserError, match="unknown 'lightgmb'. Did you mean 'lightgbm'"):
        baselines_of(["lightgmb"])


@pytest.mark.parametrize("kind", [LightGBM, LogisticRegression])
def test_the_latest_rows_are_read_where_there_are_too_many(
    ads: Any,
    kind: type[Baseline],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = ads.cache.rows_of("test")
    whole = _fitted(kind, ads.cache).predict(rows)
    monkeypatch.setattr(kind, "max_rows", 200)
    with caplog.at_level("INFO", "lfm4ads_tf"):
        some = _fitted(kind, ads.cache)
    assert "the latest 200 of 360 training rows" in caplog.text
    assert some.training_rows().tolist() == ads.cache.train_rows[160:].tolist()
    scores = some.predict(rows)
    assert not np.allclose(scores, whole)
    monkeypatch.setattr("lfm4ads_tf.baselines.baseline._BLOCK", 7)
    np.testing.assert_allclose(some.predict(rows), scores, rtol=1e-6)
    assert some.predict(rows[:0]).shape == (0, 2)


def test_threads_change_no_tree(ads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ads.cache.rows_of("test")
    one = _fitted(LightGBM, ads.cache).predict(rows)
    monkeypatch.setattr(light_gbm, "_threads", lambda rows: 2)
    assert np.array_equal(_fitted(LightGBM, ads.cache).predict(rows), one)
