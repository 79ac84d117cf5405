"""The synthetic ads log with likes, tastes of scenarios and base rates, and without them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lfm4ads_tf.data import synthetic
from lfm4ads_tf.data.synthetic import SyntheticAdsLog
from lfm4ads_tf.errors import UserError

ROWS = 20_000
SCENARIOS = len(synthetic.SCENARIOS)
EPS = float(np.finfo(np.float64).eps)

# Of the files that the generator wrote before it had agreements and rates (5,000 rows, seed 5).
BEFORE = {
    "log": "726a9df7ed37a99aef84eeaacc3b0aef9664ee1a712390092aff0b7f30c2cbd0",
    "users": "29eb60009476291d114912a61fbb022aef8d2957ac94f3f6662be6b190374f53",
    "ads": "140c07257513e413bedaa0fa29c62370dcfeeb92f4580dc457656e61cf123d7c",
}


# Of likes that are drawn from their own seeds, day by day: of the labels and of p_like.
LIKES = [
    (
        {"task_agreement": 0.3},
        "c4a091bae89e487051d3e0f54a0ac419330c66c480c461c633cb410e345eec96",
        "086cdd5ff0743bd915282570202c45f04a4a5dae8d2eb80e2a1dc1361fc069dd",
    ),
    (
        {"task_agreement": -0.5, "scenario_agreement": 0.4, "like_rate": 0.05},
        "dd8133051a2910926f176cb6e60b9d66101d1e7a57b51e3c9a01a37da6ecde35",
        "8307a9793ff55cfd169f3278b1281de3d24800a4ff7d07a237473f1b3a8fb4a0",
    ),
]


def written(folder: Path, **keys: Any) -> dict[str, pa.Table]:
    SyntheticAdsLog(**{"rows": ROWS, **keys}).write(folder)
    return {name: pq.read_table(folder / f"{name}.parquet") for name in BEFORE}


def numbers(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy()


def digest(table: pa.Table) -> str:
    """sha256 of all columns' bytes; floats as float32: the last digit of exp is a processor's."""
    found = hashlib.sha256()
    for name in table.column_names:
        values = table[name].combine_chunks()
        while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
            lengths = pc.list_value_length(values).to_numpy()
            found.update(lengths.astype(np.int64).tobytes())
            values = values.flatten()
        if pa.types.is_string(values.type):
            found.update("\n".join(values.to_pylist()).encode())
        elif pa.types.is_floating(values.type):
            shown = values.to_numpy(zero_copy_only=False)
            found.update(shown.astype(np.float32).tobytes())
        else:
            found.update(values.to_numpy().astype(np.int64).tobytes())
    return found.hexdigest()


def test_without_the_keys_the_files_are_those_of_before(tmp_path: Path) -> None:
    tables = written(tmp_path, rows=5000, seed=5)
    assert {name: digest(table) for name, table in tables.items()} == BEFORE


@pytest.mark.parametrize(("keys", "labels", "probabilities"), LIKES)
def test_likes_are_those_of_before(
    keys: dict[str, float], labels: str, probabilities: str, tmp_path: Path
) -> None:
    """Results name a log by its keys and seed: other seeds of the draws would be another log."""
    log = written(tmp_path, rows=5000, seed=5, **keys)["log"]
    assert digest(log.select(["click", "conversion", "like"])) == labels
    assert digest(log.select(["p_like"])) == probabilities


def test_what_is_drawn_for_likes_is_drawn_for_nothing_else(tmp_path: Path) -> None:
    """Given their probabilities, likes go with no other column, and with no other day's likes."""
    log = written(tmp_path, rows=100_000, task_agreement=0.9)["log"]
    like, p, day = (numbers(log, name) for name in ("like", "p_like", "day"))
    rest = (like - p) / np.sqrt(p * (1 - p))  # of mean 0 and variance 1
    for name in ("user_id", "ad_id", "time_ms", "hour", "position", "click", "conversion"):
        other = numbers(log, name).astype(np.float64)
        for value in np.unique(day):
            today = day == value
            pair = np.corrcoef(rest[today], other[today])[0, 1]
            assert abs(pair) < 4.5 / np.sqrt(today.sum()), (name, value)
    least = np.unique(day, return_counts=True)[1].min()
    days = np.corrcoef([rest[day == value][:least] for value in np.unique(day)])
    assert np.abs(days - np.eye(len(days))).max() < 4.5 / np.sqrt(least)


