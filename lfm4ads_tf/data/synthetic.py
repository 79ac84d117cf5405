"""A synthetic ads log whose true probabilities are known, of clicks, conversions and likes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lfm4ads_tf.errors import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FIRST_DAY = "2024-03-01"
DAY_MS = 86_400_000
VALID_DAYS = 2
TEST_DAYS = 2
# Share of rows, bias of the click logit, strength of the taste term.
SCENARIOS = {
    "feed": (0.52, -1.5, 1.0),
    "search": (0.27, -0.9, 1.15),
    "video": (0.18, -1.9, 0.9),
    "story": (0.03, -1.3, 0.8),
}
DEVICES = {"phone": (0.7, 0.0), "tablet": (0.1, 0.2), "desktop": (0.2, -0.3)}
POSITIONS = 6
AGES = ("<18", "18-24", "25-34", "35-44", "45-54", "55-64", ">64", "unknown")
GENDERS = {"f": 0.46, "m": 0.46, "unknown": 0.08}
CITIES = 200
INTERESTS = 24
CATEGORIES = 24
KEYWORDS = 120
MAX_INTERESTS = 3
MAX_KEYWORDS = 4
HOME_SHARE = 0.7  # share of an advertiser's ads that are in its own category
BID_SD = 0.6  # of the log bid
OWN_KEYWORDS = 0.8  # share of an ad's keywords that belong to its category
CREATIVE_WIDTH = 16
CREATIVE_NOISE = 0.5

TASTE_RANK = 2
TASTE_SD = 0.45  # of the user x ad taste term
# Shares of the variance of a user's and an ad's taste vector. Little of it is peculiar to one
# user or ad, since only some tens of rows per user can reveal that.
USER_TASTE = {"interests": 0.86, "age": 0.10, "city": 0.03, "own": 0.01}
AD_TASTE = {"category": 0.84, "advertiser": 0.07, "keywords": 0.08, "own": 0.01}
USER_BIAS_SD = {"age": 0.3, "gender": 0.15, "city": 0.3, "own": 0.08}
AD_BIAS_SD = {"category": 0.45, "advertiser": 0.35, "own": 0.08}
CROSS_BIAS_SD = 0.2  # of scenario x category, scenario x age
POSITION_STEP = -0.24
HOUR_AMPLITUDE = 0.2
ACTIVITY_EFFECT = 0.12
BID_EFFECT = -0.2
ACTIVITY_MISSING = 0.1
ACTIVITY_NOISE = 0.3
TASTE_DRIFT = 0.01  # a day, relative to the taste of an interest
CATEGORY_DRIFT_SD = 0.02  # a day

CONVERSION_BIAS = -1.6
CONVERSION_TASTE = 0.6
CONVERSION_SD = {"category": 0.4, "advertiser": 0.3, "age": 0.2, "scenario": 0.3}
CONVERSION_BID = 0.25

LIKE_BIAS = -1.2
LIKE_SD = {"category": 0.4, "age": 0.2, "scenario": 0.3}

POPULARITY_EXPONENT = 0.8
SIDE_EXPONENT = 0.5  # of ages, cities and advertisers
POPULARITY_OFFSET = 0.01  # of the number of users or ads: flattens the head
POPULARITY_DRIFT_SD = 0.1  # a day, of an ad's log popularity
OLD_ADS = 0.7  # share of the ads that exist on the first day
AD_HALF_LIFE = 10.0  # days
SHIFT_HALVINGS = 64  # of an interval of some 100 logits: below their last digit
BUSY_HOUR = 20
HOUR_SWING = 0.9


@dataclass(frozen=True)
class SyntheticAdsLog:
    """An ads log with scenarios, two tasks, drift and cold ads, drawn from a known model.

    A row is one impression of ad a to user u in scenario s at position k, hour h, on device v:

        logit p_click = b_s + b_u + b_a + c_{s, category(a)} + c_{s, age(u)} + e_k + e_h + e_v
                        + category drift_{category(a), day} + g_s <U_u(day), V_a>
        p_conversion = p_click * sigmoid(b' + b'_a + b'_{age(u)} + b'_s + g' <U_u(day), V_a>)

    `U_u` is a weighted sum of taste vectors of the user's interests, age and city, `V_a` one of
    the ad's category, advertiser and keywords, so most of the taste term can be learned from
    values that many rows share, but only by crossing features; small parts peculiar to one user
    or ad remain. The interests' taste vectors turn and the categories' biases walk from day to
    day. Users and ads are heavy-tailed. 70 % of the ads exist on the first day, the others
    appear evenly over the later days, so that the last days show ads never seen before them.
    A click is drawn from `p_click`; a conversion only after a click.

    The constants keep the click's best possible AUC on the last days near 0.77. Equal sizes,
    seed and NumPy version give equal files. Memory is that of one day.

    **Agreement.** `task_agreement` r adds a task `like` with columns `like` and `p_like`, drawn
    independently of the click given the impression:

        logit p_like = b'' + b''_{category(a)} + b''_{age(u)} + b''_s + g_s t_{like,s}(u, a)

    and `scenario_agreement` q makes the taste depend on the scenario. Without them t is the taste
    term <U_u, V_a> above; with them there are independent taste spaces x of tasks and scenarios,
    each with vectors U^x_u, V^x_a of the same law, U^x_u scaled to the length of U_u, and

        t_{click,s} = sum_m c_sm <U^{click,m}_u, V^{click,m}_a>
        t_{like,s}  = r t_{click,s} + sqrt(1 - r^2) sum_m c_sm <U^{like,m}_u, V^{like,m}_a>
        c_sm = q [m = 0] + sqrt(1 - q^2) [m = s] for s > 0, and c_0m = [m = 0]

    so that a user's taste vector behind likes, over all spaces, has the cosine r with the one
    behind clicks in the same scenario, and in any scenario the cosine q with that of `feed`, the
    first and largest one; of two other scenarios it is q^2. Users, ads and impressions stay as
    they are without these keys, and so do clicks and conversions without `scenario_agreement`.

    **Base rates.** A rate shifts the task's bias day by day until the mean probability of the day's
    impressions is the rate.

    Args:
        rows: Impressions.
        seed: Seed of everything drawn.
        users: Users; 0 means max(1000, rows // 50).
        ads: Ads; 0 means max(300, rows // 500).
        advertisers: Advertisers; 0 means max(40, ads // 20).
        days: Days of the log; at least five, of which two are for validation, two for test.
        task_agreement: Cosine in [-1, 1] between the tastes behind likes and clicks; None leaves
            out the task `like`.
        scenario_agreement: Cosine in [-1, 1] between the tastes in another scenario and in the
            first; None and 1 give all scenarios one taste.
        click_rate: Share in (0, 1) of impressions that are clicked; None keeps the constants'.
        conversion_rate: Share in (0, 1) of impressions that convert, below that of clicks.
        like_rate: Share in (0, 1) of impressions that are liked.

    Raises: UserError for sizes below these, and for agreements and rates that cannot be.
    """

    rows: int = 200_000
    seed: int = 0
    users: int = 0
    ads: int = 0
    advertisers: int = 0
    days: int = 14
    task_agreement: float | None = None
    scenario_agreement: float | None = None
    click_rate: float | None = None
    conversion_rate: float | None = None
    like_rate: float | None = None

    def __post_init__(self) -> None:
        least = {"rows": 1, "days": VALID_DAYS + TEST_DAYS + 1}
        for name in ("rows", "seed", "users", "ads", "advertisers", "days"):
            low, value = least.get(name, 0), getattr(self, name)
            if value < low:
                raise UserError(f"The synthetic log needs {name} >= {low}.", received=value)
        for name in ("task_agreement", "scenario_agreement"):
            agreement = getattr(self, name)
            if agreement is not None and not -1.0 <= agreement <= 1.0:
                raise UserError(
                    f"The synthetic log's {name} is a cosine.",
                    received=f"{name}={agreement}",
                    fix="give a number from -1 to 1",
                )
        for name in ("click_rate", "conversion_rate", "like_rate"):
            rate = getattr(self, name)
            if rate is not None and not 0.0 < rate < 1.0:
                raise UserError(
                    f"The synthetic log's {name} is a share of its rows.",
                    received=f"{name}={rate}",
                    fix="give a number between 0 and 1",
                )
        if self.like_rate is not None and self.task_agreement is None:
            raise UserError(
                "The synthetic log has no likes that could have a rate.",
                received=f"like_rate={self.like_rate} without task_agreement",
                fix="give task_agreement too, the cosine between tastes behind likes and clicks",
            )
        object.__setattr__(self, "users", self.users or max(1000, self.rows // 50))
        object.__setattr__(self, "ads", self.ads or max(300, self.rows // 500))
        object.__setattr__(self, "advertisers", self.advertisers or max(40, self.ads // 20))

    @property
    def train_until(self) -> int:
        """First day (yyyymmdd) of the validation days."""
        return int(self._dates()[-VALID_DAYS - TEST_DAYS])

    @property
    def valid_until(self) -> int:
        """First day (yyyymmdd) of the test days."""
        return int(self._dates()[-TEST_DAYS])

    def write(self, folder: Path) -> None:
        """Writes `log.parquet`, sorted by time, `users.parquet` and `ads.parquet`.

        Each file is written under another name and renamed, the log last.

        Args:
            folder: Where to write; made if it does not exist.

        Raises:
            UserError: if the folder cannot be written.
        """
        world = _World(self)
        names = ("users.parquet", "ads.parquet", "log.parquet")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=".", dir=folder) as place:
                users, ads, log = (Path(place, name) for name in names)
                pq.write_table(world.user_table(), users)
                pq.write_table(world.ad_table(), ads)
                days = world.days()
                first = next(days)
                with pq.ParquetWriter(log, first.schema) as writer:
                    for table in chain([first], days):
                        writer.write_table(table)
                for name in names:
                    os.replace(Path(place, name), folder / name)
        except OSError as error:
            what = f"The synthetic log cannot be written to {folder}."
            fix = "choose a folder that can be written and has space left"
            raise UserError(what, received=error, fix=fix) from error

    def _dates(self) -> Ints:
        """Returns the days (days,) as yyyymmdd."""
        dates = np.datetime64(FIRST_DAY) + np.arange(self.days)
        return np.array([int(str(date).replace("-", "")) for date in dates], dtype=np.int64)


@dataclass(frozen=True)
class _TasteSpace:
    """Taste vectors of one space: those that last, those of interests that turn, those of ads."""

    lasting: Floats  # (users, R)
    interests: Floats  # (INTERESTS, R)
    turn: Floats  # (INTERESTS, R), a day
    ads: Floats  # (ads, R)


class _World:
    """The users, the ads and the effects of one log; all drawn before its first row."""

    def __init__(self, log: SyntheticAdsLog) -> None:
        self.log = log
        seeds = np.random.SeedSequence(log.seed)
        users, ads, effects, *self.day_seeds = seeds.spawn(3 + log.days)
        self._draw_users(np.random.default_rng(users))
        self._draw_ads(np.random.default_rng(ads))
        self._draw_effects(np.random.default_rng(effects))
        # Later children of the seed: what is drawn above does not depend on whether these are used.
        likes, *spaces = seeds.spawn(1 + 2 * len(SCENARIOS))
        self.like_seeds = seeds.spawn(log.days)
        self._draw_likes(np.random.default_rng(likes))
        self._draw_taste_spaces(spaces)

    def _draw_users(self, rng: np.random.Generator) -> None:
        count = self.log.users
        self.user_weight = rng.permutation(_falling(count, POPULARITY_EXPONENT))
        self.age = _sample(rng, _falling(len(AGES), SIDE_EXPONENT), count)
        self.gender = _sample(rng, np.array(list(GENDERS.values())), count)
        self.city = _sample(rng, _falling(CITIES, SIDE_EXPONENT), count)
        self.interests = _distinct(rng, count, INTERESTS, MAX_INTERESTS)
        kept = np.arange(MAX_INTERESTS) < rng.integers(1, MAX_INTERESTS + 1, count)[:, None]
        weight = kept * rng.uniform(0.3, 1.0, kept.shape)
        self.interest_weight = np.round(weight / weight.sum(axis=1, keepdims=True), 3)
        activity = _standard(np.log(self.user_weight) + rng.normal(0.0, ACTIVITY_NOISE, count))
        known = rng.random(count) >= ACTIVITY_MISSING
        self.activity_shown = np.where(known, activity, np.nan)
        age = rng.normal(size=(len(AGES), TASTE_RANK))[self.age]
        city = rng.normal(size=(CITIES, TASTE_RANK))[self.city]
        parts = {"age": age, "city": city, "own": rng.normal(size=(count, TASTE_RANK))}
        self.lasting_taste = _mixed(parts, USER_TASTE)
        self.user_bias = ACTIVITY_EFFECT * activity
        for name, codes in (("age", self.age), ("gender", self.gender), ("city", self.city)):
            effect = _standard(rng.normal(size=codes.max() + 1))
            self.user_bias += USER_BIAS_SD[name] * effect[codes]
        self.user_bias += rng.normal(0.0, USER_BIAS_SD["own"], count)

    def _draw_ads(self, rng: np.random.Generator) -> None:
        log, count = self.log, self.log.ads
        self.ad_weight = rng.permutation(_falling(count, POPULARITY_EXPONENT))
        self.first_day = np.where(rng.random(count) < OLD_ADS, 0, rng.integers(1, log.days, count))
        self.first_day[np.argmax(self.ad_weight)] = 0  # the first day has an ad whatever the sizes
        self.advertiser = _sample(rng, _falling(log.advertisers, SIDE_EXPONENT), count)
        # An advertiser sells mostly in one category.
        home = rng.permutation(log.advertisers) % CATEGORIES
        other = rng.integers(0, CATEGORIES, count)
        self.category = np.where(rng.random(count) < HOME_SHARE, home[self.advertiser], other)
        pool = KEYWORDS // CATEGORIES
        own = self.category[:, None] * pool + _distinct(rng, count, pool, MAX_KEYWORDS)
        other = rng.integers(0, KEYWORDS, own.shape)
        self.keywords = np.where(rng.random(own.shape) < OWN_KEYWORDS, own, other)
        kept = rng.integers(2, MAX_KEYWORDS + 1, count)[:, None]
        self.keyword_kept = np.arange(MAX_KEYWORDS) < kept
        self.bid = np.round(rng.lognormal(0.0, BID_SD, count), 3)
        keyword = rng.normal(size=(KEYWORDS, TASTE_RANK))
        parts = {
            "own": rng.normal(size=(count, TASTE_RANK)),
            "category": rng.normal(size=(CATEGORIES, TASTE_RANK))[self.category],
            "advertiser": rng.normal(size=(log.advertisers, TASTE_RANK))[self.advertiser],
            "keywords": _weighted(keyword, self.keywords, self.keyword_kept),
        }
        self.ad_taste = _mixed(parts, AD_TASTE)
        bid = _standard(np.log(self.bid))
        self.ad_bias = BID_EFFECT * bid + rng.normal(0.0, AD_BIAS_SD["own"], count)
        self.ad_conversion = CONVERSION_BID * bid
        for name, codes in (("category", self.category), ("advertiser", self.advertiser)):
            effect = _standard(rng.normal(size=(codes.max() + 1, 2)))[codes]
            self.ad_bias += AD_BIAS_SD[name] * effect[:, 0]
            self.ad_conversion += CONVERSION_SD[name] * effect[:, 1]
        shown = np.column_stack([self.ad_taste, _standard(self.ad_bias)])  # (ads, R + 1)
        mixing = rng.normal(size=(shown.shape[1], CREATIVE_WIDTH)) / np.sqrt(shown.shape[1])
        noise = rng.normal(0.0, CREATIVE_NOISE, (count, CREATIVE_WIDTH))
        self.creative = (np.einsum("ar,rc->ac", shown, mixing) + noise).astype(np.float32)

    def _draw_effects(self, rng: np.random.Generator) -> None:
        days, scenarios = self.log.days, len(SCENARIOS)
        self.interest_taste = rng.normal(size=(INTERESTS, TASTE_RANK))
        self.interest_turn = TASTE_DRIFT * rng.normal(size=(INTERESTS, TASTE_RANK))
        self.scenario_category = rng.normal(0.0, CROSS_BIAS_SD, (scenarios, CATEGORIES))
        self.scenario_age = rng.normal(0.0, CROSS_BIAS_SD, (scenarios, len(AGES)))
        steps = rng.normal(0.0, CATEGORY_DRIFT_SD, (days, CATEGORIES))
        self.category_drift = np.cumsum(steps, axis=0)
        self.age_conversion = rng.normal(0.0, CONVERSION_SD["age"], len(AGES))
        self.scenario_conversion = rng.normal(0.0, CONVERSION_SD["scenario"], scenarios)
        self.popularity_drift = rng.normal(0.0, POPULARITY_DRIFT_SD, self.log.ads)
        self.hour_weight = 1.0 + HOUR_SWING * np.cos((np.arange(24) - BUSY_HOUR) * np.pi / 12)

    def _draw_likes(self, rng: np.random.Generator) -> None:
        self.category_like = rng.normal(0.0, LIKE_SD["category"], CATEGORIES)
        self.age_like = rng.normal(0.0, LIKE_SD["age"], len(AGES))
        self.scenario_like = rng.normal(0.0, LIKE_SD["scenario"], len(SCENARIOS))

    def _draw_taste_spaces(self, seeds: Sequence[np.random.SeedSequence]) -> None:
        """Draws the spaces of tasks and scenarios, and each task's and scenario's part of them.

        Args:
            seeds: Seeds of the spaces by task and scenario; the first space is drawn already.
        """
        log, scenarios = self.log, len(SCENARIOS)
        of_task = np.ones((1, 1))
        if log.task_agreement is not None:
            of_task = np.array([[1.0, 0.0], [log.task_agreement, _sine(log.task_agreement)]])
        of_scenario = np.ones((scenarios, 1))
        if log.scenario_agreement is not None:
            of_scenario = _sine(log.scenario_agreement) * np.eye(scenarios)
            of_scenario[:, 0] = log.scenario_agreement
            of_scenario[0, 0] = 1.0
        tasks, own = len(of_task), of_scenario.shape[1]
        # (T, S, spaces): the spaces' weights in the taste of a task in a scenario
        self.taste_part = np.einsum("tk,sm->tskm", of_task, of_scenario).reshape(
            tasks, scenarios, tasks * own
        )
        first = _TasteSpace(
            self.lasting_taste, self.interest_taste, self.interest_turn, self.ad_taste
        )
        others = [
            self._draw_taste_space(np.random.default_rng(seeds[task * scenarios + scenario]))
            for task in range(tasks)
            for scenario in range(own)
        ]
        self.taste_spaces = [first, *others[1:]]

    def _draw_taste_space(self, rng: np.random.Generator) -> _TasteSpace:
        """Draws another space, of the law of the first."""
        users, ads = self.log.users, self.log.ads
        side = {
            "age": rng.normal(size=(len(AGES), TASTE_RANK))[self.age],
            "city": rng.normal(size=(CITIES, TASTE_RANK))[self.city],
            "own": rng.normal(size=(users, TASTE_RANK)),
        }
        interests = rng.normal(size=(INTERESTS, TASTE_RANK))
        turn = TASTE_DRIFT * rng.normal(size=(INTERESTS, TASTE_RANK))
        keyword = rng.normal(size=(KEYWORDS, TASTE_RANK))
        parts = {
            "own": rng.normal(size=(ads, TASTE_RANK)),
            "category": rng.normal(size=(CATEGORIES, TASTE_RANK))[self.category],
            "advertiser": rng.normal(size=(self.log.advertisers, TASTE_RANK))[self.advertiser],
            "keywords": _weighted(keyword, self.keywords, self.keyword_kept),
        }
        return _TasteSpace(_mixed(side, USER_TASTE), interests, turn, _mixed(parts, AD_TASTE))

    def user_tastes(self, day: int) -> list[Floats]:
        """Returns the users' taste vectors (users, R) of a day in every space, of equal lengths."""
        tastes: list[Floats] = []
        for space in self.taste_spaces:
            interests = space.interests + day * space.turn  # (INTERESTS, R)
            moving = {"interests": _weighted(interests, self.interests, self.interest_weight)}
            taste = space.lasting + _mixed(moving, USER_TASTE)  # (users, R)
            if tastes:
                length, wanted = (np.sqrt((t**2).sum(axis=1)) for t in (taste, tastes[0]))
                taste *= (wanted / np.where(length > 0.0, length, 1.0))[:, None]
            tastes.append(taste)
        return tastes

    def user_table(self) -> pa.Table:
        """Returns the side features of all users, sorted by `user_id`."""
        kept = self.interest_weight > 0.0
        weights = self.interest_weight[kept].astype(np.float32)
        interests = _names(_numbered("interest", INTERESTS), self.interests[kept])
        columns = {
            "user_id": np.arange(self.log.users, dtype=np.int64),
            "age_bucket": _names(AGES, self.age),
            "gender": _names(list(GENDERS), self.gender),
            "city": _names(_numbered("city", CITIES), self.city),
            "interests": _lists(interests, kept),
            "interest_weights": _lists(pa.array(weights), kept),
            "activity": self.activity_shown,
        }
        return pa.table(columns)

    def ad_table(self) -> pa.Table:
        """Returns the side features of all ads, sorted by `ad_id`."""
        values = pa.array(self.creative.ravel())  # (ads, 16) -> (ads * 16,)
        creative = pa.FixedSizeListArray.from_arrays(values, CREATIVE_WIDTH)
        kept = self.keyword_kept
        keywords = _names(_numbered("keyword", KEYWORDS), self.keywords[kept])
        columns = {
            "ad_id": np.arange(self.log.ads, dtype=np.int64),
            "advertiser_id": self.advertiser.astype(np.int64),
            "category": _names(_numbered("category", CATEGORIES), self.category),
            "bid": self.bid,
            "keywords": _lists(keywords, kept),
            "creative": creative,
        }
        return pa.table(columns)

    def days(self) -> Iterator[pa.Table]:
        """Yields the rows of each day, sorted by time."""
        log, dates = self.log, self.log._dates()
        start = int(np.datetime64(FIRST_DAY, "ms").astype(np.int64))
        ends = np.arange(log.days + 1) * log.rows // log.days
        for day, seed in enumerate(self.day_seeds):
            rng, rows = np.random.default_rng(seed), int(ends[day + 1] - ends[day])
            hour = np.sort(_sample(rng, self.hour_weight, rows))
            time = np.sort(hour * (DAY_MS // 24) + rng.integers(0, DAY_MS // 24, rows))
            user = _sample(rng, self.user_weight, rows)
            ad = _sample(rng, self._ad_weight(day), rows)
            scenario = _sample(rng, np.array(list(SCENARIOS.values()))[:, 0], rows)
            device = _sample(rng, np.array(list(DEVICES.values()))[:, 0], rows)
            position = rng.integers(0, POSITIONS, rows)
            drawn = [user, ad, scenario, device, position, hour]
            p_click, p_after, p_like = self._probabilities(day, drawn)
            click = rng.random(rows) < p_click
            conversion = click & (rng.random(rows) < p_after)
            columns = {
                "user_id": user,
                "ad_id": ad,
                "time_ms": start + day * DAY_MS + time,
                "day": np.full(rows, dates[day], dtype=np.int32),
                "hour": hour.astype(np.int32),
                "scenario": _names(list(SCENARIOS), scenario),
                "device": _names(list(DEVICES), device),
                "position": position.astype(np.int32),
                "click": click.astype(np.int32),
                "conversion": conversion.astype(np.int32),
                "p_click": p_click,
                "p_conversion": p_click * p_after,
            }
            if p_like is not None:
                like = np.random.default_rng(self.like_seeds[day]).random(rows) < p_like
                columns |= {"like": like.astype(np.int32), "p_like": p_like}
            yield pa.table(columns)

    def _ad_weight(self, day: int) -> Floats:
        """Returns how likely each ad (ads,) is shown on a day."""
        age = day - self.first_day
        weight = self.ad_weight * 0.5 ** (age / AD_HALF_LIFE) * np.exp(self.popularity_drift * age)
        return np.where(age >= 0, weight, 0.0)

    def _probabilities(
        self, day: int, rows: Sequence[Ints]
    ) -> tuple[Floats, Floats, Floats | None]:
        """Returns P(click), P(conversion | click) and P(like) of a day's rows, each (rows,).

        P(like) is None in a log without likes.
        """
        user, ad, scenario, device, position, hour = rows
        _, bias, strength = np.array(list(SCENARIOS.values())).T
        category, age = self.category[ad], self.age[user]
        tastes = self._taste_terms(day, user, ad, scenario)  # (T, rows)
        click = bias[scenario] + strength[scenario] * tastes[0]
        click += self.user_bias[user] + self.ad_bias[ad] + self.category_drift[day][category]
        click += self.scenario_category[scenario, category] + self.scenario_age[scenario, age]
        click += np.array(list(DEVICES.values()))[device, 1] + POSITION_STEP * position
        click += HOUR_AMPLITUDE * np.sin(2.0 * np.pi * hour / 24.0)
        after = CONVERSION_BIAS + CONVERSION_TASTE * tastes[0] + self.ad_conversion[ad]
        after += self.age_conversion[age] + self.scenario_conversion[scenario]
        log = self.log
        p_click = _sigmoid(_at_rate(click, log.click_rate))
        if log.conversion_rate is not None and len(user) and log.conversion_rate >= p_click.mean():
            raise UserError(
                "The synthetic log cannot have as many conversions as clicks or more.",
                received=f"conversion_rate={log.conversion_rate} where {p_click.mean():.4f} of a "
                "day's rows are clicked",
                fix="give a smaller conversion_rate or a larger click_rate",
            )
        p_after = _sigmoid(_at_rate(after, log.conversion_rate, p_click))
        if log.task_agreement is None:
            return p_click, p_after, None
        like = LIKE_BIAS + self.category_like[category] + self.age_like[age]
        like += self.scenario_like[scenario] + strength[scenario] * tastes[1]
        return p_click, p_after, _sigmoid(_at_rate(like, log.like_rate))

    def _taste_terms(self, day: int, user: Ints, ad: Ints, scenario: Ints) -> Floats:
        """Returns the taste term of each task (T, rows), before a scenario's strength."""
        terms = np.zeros((len(self.taste_part), len(user)))
        for number, taste in enumerate(self.user_tastes(day)):
            term = np.einsum("nr,nr->n", taste[user], self.taste_spaces[number].ads[ad])
            term *= TASTE_SD / np.sqrt(TASTE_RANK)
            terms += self.taste_part[:, scenario, number] * term
        return terms


def _sigmoid(logit: Floats) -> Floats:
    """Returns 1 / (1 + exp(-logit))."""
    return 1.0 / (1.0 + np.exp(-logit))


def _sine(cosine: float) -> float:
    """Returns the sine in [0, 1] of an angle by its cosine."""
    return float(np.sqrt(1.0 - cosine**2))


def _at_rate(logit: Floats, rate: float | None, weight: Floats | float = 1.0) -> Floats:
    """Returns the logits (N,) shifted until the mean of weight * sigmoid(logit) is the rate.

    Args:
        logit: Logits (N,).
        rate: The mean, below that of the weights; None shifts nothing.
        weight: Weights (N,) in [0, 1], or one for all.
    """
    if rate is None or not len(logit):
        return logit
    # The mean grows with the shift; at these limits every probability is 0 or 1 to the last digit.
    low, high = -40.0 - logit.max(), 40.0 - logit.min()
    for _ in range(SHIFT_HALVINGS):
        shift = (low + high) / 2.0
        if (weight * _sigmoid(logit + shift)).mean() < rate:
            low = shift
        else:
            high = shift
    return logit + high


def _falling(count: int, exponent: float) -> Floats:
    """Returns weights (count,) that fall as a power of the rank."""
    return (POPULARITY_OFFSET * count + np.arange(1, count + 1, dtype=np.float64)) ** -exponent


def _standard(values: Floats) -> Floats:
    """Returns columns shifted and scaled to mean 0 and variance 1; constant ones become 0."""
    spread = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0)


def _mixed(parts: dict[str, Floats], shares: dict[str, float]) -> Floats:
    """Returns the sum (N, R) of standardised parts (N, R) with these shares of its variance."""
    return np.sum([np.sqrt(shares[name]) * _standard(parts[name]) for name in parts], axis=0)


def _weighted(table: Floats, codes: Ints, weights: NDArray[Any]) -> Floats:
    """Returns the weighted means (N, R) of the rows of `table` at codes (N, C)."""
    total = np.einsum("nc,ncr->nr", weights.astype(np.float64), table[codes])
    return total / weights.sum(axis=1, keepdims=True)


def _distinct(rng: np.random.Generator, count: int, codes: int, width: int) -> Ints:
    """Returns `width` different codes below `codes` per row, (count, width)."""
    return np.argsort(rng.random((count, codes)), axis=1)[:, :width]


def _sample(rng: np.random.Generator, weight: Floats, rows: int) -> Ints:
    """Returns `rows` indices drawn with probabilities proportional to `weight`."""
    edges = np.cumsum(weight)
    return np.searchsorted(edges, rng.random(rows) * edges[-1], side="right")


def _numbered(name: str, count: int) -> list[str]:
    """Returns `name_000`, `name_001`, ..."""
    return [f"{name}_{number:03d}" for number in range(count)]


def _names(names: Sequence[str], codes: Ints) -> pa.Array:
    """Returns the string (N,) of each code."""
    return pa.array(names, pa.string()).take(pa.array(codes))


def _lists(values: pa.Array, kept: NDArray[np.bool_]) -> pa.ListArray:
    """Returns a list per row of `kept` (N, C) over the flat values of its true cells."""
    offsets = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)
