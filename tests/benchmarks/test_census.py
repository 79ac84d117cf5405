"""The comparison on Census-Income, on small encoded rows and with a peer that is a stub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import census
from benchmarks.census import MODELS, Recipe, Trained, chosen, entries, network_of, train_ours
from benchmarks.peers.task_network import Model, TaskNetwork
from lfm4ads_tf.data.cache import AHEAD, INDEX, CacheContent, EncodedCache, write_cache
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import DenseField, FeatureLayout, IdField, TableField
from lfm4ads_tf.metrics import auc

ROWS = {"train": 640, "valid": 160, "test": 200}
RECIPE = Recipe(batch=64, epochs=3, learning_rate=3e-2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> EncodedCache:
    """Two tasks that two of the features decide, one of them against the other."""
    rng, count = np.random.default_rng(0), sum(ROWS.values())
    tables = (TableField("age", 6), TableField("job", 5), TableField("year", 2))
    layout = FeatureLayout(
        fields=(
            IdField("age", "user", "age"),
            IdField("job", "item", "job"),
            IdField("year", "context", "year"),
        ),
        dense=(DenseField("weeks", "user"),),
        tables=tables,
        scenarios=("all",),
        tasks=("income", "never_married"),
    )
    ids = np.stack([rng.integers(-1, table.rows, count) for table in tables], axis=1)
    strength = 2.0 * ids[:, 0] - 5.0 + ids[:, 1]
    chance = 1 / (1 + np.exp(-np.stack([strength, -strength], axis=1)))
    columns: dict[str, Any] = {name: np.zeros(count, np.int32) for name in INDEX}
    columns |= {name: np.zeros(0, np.int32) for name in AHEAD}
    columns |= {
        "ids": ids.astype(np.int32),
        "dense": rng.normal(size=(count, 1)).astype(np.float32),
        "labels": (rng.random(chance.shape) < chance).astype(np.float32),
        "segments": np.zeros((count, 0), bool),
        "time": np.arange(float(count)),
        "split": np.repeat(np.arange(3, dtype=np.int8), list(ROWS.values())),
    }
    folder = tmp_path_factory.mktemp("census")
    content = CacheContent(
        layout=layout,
        columns=columns,
        bags={},
        moving_columns=[],
        moving_dense=None,
        moving_bags={},
        ahead_columns=[],
        ahead_bags={},
        best_possible=None,
        keys={"user": pa.array(["u"]), "item": pa.array(["i"])},
        manifest={"periods": ["0"]},
    )
    write_cache(folder, content)
    return EncodedCache(folder)


def tables_of(network: TaskNetwork) -> int:
    """Floats of the tables, a missing id's rows among them."""
    return sum((rows + 1) * network.dim for _, _, rows in network.fields)


def each_floats() -> Iterator[Any]:
    """A recipe and the floats of its networks; one of the recipes is quick.

    d = 13; towers of h to 8 to 1; a scenario's own logit of 8 + 1 for each of two tasks.
    """
    yield "mmoe", 8 * (13 * 16 + 16) + 2 * (13 * 8 + 8) + 2 * (16 * 8 + 8 + 8 + 1)
    others = {
        "shared_bottom": 13 * 117 + 117 + 2 * (117 * 8 + 8 + 8 + 1),
        "ple": 5 * (13 * 16 + 16) + 2 * (13 * 3 + 3) + 2 * (16 * 8 + 8 + 8 + 1),
        "aitm": 2 * (13 * 32 + 32 + 32 * 16 + 16)
        + (16 * 16 + 16 + 3 * 16 * 16)
        + 2 * (16 * 8 + 8 + 8 + 1),
    }
    for name, floats in others.items():
        yield pytest.param(name, floats, marks=pytest.mark.slow)


@pytest.mark.parametrize(("model", "floats"), each_floats())
def test_ours_has_the_recipes_sizes_and_learns(
    model: Model, floats: int, cache: EncodedCache, tmp_path: Path
) -> None:
    network = network_of(model, cache)
    trained = train_ours(network, cache, RECIPE, 0, tmp_path)
    assert trained.floats == tables_of(network) + floats + 2 * 9
    assert len(trained.valid) == 3
    assert trained.valid[trained.epoch - 1] == max(trained.valid)
    assert set(trained.auc) == {"income", "never_married"}
    assert min(trained.auc.values()) > 0.8  # the labels say as much for everyone
    again = train_ours(network, cache, RECIPE, 0, tmp_path / "again")
    assert replace(again, seconds=0) == replace(trained, seconds=0)