def check_equal_sides(folder: Path) -> None:
    for name in ("users.parquet", "ads.parquet"):
        assert (folder / "a" / name).read_bytes() == (folder / "b" / name).read_bytes()


@pytest.mark.parametrize(
    "keys",
    [
        {"task_agreement": 0.3},
        {"task_agreement": -1.0, "like_rate": 0.01},
        {"scenario_agreement": 1.0},
        {"task_agreement": 0.0, "scenario_agreement": 1.0},
    ],
)
def test_likes_change_nothing_else(keys: dict[str, float], tmp_path: Path) -> None:
    plain, other = written(tmp_path / "a"), written(tmp_path / "b", **keys)
    names = plain["log"].column_names
    added = ["like", "p_like"] if "task_agreement" in keys else []
    assert other["log"].column_names == names + added
    assert other["log"].select(names).equals(plain["log"])
    check_equal_sides(tmp_path)


def test_tastes_of_scenarios_change_the_labels_alone(tmp_path: Path) -> None:
    plain = written(tmp_path / "a")
    other = written(tmp_path / "b", scenario_agreement=-0.4)
    drawn = ["user_id", "ad_id", "time_ms", "day", "hour", "scenario", "device", "position"]
    assert other["log"].select(drawn).equals(plain["log"].select(drawn))
    check_equal_sides(tmp_path)
    feed = np.array(plain["log"]["scenario"].to_pylist()) == "feed"
    same = numbers(plain["log"], "p_click") == numbers(other["log"], "p_click")
    # The first scenario has the taste of all; in the others no impression keeps its probability.
    assert same[feed].all() and not same[~feed].any()


def tastes(world: synthetic._World, day: int) -> np.ndarray:
    """Taste vectors over all spaces, (T, S, users, spaces * R)."""
    spaces = np.stack(world.user_tastes(day), axis=1)  # (users, spaces, R)
    parts = world.taste_part[:, :, None, :, None] * spaces
    return parts.reshape(*parts.shape[:3], -1)


@pytest.mark.parametrize("scenario_agreement", [-1.0, -0.5, 0.0, 0.7, 1.0])
@pytest.mark.parametrize("task_agreement", [-1.0, -0.3, 0.0, 0.8, 1.0])
def test_taste_vectors_have_the_cosines(task_agreement: float, scenario_agreement: float) -> None:
    log = SyntheticAdsLog(
        rows=100, task_agreement=task_agreement, scenario_agreement=scenario_agreement
    )
    world = synthetic._World(log)
    between = np.full((SCENARIOS, SCENARIOS), scenario_agreement**2)
    between[0] = between[:, 0] = scenario_agreement
    np.fill_diagonal(between, 1.0)
    wanted = np.kron([[1.0, task_agreement], [task_agreement, 1.0]], between)
    for day in (0, log.days - 1):
        vectors = tastes(world, day).reshape(2 * SCENARIOS, log.users, -1)
        lengths = np.linalg.norm(vectors, axis=-1)  # (T * S, users)
        cosines = np.einsum("aun,bun->abu", vectors, vectors) / (lengths[:, None] * lengths)
        # 16 products and their sum, twice a root and a quotient: below 64 roundings of at most 1.
        assert np.abs(cosines - wanted[:, :, None]).max() < 64 * EPS


def test_tastes_that_do_not_agree_have_nothing_in_common() -> None:
    log = SyntheticAdsLog(rows=100, task_agreement=0.0, scenario_agreement=0.0)
    world = synthetic._World(log)
    of_ads = np.concatenate([space.ads for space in world.taste_spaces], axis=1)  # (ads, n)
    terms = np.stack([t @ of_ads.T for t in tastes(world, 0).reshape(2 * SCENARIOS, log.users, -1)])
    terms = np.stack([centred(term).ravel() for term in terms])  # (T * S, users * ads)
    # Mostly 24 interests and 24 categories of independent vectors in two dimensions: correlations
    # deviate from 0 by about 1 / 24, and seven times as much would be no chance.
    assert np.abs(np.corrcoef(terms) - np.eye(2 * SCENARIOS)).max() < 7 / 24


def centred(logits: np.ndarray) -> np.ndarray:
    """(users, ads) without what a user or an ad adds to all its pairs."""
    return logits - logits.mean(0) - logits.mean(1, keepdims=True) + logits.mean()


