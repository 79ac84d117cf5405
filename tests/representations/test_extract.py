"""Extraction on a small chain: what is stored, and that no later event touches it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.data.input import apply, batches
from lfm4ads_tf.data.splits import AUXILIARY, TRAIN
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.representations.config import RepresentationsConfig
from lfm4ads_tf.representations.extract_periods import extend, extract_periods, resume_states
from lfm4ads_tf.representations.extraction import Extraction
from lfm4ads_tf.representations.store import RepresentationStore
from lfm4ads_tf.representations.writer import RepresentationWriter
from lfm4ads_tf.strict import parse
from lfm4ads_tf.training.checkpoints import read_weights, write_weights
from lfm4ads_tf.training.schedule import chain
from lfm4ads_tf.training.trainer import Trainer
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

FEATURES = ["user_id", "segment", "user_click", "clicked", "item_id", "brand", "tab"]
UPSTREAM = {
    "network": {
        "user_tower": [4],
        "item_tower": [3],
        "block": {
            "layers": [{"type": "cross", "depth": 1}, {"type": "dnn", "units": [5], "dropout": 0.1}]
        },
    },
    "embeddings": {"dim": 4, "init_scale": 0.1},
    "training": {
        "schedule": "chain",
        "batch_size": 32,
        "optimizer": {"table_learning_rate": 0.1, "dense_learning_rate": 0.01, "clip_norm": 1.0},
    },
}
HALF_LIFE = 30.0


@dataclass(frozen=True)
class Chain:
    """A trained chain and its stored representations."""

    world: Any
    model: FoundationModel
    folder: Path
    store: RepresentationStore

    def load(self, period: int | None) -> None:
        read_weights(
            self.model, self.folder / (f"snapshots/{period}" if period is not None else "weights")
        )


def train_and_extract(world: Any, folder: Path, **over: Any) -> Chain:
    config = parse(RunConfig, {"upstream": UPSTREAM}, source="run")
    model = build.upstream(world.cache.layout, config, 3)
    trainer = Trainer(
        model,
        [model.backbone.embeddings],
        Objective.of(model.loss_terms, config.upstream.training.optimizer),
        world.cache,
        config.upstream.training,
        seed=3,
        label="chain",
        folder=folder,
        tensorboard=folder / "tensorboard",
        quiet=True,
    )
    trainer.fit(chain(config.upstream.training, world.cache))
    write_weights(model, folder / "weights")
    return store_of(Chain(world, model, folder, None), "version", **over)  # type: ignore[arg-type]


def store_of(made: Chain, name: str, **over: Any) -> Chain:
    options = RepresentationsConfig(half_life=HALF_LIFE, **over)
    (made.folder / name).mkdir()
    writer = RepresentationWriter(made.folder / name)
    extract_periods(made.model, made.load, made.world.cache, options, writer, quiet=True)
    writer.close({"version": "1", **options.model_dump(mode="json")})
    return Chain(made.world, made.model, made.folder, RepresentationStore(made.folder / name))


@pytest.fixture(scope="module")
def features(ads_features: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return ads_features(*FEATURES)


@pytest.fixture(scope="module")
def made(
    make_ads: Callable[..., Any], features: Any, tmp_path_factory: pytest.TempPathFactory
) -> Chain:
    return train_and_extract(make_ads(features=features), tmp_path_factory.mktemp("chain"))


def parts(store: RepresentationStore) -> dict[tuple[str, str, int], dict[str, np.ndarray]]:
    """(name, state, valid_from) -> key -> vector."""
    out = {}
    for name, entry in store.manifest["representations"].items():
        for part in [*entry["parts"], *entry.get("refreshed", [])]:
            table = pq.read_table(store.folder / part["file"])
            vectors = np.array(table["vector"].to_pylist(), np.float32)
            keys = table["key"].to_pylist()
            assert len(set(keys)) == len(keys) == part["rows"]
            assert set(table["valid_from"].to_pylist()) == {part["period"]}
            where = (name, part["state"], part["valid_from"])
            out[where] = dict(zip(keys, vectors, strict=True))
    return out


def represented(model: FoundationModel, batch: Any) -> dict[str, tf.Tensor]:
    """With the model as an argument, so that one trace serves all calls."""
    return model.represent(batch)


def activations(made: Chain, rows: np.ndarray) -> dict[str, np.ndarray]:
    data = batches(made.world.cache, rows, 1000, refresh="daily")
    found = list(apply(represented, data, made.model))
    return {n: v.numpy() for n, v in found[0].items()}


def ahead(made: Chain, side: str, period: int, state: str) -> dict[str, np.ndarray]:
    """Key -> tower output on its row ahead, by the weights that are loaded."""
    cache = made.world.cache
    places = cache.ahead(period, daily=state == "daily")
    data = batches(cache, places, 1000, ahead=True)
    tower = "UR" if side == "user" else "IR"
    out = np.concatenate([v[tower].numpy() for v in apply(represented, data, made.model)])
    codes = (cache.user if side == "user" else cache.item)[cache.ahead_row[places]]
    raw = cache.keys(side).to_pylist()
    return {raw[code]: out[k] for k, code in enumerate(codes)}  # the last row of a key stays


@pytest.mark.slow
def test_after_training_every_key_has_its_vector_by_the_final_weights(made: Chain) -> None:
    cache, stored = made.world.cache, parts(made.store)
    sizes = {
        tower: largest_of(*(v for k, v in stored.items() if k[0] == tower))
        for tower in ("UR", "IR")
    }
    end = int(cache.period[cache.train_rows].max()) + 1
    made.load(None)
    trained = np.isin(cache.split, (TRAIN, AUXILIARY))
    for side, tower in (("user", "UR"), ("item", "IR")):
        codes = cache.user if side == "user" else cache.item
        raw = cache.keys(side).to_pylist()
        found = stored[tower, "train", end] | stored.get((tower, "refresh", end), {})
        assert found.keys() == {raw[c] for c in codes[trained]}
        for key, vector in ahead(made, side, end, "train").items():
            assert_close(found[key], vector, terms=24, magnitude=sizes[tower])
        keys, vectors = made.store.frozen(tower)
        assert found.keys() == set(keys.to_pylist())
        for key, vector in zip(keys.to_pylist(), vectors, strict=True):
            np.testing.assert_array_equal(found[key], vector)


def same_ids(made: Chain, first: int, second: int) -> bool:
    cache = made.world.cache
    one, other = (cache.take(np.array([r])) for r in (first, second))
    bags = [[*b["bags"]["clicked"].values.tolist()] for b in (one, other)]
    return np.array_equal(one["ids"], other["ids"]) and 0 not in (*bags[0], *bags[1])


def test_stored_values_are_the_definition(made: Chain) -> None:
    cache, stored = made.world.cache, parts(made.store)
    sizes = {
        tower: largest_of(*(v for k, v in stored.items() if k[0] == tower))
        for tower in ("UR", "IR")
    }
    layers = ["towers", "cross_1", "dnn_1"]
    names = ["UR", "IR", *[f"CR_{s}@{n}" for s in ("user", "item") for n in layers]]
    assert sorted(made.store.dims) == sorted(names)
    trained = np.isin(cache.split, (TRAIN, AUXILIARY))
    keys = {"user": cache.keys("user").to_pylist(), "item": cache.keys("item").to_pylist()}
    codes = {"user": cache.user, "item": cache.item}
    events: dict[tuple[str, str, str], list[tuple[float, np.ndarray]]] = {}
    seen = set()
    compared = 0
    for period in [-1, *range(8)]:
        rows = np.flatnonzero(cache.period == period)
        train = bool(trained[rows[0]])
        made.load(period + 1 if train else None)
        values = activations(made, rows)
        state = "train" if train else "daily"
        # Rows of the next period have the features that UR and IR are made of.
        following = np.flatnonzero((cache.period == period + 1) & (trained == train))
        live = activations(made, following) if len(following) else None
        for side, tower in (("user", "UR"), ("item", "IR")):
            last = {keys[side][codes[side][r]]: k for k, r in enumerate(rows)}
            found = stored[tower, state, period + 1]
            assert found.keys() == last.keys()
            for key, vector in ahead(made, side, period + 1, state).items():
                if key in last:
                    assert_close(found[key], vector, terms=24, magnitude=sizes[tower])
            for k, r in enumerate(following):
                key = keys[side][codes[side][r]]
                # An id is admitted with a later event: the earlier one still has another.
                if live is not None and key in found and same_ids(made, r, rows[last[key]]):
                    assert_close(found[key], live[tower][k], terms=24, magnitude=sizes[tower])
                    compared += 1
            for layer in layers:
                for k, r in enumerate(rows):
                    key = keys[side][codes[side][r]]
                    event = (cache.time[r] / 3600, values[layer][k].astype(np.float64))
                    events.setdefault((side, layer, key), []).append(event)
                found = stored[f"CR_{side}@{layer}", state, period + 1]
                assert found.keys() == last.keys()
                for key in last:
                    past = events[side, layer, key]
                    fade = [2 ** (-(past[-1][0] - t) / HALF_LIFE) for t, _ in past]
                    mean = np.sum([f * v for f, (_, v) in zip(fade, past, strict=True)], axis=0)
                    mean /= np.sum(fade)
                    normed = (mean - mean.mean()) / np.sqrt(mean.var() + 1e-6)
                    spread = np.sqrt(mean.var() + 1e-6)
                    assert_close(
                        found[key], normed, terms=ROUNDINGS, magnitude=largest(past) / spread
                    )
        seen |= {(n, state, period + 1) for n in names}
    assert seen == set(stored)
    assert compared


@pytest.mark.parametrize("day", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_no_event_from_a_day_on_touches_what_is_valid_that_day(
    made: Chain,
    make_ads: Callable[..., Any],
    changed_from: Callable[..., Any],
    features: Any,
    tmp_path: Path,
    day: int,
) -> None:
    """Users, items, scenarios, labels and the number of events change; weights are trained anew."""
    other = train_and_extract(make_ads(changed_from(day), features=features), tmp_path)
    one, two = parts(made.store), parts(other.store)
    early = [where for where in one if where[1] == "train" and where[2] <= day]
    assert len(early) == 8 * (day + 1)
    for where in early:
        assert one[where].keys() == two[where].keys(), where
        for key, vector in one[where].items():
            assert np.array_equal(vector, two[where][key]), (where, key)
    later = [where for where in one if where[1] == "train" and where[2] > day]
    assert any(
        not np.array_equal(one[w][k], two[w][k])
        for w in later
        for k in one[w].keys() & two[w].keys()
    )
    # The rows of that day receive bit-equal representations through the lookup.
    names = list(made.store.dims)
    found = []
    for chain_ in (made, other):
        cache = chain_.world.cache
        users, items = cache.keys("user").to_pylist(), cache.keys("item").to_pylist()
        rows = np.flatnonzero(cache.period < day)
        joined = chain_.store.lookup(cache, names)(rows)
        assert [users[u] for u in cache.user[rows]] and [items[i] for i in cache.item[rows]]
        found.append(joined)
    for name in names:
        assert np.array_equal(found[0][name], found[1][name])
        assert found[0][name][:, -1].any()


def test_one_snapshot_uses_the_final_weights(made: Chain) -> None:
    single = store_of(made, "single", snapshots="single", layers=["dnn_1"])
    assert sorted(single.store.dims) == ["CR_item@dnn_1", "CR_user@dnn_1", "IR", "UR"]
    made.load(None)
    stored = parts(single.store)["UR", "train", 1]
    expected = ahead(made, "user", 1, "train")
    for key in stored:
        assert_close(stored[key], expected[key], terms=24, magnitude=largest_of(stored))
    assert not np.allclose(stored[key], parts(made.store)["UR", "train", 1][key])


def test_an_unknown_layer_is_refused(made: Chain) -> None:
    with pytest.raises(UserError, match="unknown layer 'dnn_2'. Did you mean 'dnn_1'"):
        store_of(made, "wrong", layers=["dnn_2"])
    assert json.loads((made.store.folder / "manifest.json").read_text())["version"] == "1"


EVENTS: dict[str, Any] = {
    "mode": "event",
    "layers": ["dnn_1"],
    "aggregations": ["count_decay", "mean-raw", "last"],
}


@pytest.fixture(scope="module")
def by_event(made: Chain) -> Chain:
    return store_of(made, "event", **EVENTS)


def test_event_mode_is_the_state_just_before_the_row(made: Chain, by_event: Chain) -> None:
    """A loop over the log; each period's activations are of weights that have not seen it."""
    cache, store = made.world.cache, by_event.store
    names = []
    for side in ("user", "item"):
        names += [f"CR_{side}@dnn_1{e}" for e in ("", "~count_decay", "~mean-raw", "~last")]
    assert sorted(store.dims) == sorted([*names, "UR", "IR"])
    everything = np.arange(cache.rows)
    joined = store.lookup(cache, names, "daily")(everything)
    codes = {"user": cache.user, "item": cache.item}
    past: dict[tuple[str, int], list[tuple[float, np.ndarray]]] = {}
    for period in [-1, *range(8)]:
        rows = np.flatnonzero(cache.period == period)
        train = np.isin(cache.split[rows[0]], (TRAIN, AUXILIARY))
        made.load(max(period, 0) if train else None)
        values = activations(made, rows)
        for k, r in enumerate(rows):
            for side in ("user", "item"):
                log = past.setdefault((side, int(codes[side][r])), [])
                cr = f"CR_{side}@dnn_1"
                mine = [joined[n][r] for n in (cr, *[cr + e for e in VARIANTS])]
                if period < 0 or not log:
                    assert not np.concatenate(mine).any()
                else:
                    assert all(m[-1] == 1 for m in mine)
                    for one, (vector, size) in zip(mine, before(log), strict=True):
                        assert_close(one[:-1], vector, terms=ROUNDINGS, magnitude=size)
                log.append((cache.time[r] / 3600, values["dnn_1"][k]))
    # UR and IR are functions of features, not of events: they are those of the mode `daily`.
    own = parts(store)
    assert own.keys() >= {k for k in parts(made.store) if k[0] in ("UR", "IR")}
    for where, vectors_of in parts(made.store).items():
        if where[0] in ("UR", "IR"):
            for key, vector in vectors_of.items():
                np.testing.assert_array_equal(own[where][key], vector)
    # Under `frozen`, valid and test rows see the end of training.
    later = np.flatnonzero(~np.isin(cache.split, (TRAIN, AUXILIARY)))
    keys, vectors = store.frozen("CR_user@dnn_1~mean-raw")
    place = {key: k for k, key in enumerate(keys.to_pylist())}
    users = cache.keys("user").to_pylist()
    frozen = store.lookup(cache, ["CR_user@dnn_1~mean-raw"])(everything)["CR_user@dnn_1~mean-raw"]
    for r in later:
        np.testing.assert_array_equal(frozen[r, :-1], vectors[place[users[cache.user[r]]]])
    trained = np.setdiff1d(everything, later)
    assert np.array_equal(frozen[trained], joined["CR_user@dnn_1~mean-raw"][trained])


