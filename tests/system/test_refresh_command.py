"""`train.py refresh`: versions side by side, nothing mixed, nothing half-written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.splits import TEST, TRAIN, VALID
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.pipeline import continuation
from lfm4ads_tf.pipeline.run import open_run
from lfm4ads_tf.pipeline.trained_models import load_upstream
from lfm4ads_tf.progress import Progress
from lfm4ads_tf.representations.extraction import Extraction
from lfm4ads_tf.representations.store import RepresentationStore
from lfm4ads_tf.representations.writer import RepresentationWriter
from lfm4ads_tf.training.checkpoints import read_weights
from tests.rounding import assert_close

pytestmark = pytest.mark.slow

METHOD = "feature~2Flinear~2FUR"


def test_the_first_version_is_untouched(refreshed: Any) -> None:
    assert refreshed.digests(refreshed.out) == refreshed.before
    assert not list((refreshed.out / "versions").glob(".*"))


def test_versions_are_listed(refreshed: Any) -> None:
    listed = json.loads((refreshed.out / "versions.json").read_text("utf-8"))["versions"]
    first, second = listed
    assert (first["version"], first["folder"], first["parent"]) == (1, ".", None)
    assert (second["version"], second["folder"], second["parent"]) == (2, "versions/2", 1)
    assert second["first_period"] == second["last_period"] == "20260106"
    lines = (refreshed.days[6] / "shop.csv").read_text("utf-8").splitlines()
    assert second["new_rows"] == len(lines) - 1
    data = EncodedCache(refreshed.out / "versions" / "2" / "data")
    assert second["data"] == data.manifest["fingerprint"] != first["data"]


def test_upstream_goes_on_from_the_parent_by_name(refreshed: Any) -> None:
    old, new = open_run(refreshed.out), open_run(refreshed.out / "versions" / "2")
    encodings = [FittedEncoding.load(r.out / "data" / "encoding").vocabularies for r in (old, new)]
    column = [f.name for f in new.cache.layout.single].index("user_id")
    before, after = (v["user_id"].values for v in encodings)
    assert after[: len(before)] == before
    seen = set(new.cache.column("ids")[new.cache.period >= 3, column].tolist())
    rows = []
    for run in (old, new):
        layer = load_upstream(run, 0).backbone.embeddings
        rows.append(layer.read_rows("user_id", 0, 1 + len(before)))
    idle = [k for k in range(1 + len(before)) if k not in seen]
    active = sorted(k for k in seen if 0 <= k <= len(before))
    assert idle and active
    np.testing.assert_array_equal(rows[0][idle], rows[1][idle])
    assert (rows[0][active] != rows[1][active]).any(axis=1).all()
    snapshots = {p.name for p in (new.upstream(0) / "snapshots").iterdir()}
    assert snapshots == {"1", "2", "3", "4", "5", "6"}


def test_representations_are_those_of_one_extraction_by_the_same_weights(
    refreshed: Any, tmp_path: Path
) -> None:
    old, new = open_run(refreshed.out), open_run(refreshed.out / "versions" / "2")
    cache, config = new.cache, new.config.representations
    model = load_upstream(new, 0)
    writer = RepresentationWriter(tmp_path)
    with Extraction(model, cache, config, writer) as extraction:
        for period in range(6):
            held_out = period in (3, 4)  # of the first version: by its weights
            source = old.upstream(0) / "weights"
            if not held_out:
                source = new.upstream(0) / "snapshots" / str(period + 1)
            read_weights(model, source)
            rows = np.flatnonzero(cache.period == period)
            extraction.advance(rows, period, "daily" if held_out else "train")
        extraction.save(tmp_path / "state")
    writer.close({"version": "at once", "mode": "daily", "refreshed": 2})
    once = RepresentationStore(tmp_path)
    stored = RepresentationStore(new.representations(0))
    crosses = [n for n in stored.dims if n.startswith("CR_")]
    assert len(crosses) == 2 * len(model.layer_names)
    for name in crosses:
        for until in range(1, 7):
            ours, theirs = (s.frozen(name, until) for s in (stored, once))
            by_key = [dict(zip(k.to_pylist(), v, strict=True)) for k, v in (ours, theirs)]
            assert by_key[0].keys() == by_key[1].keys()
            for key, vector in by_key[1].items():
                assert_close(by_key[0][key], vector, terms=100)
    compared = 0
    for path in (tmp_path / "state").rglob("*.npy"):
        same = stored.folder / "state" / "latest" / path.relative_to(tmp_path / "state")
        if path.parent.name != "tower":  # UR and IR are read from the rows ahead
            assert_close(np.load(same), np.load(path), terms=100)
            compared += 1
    assert compared > 4


def test_every_row_sees_the_latest_earlier_part(refreshed: Any) -> None:
    run = open_run(refreshed.out / "versions" / "2")
    cache, store = run.cache, RepresentationStore(run.representations(0))
    for name in ("UR", "CR_item@dnn_1"):
        item = name.startswith("CR_item")
        codes = cache.item if item else cache.user
        keys = cache.keys("item" if item else "user").take(codes).to_pylist()
        entry = store.manifest["representations"][name]
        parts = [
            (part["valid_from"], pq.read_table(store.folder / part["file"]).to_pydict())
            for part in [*entry["parts"], *entry.get("refreshed", [])]
        ]
        held = [(v, dict(zip(t["key"], t["vector"], strict=True))) for v, t in parts]
        for refresh in ("frozen", "daily"):
            got = store.lookup(cache, [name], refresh)(np.arange(cache.rows))[name]  # type: ignore[arg-type]
            for row in range(0, cache.rows, 7):
                seen = [(v, p[keys[row]]) for v, p in held if keys[row] in p]
                seen = [x for x in seen if x[0] <= cache.period[row]]
                assert got[row, -1] == bool(seen)
                if seen:
                    np.testing.assert_array_equal(
                        got[row, :-1], np.float32(max(seen, key=lambda x: x[0])[1])
                    )
    # what is served is newer than what any row has seen
    assert max(v for v, _ in held) == 6 > cache.period.max()


def test_a_downstream_is_trained_on_the_new_version_and_a_third_one_follows(
    refreshed: Any, refreshed_copy: Path, cli: Callable[..., Any], tmp_path: Path
) -> None:
    second = refreshed_copy / "versions" / "2"
    done = cli("transfer", *refreshed.options, "--out", second)
    assert done.code == 0, done.text
    results = json.loads(
        (second / "downstream" / "home" / METHOD / "seed_0" / "results.json").read_text("utf-8")
    )
    store = RepresentationStore(second / "representations" / "seed_0")
    assert results["representations"] == store.version
    assert store.version.startswith("v2-seed_0-")
    scores = tmp_path / "scores.parquet"
    source = refreshed.days[7] / "shop.csv"
    for out in (refreshed_copy, second):
        done = cli(
            "predict", "--out", out, "--model", "ranker_home", "--input", source, "--output", scores
        )
        assert done.code == 0, done.text
    done = cli("refresh", "--out", refreshed_copy, "--data-dir", refreshed.days[7], "--quiet")
    assert done.code == 0, done.text
    third = EncodedCache(refreshed_copy / "versions" / "3" / "data")
    assert third.manifest["version"] == 3
    days = {c: set(third.period[third.split == c].tolist()) for c in (TRAIN, VALID, TEST)}
    assert days == {TRAIN: {0, 1, 2, 3, 4}, VALID: {5}, TEST: {6}}
    snapshots = refreshed_copy / "versions" / "3" / "upstream" / "seed_0" / "snapshots"
    assert {p.name for p in snapshots.iterdir()} == {str(k) for k in range(1, 8)}


def test_the_index_gets_new_items_without_training(refreshed: Any) -> None:
    from lfm4ads_tf.pipeline.retrieval_choice import chosen_retrieval
    from lfm4ads_tf.pipeline.retrieval_model import load_retrieval_model

    old, new = open_run(refreshed.out), open_run(refreshed.out / "versions" / "2")
    chosen = chosen_retrieval(new)
    assert chosen is not None and chosen == chosen_retrieval(old)
    one, other = (load_retrieval_model(r, *chosen, 0) for r in (old, new))
    for mine, theirs in zip(one.model.weights, other.model.weights, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
    keys, vectors = RepresentationStore(new.representations(0)).frozen("IR")
    position = {key: k for k, key in enumerate(keys.to_pylist())}
    names = new.cache.keys("item").to_pylist()
    items = other.items(newest=True)
    assert len(items) >= len(one.items())
    compared = 0
    for place, code in enumerate(other.candidates.codes.tolist()):
        if names[code] in position:
            np.testing.assert_array_equal(items[place], vectors[position[names[code]]])
            compared += 1
    assert compared > 20
    assert not np.array_equal(other.items(), items)  # recall is scored by what held-out rows knew


def test_an_interrupted_refresh_leaves_the_run_as_it_was_and_goes_on(
    refreshed: Any, tmp_path: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(refreshed.out, tmp_path / "run"))
    shutil.rmtree(out / "versions")
    (out / "versions.json").unlink()
    command = ["refresh", "--out", out, "--input", refreshed.days[6] / "shop.csv", "--quiet"]
    steps = 0
    advance = Progress.advance

    def stop_in_training(self: Progress, count: int = 1) -> None:
        nonlocal steps
        steps += 1
        if steps == 12:
            raise KeyboardInterrupt
        advance(self, count)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "advance", stop_in_training)
        assert cli(*command).code == 130

    def stop_in_extraction(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        assert refreshed.digests(out) == refreshed.before
        assert not (out / "versions.json").exists()
        assert [p.name for p in (out / "versions").iterdir()] == [".2.unfinished"]
        with monkeypatch.context() as patch:
            patch.setattr(continuation, "extend", stop_in_extraction)
            assert cli(*command).code == 130
    done = cli(*command)
    assert done.code == 0, done.text
    assert "resumed upstream seed 0" in (out / "log.txt").read_text("utf-8")
    # as if it had not been stopped
    ours, theirs = out / "versions" / "2", refreshed.out / "versions" / "2"
    for name in ("UR", "CR_user@dnn_1"):
        one, other = (
            RepresentationStore(v / "representations" / "seed_0").frozen(name)
            for v in (ours, theirs)
        )
        assert one[0].to_pylist() == other[0].to_pylist()
        np.testing.assert_array_equal(one[1], other[1])
    assert cli(*command).code == 0  # the same files again: nothing is left to do
    assert {p.name for p in (out / "versions").iterdir()} == {"2"}


@pytest.mark.slow
def test_an_exported_index_gets_a_new_version(
    refreshed: Any,
    refreshed_copy: Path,
    cli: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import tensorflow as tf

    from lfm4ads_tf.export import stage

    due = stage._Exports.is_due

    def approximate_alone(self: Any, name: str, source: Any) -> bool:
        return name == "retrieval_ann" and due(self, name, source)

    monkeypatch.setattr(stage._Exports, "is_due", approximate_alone)
    index = refreshed_copy / "exports" / "retrieval_ann"
    index.mkdir(parents=True)
    second = open_run(refreshed_copy / "versions" / "2")
    stage.export_index(second)
    path = refreshed.days[7] / "shop.csv"
    done = cli("refresh", "--out", refreshed_copy, "--input", path, "--quiet")
    assert done.code == 0, done.text
    assert sorted(p.name for p in index.iterdir()) == ["1", "2"]
    again = cli("refresh", "--out", refreshed_copy, "--input", path, "--quiet")
    assert again.code == 0 and sorted(p.name for p in index.iterdir()) == ["1", "2"]
    newest = open_run(refreshed_copy / "versions" / "3")
    blessing = json.loads((index / "2" / "blessing.json").read_text("utf-8"))
    assert blessing["source"]["method"] == "model/IR*UR"
    served = tf.saved_model.load(str(index / "2"))
    assert served.signatures
    # the centroids are the second version's, unless the items moved too far from them
    kept = "the items have moved away" not in done.text
    files = [v.out / "retrieval" for v in (second, newest)]
    one, other = (np.load(next(f.rglob("partition.npz")))["centroids"] for f in files)
    assert np.array_equal(one, other) == kept