@pytest.mark.parametrize("scenario", range(SCENARIOS))
def test_probabilities_hold_the_tastes(scenario: int) -> None:
    log = SyntheticAdsLog(rows=100, users=30, ads=40, task_agreement=0.6, scenario_agreement=-0.2)
    world = synthetic._World(log)
    user, ad = (grid.ravel() for grid in np.mgrid[:30, :40])
    rest = np.zeros(30 * 40, np.int64)
    p_click, _, p_like = world._probabilities(3, [user, ad, rest + scenario, rest, rest, rest])
    assert p_like is not None
    scale = synthetic.TASTE_SD / np.sqrt(synthetic.TASTE_RANK)
    strength = list(synthetic.SCENARIOS.values())[scenario][2]
    of_ads = np.concatenate([space.ads for space in world.taste_spaces], axis=1)  # (ads, n)
    for p, taste in zip((p_click, p_like), tastes(world, 3)[:, scenario], strict=True):
        logits = np.log(p / (1.0 - p)).reshape(30, 40)
        # Age and category of the pair enter as sums, so only the taste is left.
        found, wanted = centred(logits), centred(strength * scale * taste @ of_ads.T)
        # A logit of p has the error of p over p (1 - p), and centring takes four of them.
        error = 4 * 8 * EPS / (p * (1.0 - p)).min()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=error)


def test_likes_follow_their_probability_and_not_the_click(tmp_path: Path) -> None:
    log = written(tmp_path, rows=100_000, task_agreement=0.9)["log"]
    like, p = numbers(log, "like"), numbers(log, "p_like")
    click, p_click = numbers(log, "click"), numbers(log, "p_click")
    assert 0.0 < p.min() and p.max() < 1.0
    for rows in np.array_split(np.argsort(p), 10):
        error = np.sqrt((p[rows] * (1 - p[rows])).sum()) / len(rows)
        assert abs(like[rows].mean() - p[rows].mean()) < 4.5 * error
    # Given the pair: the product of what both deviate from their probabilities has mean 0.
    variance = (p * (1 - p) * p_click * (1 - p_click)).sum()
    assert abs(((like - p) * (click - p_click)).sum()) < 4.5 * np.sqrt(variance)
    # Over pairs they do go together, as the tastes do.
    assert np.corrcoef(p, p_click)[0, 1] > 0.1


@pytest.mark.parametrize(
    "rates",
    [
        {"click_rate": 0.01},
        {"click_rate": 0.2, "like_rate": 0.01},
        {"click_rate": 0.01, "like_rate": 0.2, "conversion_rate": 0.002},
        {"conversion_rate": 0.05},
        {"like_rate": 0.999},
    ],
)
def test_every_day_has_the_base_rates(rates: dict[str, float], tmp_path: Path) -> None:
    log = written(tmp_path, task_agreement=0.5, scenario_agreement=0.5, **rates)["log"]
    day = numbers(log, "day")
    for name, rate in rates.items():
        task = name.removesuffix("_rate")
        p = numbers(log, f"p_{task}")
        for value in np.unique(day):
            today = p[day == value]
            # A sum of n probabilities in any order, and the few roundings of each of them.
            assert abs(today.mean() - rate) < (len(today) + 32) * EPS * rate
        error = np.sqrt((p * (1 - p)).sum()) / len(p)
        assert abs(numbers(log, task).mean() - rate) < 4.5 * error
    assert (numbers(log, "p_conversion") < numbers(log, "p_click")).all()


def test_tiny_logs_have_likes_and_rates(tmp_path: Path) -> None:
    keys = {"task_agreement": 0.5, "scenario_agreement": 0.5, "click_rate": 0.3}
    log = written(tmp_path, rows=3, users=1, ads=1, advertisers=1, **keys)["log"]
    np.testing.assert_allclose(numbers(log, "p_click"), 0.3, rtol=64 * EPS)
    assert np.isfinite(numbers(log, "p_like")).all()


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"task_agreement": 1.01}, "is a cosine"),
        ({"scenario_agreement": float("nan")}, "is a cosine"),
        ({"click_rate": 0.0}, "is a share"),
        ({"task_agreement": 0.0, "like_rate": 1.0}, "is a share"),
        ({"like_rate": 0.1}, "no likes"),
        ({"click_rate": 0.1, "conversion_rate": 0.1}, "as many conversions as clicks"),
        ({"conversion_rate": 0.9}, "as many conversions as clicks"),
    ],
)
def test_refuses_what_cannot_be(keys: dict[str, float], what: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=what):
        written(tmp_path, rows=2000, **keys)
    assert not list(tmp_path.iterdir())