VARIANTS = ("~count_decay", "~mean-raw", "~last")


def largest_of(*vectors: dict[str, np.ndarray]) -> float:
    """Of the numbers of some parts: single vectors have few, which may all be sums that cancel."""
    return max(float(np.abs(vector).max()) for part in vectors for vector in part.values())


ROUNDINGS = 120  # of an activation (some 40 terms) and of sums over the events of a key


def largest(log: list[tuple[float, np.ndarray]]) -> float:
    """Of the activations; a weighted mean's terms add up to no more."""
    return max(float(np.abs(v).max()) for _, v in log)


def before(log: list[tuple[float, np.ndarray]]) -> list[tuple[np.ndarray, float]]:
    """Time decay, count decay, mean and last of some events, each with the size of its terms."""
    stacked = np.stack([v for _, v in log]).astype(np.float64)
    times = np.array([t for t, _ in log])
    fade = 2.0 ** (-(times[-1] - times) / HALF_LIFE)
    counted = 0.99 ** np.arange(len(log))[::-1]

    def normed(v: np.ndarray, weight: float = 1.0) -> tuple[np.ndarray, float]:
        """Layer normalisation divides differences to the mean, and their roundings too."""
        spread = np.sqrt(v.var() + 1e-6)
        return (v - v.mean()) / spread, weight * largest(log) / spread

    return [
        normed(fade @ stacked / fade.sum()),
        normed(counted @ stacked, counted.sum()),
        (stacked.mean(axis=0), largest(log)),
        normed(stacked[-1]),
    ]