def test_a_cache_with_lists_is_refused(cache: EncodedCache) -> None:
    bag = IdField("tags", "user", "job", "mean")

    class Other:
        layout = replace(cache.layout, fields=(*cache.layout.fields, bag))

    with pytest.raises(UserError, match="single-valued"):
        network_of("mmoe", Other())  # type: ignore[arg-type]


def test_the_peer_reads_the_rows_that_ours_reads(cache: EncodedCache, tmp_path: Path) -> None:
    census.write_rows(cache, tmp_path)
    for part, count in ROWS.items():
        rows = cache.rows_of(part)
        ids = np.load(tmp_path / f"{part}_ids.npy")
        assert ids.dtype == np.int64 and len(ids) == count
        np.testing.assert_array_equal(ids, cache.column("ids")[rows])
        numbers = np.load(tmp_path / f"{part}_numbers.npy")
        np.testing.assert_array_equal(numbers, cache.column("dense")[rows])
    labels = np.load(tmp_path / "train_labels.npy")
    np.testing.assert_array_equal(labels, cache.labels[cache.rows_of("train")])
    assert not (tmp_path / "test_labels.npy").exists()  # nothing to choose by


def test_the_epoch_is_chosen_on_validation_alone(cache: EncodedCache) -> None:
    rng = np.random.default_rng(1)
    noise = {part: rng.random((3, ROWS[part], 2)) for part in ("valid", "test")}
    valid, test = cache.labels[cache.rows_of("valid")], cache.labels[cache.rows_of("test")]
    scores = {"valid": noise["valid"].copy(), "test": noise["test"].copy()}
    scores["valid"][1] += 0.3 * valid  # the second epoch is the best one on validation
    scores["test"][2] += 9.0 * test  # and the third one on test, which nobody may know
    found = chosen(cache, scores["valid"], scores["test"], {"seconds": 2.0, "floats": 5})
    assert found.epoch == 2 and found.valid[1] == max(found.valid)
    expected = {
        task: auc(test[:, k], scores["test"][1][:, k]) for k, task in enumerate(cache.layout.tasks)
    }
    assert found.auc == expected
    assert (found.seconds, found.floats) == (2.0, 5)


def trained(*values: float) -> list[Trained]:
    return [Trained({"income": value}, 1, [0.5], 1.0, 7) for value in values]


def test_differences_are_of_means_over_seeds() -> None:
    (entry,) = entries("mmoe", trained(0.90, 0.92), trained(0.91, 0.913))
    assert entry["difference"] == pytest.approx(0.91 - 0.9115)
    assert entry["holds"]
    assert entry["ours"]["sd"] == pytest.approx(np.std([0.90, 0.92], ddof=1))
    (entry,) = entries("mmoe", trained(0.90), trained(0.9021))
    assert not entry["holds"] and entry["ours"]["sd"] is None
    assert census.table([entry]).row_count == 1


def test_exit_codes(
    cache: EncodedCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--out", str(tmp_path), "--models", "mmoe", "--seeds", "1"]
    assert census.main([*arguments, "--environments", str(tmp_path)]) == 2
    assert "python -m benchmarks.environments torch_rechub" in capsys.readouterr().err
    asked: list[dict[str, Any]] = []

    class Stub:
        """Scores all test rows right, or all wrong."""

        def __init__(self, *_: Any, **__: Any) -> None: ...

        def ask(self, request: dict[str, Any]) -> dict[str, Any]:
            asked.append(request)
            scores = {part: np.full((1, ROWS[part], 2), 0.5) for part in ("valid", "test")}
            labels = cache.labels[cache.rows_of("test")]
            scores["test"][0] = labels if knows else 1 - labels
            np.savez(request["into"], **scores)
            return {"seconds": 1.0, "floats": 1}

        def close(self) -> None: ...

    monkeypatch.setattr(census, "Worker", Stub)
    monkeypatch.setattr(census, "prepare", lambda _: cache)
    monkeypatch.setattr(census.environments, "python_of", lambda *_: Path("python"))
    for knows, code in ((False, 0), (True, 1)):
        assert census.main([*arguments, "--epochs", "1"]) == code
        document = json.loads((tmp_path / "census.json").read_text("utf-8"))
        assert [entry["task"] for entry in document["entries"]] == list(cache.layout.tasks)
        assert all(entry["holds"] is not knows for entry in document["entries"])
        assert document["recipe"]["epochs"] == 1
    assert TaskNetwork.from_json(asked[0]["network"]) == network_of("mmoe", cache)
    assert {key: asked[0][key] for key in ("batch", "epochs", "learning_rate", "seed")} == {
        "batch": 1024,
        "epochs": 1,
        "learning_rate": 1e-3,
        "seed": 0,
    }
    assert "esmm" not in MODELS
