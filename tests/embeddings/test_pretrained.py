"""Pretrained tables: every file form by a round trip, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.embeddings import vector_file
from lfm4ads_tf.embeddings.config import EmbeddingsConfig, TablePretrained
from lfm4ads_tf.embeddings.coverage import Coverage
from lfm4ads_tf.embeddings.hashing import Hashing
from lfm4ads_tf.embeddings.pretrained import load_pretrained
from lfm4ads_tf.embeddings.table import ShardedEmbedding, TableConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.layout import FeatureLayout, IdField, TableField
from lfm4ads_tf.features.spec_file import parse_spec
from lfm4ads_tf.features.vocabulary import Vocabulary
from lfm4ads_tf.models.two_towers import build_embeddings
from lfm4ads_tf.pipeline.pretrained_tables import load_pretrained_tables, table_keys

DIM = 3
KEYS: list[str | None] = [None, *(f"k{i}" for i in range(20))]


def layer_of(shards: int = 1, sets: int = 1, **options: Any) -> ShardedEmbedding:
    """The table `item` between two others."""
    tables = [
        TableConfig("user", 8, DIM),
        TableConfig("item", len(KEYS), DIM, **options),
        TableConfig("tag", 5, DIM),
    ]
    return ShardedEmbedding(tables, [], shards=shards, sets=sets)


def write(folder: Path, form: str, keys: list[str], vectors: np.ndarray) -> TablePretrained:
    """A file of one of the forms that are read."""
    kind, _, form = form.partition(" ")
    path = folder / f"vectors.{kind}"
    rows, width = vectors.shape
    names = [f"v{i}" for i in range(width)]
    if form == "list":
        column = pa.array(list(vectors), pa.list_(pa.float32()))
        pq.write_table(pa.table({"other": range(rows), "key": keys, "vector": column}), path)
    elif form == "large list":
        column = pa.array(list(vectors), pa.large_list(pa.float64()))
        pq.write_table(pa.table({"key": keys, "vector": column}), path)
    elif form == "fixed":
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width)
        pq.write_table(pa.table({"vector": column, "key": keys}), path)
    elif form == "columns":
        columns = dict(zip(names, vectors.T, strict=True))
        pq.write_table(pa.table({"key": keys, **columns}), path)
        return TablePretrained(file=path, vector=names)
    elif kind == "npz" and form == "columns":
        np.savez(path, key=keys, **dict(zip(names, vectors.T, strict=True)))  # type: ignore[arg-type]
        return TablePretrained(file=path, vector=names)
    elif kind == "npz":
        np.savez(path, key=keys, vector=vectors)
    else:
        np.save(path, vectors)
        np.save(folder / "ids.npy", keys)
        return TablePretrained(file=path, key="ids.npy")
    return TablePretrained(file=path)


FORMS = [
    "parquet list", "parquet large list", "parquet fixed", "parquet columns", "npz", "npy",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shards, sets, wide", [(1, 1, False), (3, 2, False), (1, 2, True)])
def test_every_form_lands_at_its_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, shards: int, sets: int, wide: bool
) -> None:
    monkeypatch.setattr(vector_file, "BATCH_ROWS", 4)  # several slices
    layer = layer_of(shards, sets)
    before = {name: layer.read_table(name) for name in ("user", "item", "tag")}
    known = [f"k{i}" for i in (19, 3, 0, 7, 12, 5)]
    keys = ["unknown", *known, "k99", "0"]
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(keys), sets * DIM if wide else DIM)).astype(np.float32)
    coverage = load_pretrained(layer, "item", KEYS, write(tmp_path, form, keys, vectors))
    expected = before["item"].copy()
    for key, vector in zip(keys, vectors, strict=True):
        if key in known:
            expected[KEYS.index(key)] = vector.reshape(-1, DIM)  # one set broadcasts to all
    np.testing.assert_array_equal(layer.read_table("item"), expected)
    for name in ("user", "tag"):
        np.testing.assert_array_equal(layer.read_table(name), before[name])
    missing = [k for k in KEYS if k is not None and k not in known]
    assert coverage == Coverage("item", 20, 14, tuple(missing[:10]))
    assert coverage.share == pytest.approx(6 / 20)
    assert "14 of 20 keys" in str(coverage) and "k1, k2, k4" in str(coverage)


@pytest.mark.parametrize("form", ["parquet list", "npz", "npy"])
def test_keys_are_compared_by_their_one_text(tmp_path: Path, form: str) -> None:
    keys: list[str | None] = [None, *(str(10**10 + i) for i in range(19)), "x"]
    layer = layer_of()
    given = np.array([1e10 + 3, 1e10, 1e10 + 7, 3])
    vectors = np.arange(4 * DIM, dtype=np.float32).reshape(4, DIM)
    source = write(tmp_path, form, given, vectors)  # type: ignore[arg-type]
    coverage = load_pretrained(layer, "item", keys, source)
    assert coverage.missing == 17
    np.testing.assert_array_equal(layer.read_table("item")[[4, 1, 8], 0], vectors[:3])
    told = f"the table has '{10**10 + 1}', '{10**10 + 2}', '{10**10 + 4}', the file '3'"
    assert told in str(coverage)


@settings(max_examples=25, deadline=None)
@given(
    order=st.permutations(range(25)), count=st.integers(0, 25), batch=st.integers(1, 30),
    shards=st.sampled_from([1, 3]),
)  # fmt: skip
def test_any_order_and_slices(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], count: int, batch: int, shards: int
) -> None:
    chosen = order[:count]  # k20 .. k24 are not in the table
    vectors = np.array([[i, -i, i / 2] for i in chosen], np.float32).reshape(count, DIM)
    source = write(
        tmp_path_factory.mktemp("v"), "parquet fixed", [f"k{i}" for i in chosen], vectors
    )
    layer = layer_of(shards)
    expected = layer.read_table("item")[:, 0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_file, "BATCH_ROWS", batch)
        coverage = load_pretrained(layer, "item", KEYS, source)
    for i in chosen:
        if i < 20:
            expected[1 + i] = [i, -i, i / 2]
    np.testing.assert_array_equal(layer.read_table("item")[:, 0], expected)
    assert coverage.missing == 20 - sum(i < 20 for i in chosen)


def test_integer_keys_are_read_as_texts(tmp_path: Path) -> None:
    source = TablePretrained(file=tmp_path / "v.parquet")
    vectors = np.arange(6, dtype=np.float64).reshape(2, DIM)
    pq.write_table(pa.table({"key": [7, 3], "vector": list(vectors)}), source.file)
    layer = layer_of()
    load_pretrained(layer, "item", [str(i) for i in range(len(KEYS))], source)
    np.testing.assert_array_equal(layer.read_table("item")[[7, 3], 0], vectors)


@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
def test_vectors_are_rounded_to_the_storage(tmp_path: Path, storage: str) -> None:
    vectors = np.full((1, DIM), 1 / 3, np.float32)
    layer = layer_of(storage=storage)
    load_pretrained(layer, "item", KEYS, write(tmp_path, "npz", ["k4"], vectors))
    found = layer.read_table("item")[KEYS.index("k4"), 0]
    spacing = {"bfloat16": 2.0**-9, "float16": 2.0**-12}[storage]
    assert 0 < abs(found[0] - 1 / 3) <= spacing / 2


def test_coverage_below_the_bound_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path, "npz", ["k1"], np.ones((1, DIM)))
    enough = source.model_copy(update={"min_coverage": 0.05})
    load_pretrained(layer_of(), "item", KEYS, enough)
    with pytest.raises(UserError, match="too few keys") as error:
        load_pretrained(layer_of(), "item", KEYS, source.model_copy(update={"min_coverage": 0.06}))
    assert "19 of 20 keys" in str(error.value) and "k0, k2" in str(error.value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "keys, vectors, message",
    [
        (["k1", "k2", "k1"], np.ones((3, DIM)), "several vectors for one key"),
        (["k1", "k2"], [[1, 2, 3], [1, np.nan, 3]], "not finite as float32.*\n.*'k2'"),
        (["k1", "k2"], [[1, 2, 3], [-np.inf, 1, 3]], "not finite as float32.*\n.*'k2'"),
        (["k1"], np.ones((1, DIM + 1)), "do not fit into table 'item'.*\n.*4 numbers"),
        (["k1", ""], np.ones((2, DIM)), "has no key"),
    ],
)
def test_bad_rows_are_refused(
    tmp_path: Path, form: str, keys: list[str], vectors: Any, message: str
) -> None:
    source = write(tmp_path, form, keys, np.asarray(vectors, np.float32))
    with pytest.raises(UserError, match=message):
        load_pretrained(layer_of(), "item", KEYS, source)


def test_one_key_in_two_slices_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_file, "BATCH_ROWS", 2)
    source = write(tmp_path, "parquet list", ["k1", "k2", "k3", "k1"], np.ones((4, DIM)))
    with pytest.raises(UserError, match="several vectors for one key.*\n.*'k1'"):
        load_pretrained(layer_of(), "item", KEYS, source)


def test_what_a_half_cannot_hold_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path, "npz", ["k1"], np.full((1, DIM), 70_000.0))
    load_pretrained(layer_of(), "item", KEYS, source)
    with pytest.raises(UserError, match="not finite as float16"):
        load_pretrained(layer_of(storage="float16"), "item", KEYS, source)


def test_missing_numbers_and_ragged_lists_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.parquet"
    for vectors, message in (
        ([[1.0, None, 2.0]], "not finite"),
        ([None], "do not fit"),
        ([[1.0, 2.0]], "do not fit.*\n.*2 numbers"),
        ([["a", "b", "c"]], "does not hold vectors of numbers"),
    ):
        kind = pa.list_(pa.string() if "hold" in message else pa.float32())
        pq.write_table(pa.table({"key": ["k1"], "vector": pa.array(vectors, kind)}), path)
        with pytest.raises(UserError, match=message):
            load_pretrained(layer_of(), "item", KEYS, TablePretrained(file=path))


@pytest.mark.parametrize("suffix", ["parquet", "npz", "npy"])
def test_files_that_cannot_be_read_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"v.{suffix}"
    source = TablePretrained(file=path, key="keys.npy" if suffix == "npy" else "key")
    with pytest.raises(UserError, match="cannot be read"):
        load_pretrained(layer_of(), "item", KEYS, source)
    np.save(tmp_path / "keys.npy", ["k1"])
    for content in (b"", b"no such format"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="cannot be read"):
            load_pretrained(layer_of(), "item", KEYS, source)


def test_wrong_sources_are_refused(tmp_path: Path) -> None:
    def load(**options: Any) -> None:
        load_pretrained(layer_of(), "item", KEYS, TablePretrained(**options))

    csv = tmp_path / "v.csv"
    with pytest.raises(UserError, match=r"ends with \.parquet, \.npz, \.npy"):
        load(file=csv)
    good = write(tmp_path, "parquet list", ["k1"], np.ones((1, DIM))).file
    with pytest.raises(UserError, match="no column 'keys'.*Did you mean 'key'"):
        load(file=good, key="keys")
    with pytest.raises(UserError, match="no column 'vectors'"):
        load(file=good, vector="vectors")
    arrays = write(tmp_path, "npy", ["k1"], np.ones((1, DIM))).file
    with pytest.raises(UserError, match="need a file of their keys"):
        load(file=arrays)
    np.save(tmp_path / "ids.npy", ["k1", "k2"])
    with pytest.raises(UserError, match="do not match"):
        load(file=arrays, key="ids.npy")
    texts = tmp_path / "t.npz"
    np.savez(texts, key=["k1"], vector=[["a", "b", "c"]])
    with pytest.raises(UserError, match="does not hold vectors of numbers"):
        load(file=texts)


def test_tables_and_keys_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path, "npz", ["k1"], np.ones((1, DIM)))
    with pytest.raises(UserError, match="several hashes"):
        load_pretrained(layer_of(hashing=Hashing("double", 4)), "item", KEYS, source)
    with pytest.raises(UserError, match="Did you mean 'item'"):
        load_pretrained(layer_of(), "itme", KEYS, source)
    with pytest.raises(ValueError, match="21 ids, received 20 keys"):
        load_pretrained(layer_of(), "item", KEYS[1:], source)
    with pytest.raises(ValueError, match="19 distinct"):
        load_pretrained(layer_of(), "item", [None, "k1", *KEYS[2:]], source)


# -- in a run -------------------------------------------------------------------------------------

SPEC = parse_spec(
    {
        "name": "small",
        "log": {"files": ["log.parquet"]},
        "keys": {"user": "user", "item": "item", "time": "t"},
        "tasks": {"click": "click"},
        "split": {"by": "time", "train_until": 1, "valid_until": 2},
        "features": {
            "user": {"owner": "user", "kind": "hashed", "buckets": 9},
            "item": {"owner": "item", "kind": "vocabulary"},
            "shelf": {"owner": "item", "kind": "identity", "size": 4},
        },
    },
    source="small.yaml",
)
FITTED = FittedEncoding(vocabularies={"item": Vocabulary(["b", "a", "c"], np.arange(3))})
LAYOUT = FeatureLayout(
    fields=(
        IdField("user", "user", "user"),
        IdField("item", "item", "item"),
        IdField("shelf", "item", "shelf"),
    ),
    dense=(),
    tables=(TableField("user", 9), TableField("item", 4), TableField("shelf", 4, 2)),
    scenarios=("all",),
    tasks=("click",),
)


def test_keys_of_a_table_are_in_the_order_of_its_ids() -> None:
    assert table_keys(SPEC, FITTED, "item") == [None, "b", "a", "c"]
    assert table_keys(SPEC, FITTED, "shelf") == ["0", "1", "2", "3"]
    with pytest.raises(UserError, match="Table 'user' cannot be loaded.*\n.*'hashed'"):
        table_keys(SPEC, FITTED, "user")


def test_a_run_loads_its_tables_and_names_the_missing_keys(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write(tmp_path, "parquet list", ["c", "b"], np.array([[3.0] * DIM, [1.0] * DIM]))
    config = EmbeddingsConfig.model_validate(
        {"dim": DIM, "tables": {"item": {"pretrained": source.model_dump(), "trainable": False}}}
    )
    layer = build_embeddings(LAYOUT, config, seed=0)
    FITTED.save(tmp_path / "data" / "encoding")
    run = cast(Any, SimpleNamespace(out=tmp_path, spec=SPEC))
    with caplog.at_level(logging.INFO):
        load_pretrained_tables(run, layer, config)
        load_pretrained_tables(run, build_embeddings(LAYOUT, config, seed=1), config)
    found = layer.read_table("item")[:, 0]
    np.testing.assert_array_equal(found[[1, 3]], [[1.0] * DIM, [3.0] * DIM])
    (record,) = [r for r in caplog.records if "pretrained" in r.getMessage()]
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("table 'item': 1 of 3 keys")
    assert "initial values: a (" in record.getMessage()


def test_table_options_reach_the_tables() -> None:
    config = EmbeddingsConfig.model_validate(
        {
            "dim": 4,
            "storage": "bfloat16",
            "tables_per_width": 2,
            "init_scale": 0.2,
            "tables": {
                "user": {"hashing": {"kind": "quotient_remainder", "buckets": 3}, "group": "slow"},
                "item": {"trainable": False, "storage": "float32", "init_scale": 2.0},
                "shelf": {"dim": 5},
            },
        }
    )
    layer = build_embeddings(LAYOUT, config, seed=0)
    hashing = Hashing("quotient_remainder", 3)
    assert list(layer.layout.tables.values()) == [
        TableConfig("user", 9, 4, 0.2, "bfloat16", True, "slow", hashing),
        TableConfig("item", 4, 4, 2.0, "float32", False),
        TableConfig("shelf", 4, 5, 0.2, "bfloat16"),
    ]
    assert layer.tables_per_width == 2
    served = build_embeddings(LAYOUT, config.served(1), seed=0)
    assert set(served.physical) == {"4", "5"}
    assert {part.dtype.name for part in served.all_parts()} == {"float32"}
    assert served.layout.table("user").hashing == hashing


def test_unknown_tables_and_contradictions_are_refused() -> None:
    config = EmbeddingsConfig.model_validate({"tables": {"itm": {"trainable": False}}})
    with pytest.raises(UserError, match="unknown table 'itm'. Did you mean 'item'"):
        build_embeddings(LAYOUT, config, seed=0)
    both = {"hashing": {"kind": "double", "buckets": 3}, "pretrained": {"file": "v.npz"}}
    with pytest.raises(ValueError, match="no row per key"):
        EmbeddingsConfig.model_validate({"tables": {"item": both}})