class Rewritten:
    """A cache whose rows from n on hold other events; row n keeps its keys."""

    def __init__(self, cache: Any, n: int) -> None:
        self._cache = cache
        self._source = np.arange(cache.rows)
        rng = np.random.default_rng(n)
        self._source[n:] = rng.integers(n, cache.rows, cache.rows - n)
        self.user, self.item = cache.user[self._source], cache.item[self._source]
        self.user[n], self.item[n] = cache.user[n], cache.item[n]

    def take(self, rows: np.ndarray, refresh: Any = "frozen") -> Any:
        return self._cache.take(self._source[rows], refresh)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)


@pytest.mark.parametrize("place", [0.3, 0.55, 0.7, 0.9])
def test_no_event_from_a_row_on_touches_what_rows_up_to_it_see(
    made: Chain, by_event: Chain, tmp_path: Path, place: float
) -> None:
    cache = made.world.cache
    n = int(place * cache.rows)

    def load(valid_from: int | None) -> None:
        """Weights that have seen the row's period or later are others."""
        trained = np.isin(cache.split[n], (TRAIN, AUXILIARY))
        changed = trained and (valid_from is None or valid_from > cache.period[n])
        made.load(1 if changed else valid_from)

    rewritten: Any = Rewritten(cache, n)
    options = RepresentationsConfig(half_life=HALF_LIFE, **EVENTS)
    writer = RepresentationWriter(tmp_path)
    extract_periods(made.model, load, rewritten, options, writer, quiet=True)
    writer.close({"version": "1", **options.model_dump(mode="json")})
    rows, later = np.arange(n + 1), np.arange(n + 1, cache.rows)
    names = list(by_event.store.dims)
    ours = by_event.store.lookup(cache, names, "daily")
    theirs = RepresentationStore(tmp_path).lookup(rewritten, names, "daily")
    for name in names:
        assert ours(rows)[name].tobytes() == theirs(rows)[name].tobytes(), name
        assert ours(rows)[name][:, -1].any()
        assert not np.array_equal(ours(later)[name], theirs(later)[name])


def test_repeated_extraction_gives_the_same_bits(made: Chain) -> None:
    again = store_of(made, "again")
    one, two = parts(made.store), parts(again.store)
    assert list(one) == list(two)
    for where in one:
        assert all(v.tobytes() == two[where][k].tobytes() for k, v in one[where].items())


def test_a_new_period_continues_an_earlier_version(made: Chain, tmp_path: Path) -> None:
    """The same parts as from the whole log, though the earlier rows are not read."""
    cache = made.world.cache
    options = RepresentationsConfig(half_life=HALF_LIFE, aggregations=["count_decay", "last"])
    rows = {p: np.flatnonzero(cache.period == p) for p in range(-1, 6)}
    made.load(None)

    def folder(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    stores = []
    for name, last in (("earlier", 4), ("whole", 5)):
        writer = RepresentationWriter(folder(name))
        with Extraction(made.model, cache, options, writer) as extraction:
            for period in range(-1, last + 1):
                extraction.advance(rows[period], period, "train")
                extraction.write_towers(period, "train")
            extraction.save(writer.folder / "state" / "latest")
        # as versions were written before aggregations had options of their own
        settings = options.model_dump(mode="json", exclude={"aggregation_options"})
        writer.close({"version": name, **settings})
        stores.append(RepresentationStore(writer.folder))
    writer = RepresentationWriter(folder("later"))
    extend(made.model, cache, options, writer, stores[0], rows[5], 5)
    writer.close({"version": "later", **options.model_dump(mode="json")})
    later, whole = parts(RepresentationStore(writer.folder)), parts(stores[1])
    assert later.keys() == whole.keys()
    for where, vectors in whole.items():
        assert vectors.keys() == later[where].keys()
        assert all(np.array_equal(v, later[where][k]) for k, v in vectors.items()), where
    other = options.model_copy(update={"decay": 0.5})
    with pytest.raises(UserError, match="decay was 0.99, is now 0.5"):
        extend(made.model, cache, other, writer, stores[0], rows[5], 5)
    other = options.model_copy(update={"aggregation_options": {"last": {"count": 2}}})
    with pytest.raises(UserError, match="aggregation_options was {}, is now {'last'"):
        extend(made.model, cache, other, writer, stores[0], rows[5], 5)


def test_a_version_without_states_is_refused(made: Chain, tmp_path: Path) -> None:
    writer = RepresentationWriter(tmp_path)
    with pytest.raises(UserError, match="holds no states"):
        with Extraction(made.model, made.world.cache, RepresentationsConfig(), writer) as begun:
            resume_states(begun, tmp_path)


def test_a_model_of_another_version_is_refused(made: Chain) -> None:
    made.store.require("1")
    with pytest.raises(UserError, match="trained with 0, stored is 1"):
        made.store.require("0")
