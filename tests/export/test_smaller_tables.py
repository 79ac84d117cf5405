"""Exports with tables of float16 and int8: proven like others, smaller, near in their scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

from lfm4ads_tf.config import ExportConfig
from lfm4ads_tf.errors import ExportRefused
from lfm4ads_tf.export.merging import TOLERANCES
from lfm4ads_tf.export.verify_child import array_of
from tests.quick_proof import quick_proof


def stored_tables(version: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> type and shape of the tables' variables."""
    saved = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    return {
        node.variable.name: (
            tf.as_dtype(node.variable.dtype).name,
            tuple(d.size for d in node.variable.shape.dim),
        )
        for node in saved.meta_graphs[0].object_graph_def.nodes
        if node.WhichOneof("kind") == "variable" and "/table_" in node.variable.name
    }


def table_bytes(version: Path) -> int:
    return sum(
        tf.as_dtype(dtype).size * int(np.prod(shape))
        for dtype, shape in stored_tables(version).values()
    )


@pytest.mark.parametrize(
    ("kind", "storage"),
    [
        pytest.param("ranker_tab 1", "int8", marks=pytest.mark.slow),
        pytest.param("foundation", "float16", marks=pytest.mark.slow),
        pytest.param("foundation", "int8", marks=pytest.mark.slow),
        pytest.param("item_tower", "int8", marks=pytest.mark.slow),
    ],
)
def test_an_export_with_smaller_tables_is_blessed(
    kind: str, storage: Any, world: Any, models: Any, exports: Path, tmp_path: Path
) -> None:
    """The blessing itself holds all signatures against the trained model, which has float32."""
    config = ExportConfig(warmup_rows=2, tables=storage)
    with quick_proof(but=["item_tower"]):
        version = world.export(kind, models[kind], tmp_path, config=config)
    wide = exports / kind / "1"
    contract = json.loads((version / "assets.extra" / "contract.json").read_text("utf-8"))
    assert (contract["tables"], contract["tolerance"]) == (storage, TOLERANCES[storage])
    blessing = json.loads((version / "blessing.json").read_text("utf-8"))
    assert blessing["blessed"]
    found_apart = blessing["evaluation"]
    assert 0 < found_apart["largest_difference"] and 0 < found_apart["largest_share"] <= 1

    found, before = stored_tables(version), stored_tables(wide)
    kept = {"int8": {"int8", "float32"}, "float16": {"float16"}}[storage]
    assert {dtype for dtype, _ in found.values()} == kept
    rows = {shape for dtype, shape in before.values()}
    assert {shape for dtype, shape in found.values() if dtype == storage} == rows
    if storage == "int8":  # one scale per row and set; sets are 2 here
        scales = {shape for name, (_, shape) in found.items() if name.endswith("/scales")}
        assert scales == {(count, 2) for count, _ in rows}
        assert table_bytes(version) == sum(count * (width + 2 * 4) for count, width in rows)
    else:
        assert 2 * table_bytes(version) == table_bytes(wide)

    saved = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    library = saved.meta_graphs[0].graph_def.library.function
    functions = {function.signature.name for function in library}
    nodes = [n for f in library for n in f.node_def]
    ops = {n.op for n in nodes} - functions
    assert not [op for op in ops if op_def_registry.get(op) is None]
    assert {n.attr["DstT"].type for n in nodes if n.op == "Cast"} >= {tf.float32.as_datatype_enum}

    with np.load(wide / "assets.extra" / "golden.npz") as golden:
        proto = golden["requests/serving_default/examples"].tobytes()
        expected = {
            key.rpartition("/")[2]: golden[key]
            for key in golden.files
            if key.startswith("expected/serving_default/")
        }
    examples = tf.constant(array_of(proto))
    loaded = tf.saved_model.load(str(version))
    outputs = loaded.signatures["serving_default"](examples=examples)
    assert outputs.keys() == expected.keys()
    for name, values in outputs.items():
        wanted = expected[name]
        terms = np.abs(wanted).reshape(len(wanted), -1).max(axis=1, keepdims=True)  # (B, 1)
        if name != "representation":
            terms = np.ones(1)  # a probability
        difference = np.abs(values.numpy() - wanted) / terms
        assert 0 < difference.max() <= TOLERANCES[storage]  # the tables are others, and near


def test_weights_that_int8_cannot_keep_refuse_the_export(world: Any, tmp_path: Path) -> None:
    model = world.built(lambda: world.foundation(shards=1))
    model.backbone.embeddings.write_rows("item_id", 0, np.full((1, 16), np.inf))
    with pytest.raises(ExportRefused, match="'foundation' is refused: .*not finite.*inf"):
        world.export("foundation", model, tmp_path, config=ExportConfig(tables="int8"))
    assert not (tmp_path / "foundation").exists()  # no empty folder either


@pytest.mark.slow
def test_a_ranker_with_int8_tables_is_near(
    world: Any, models: Any, exports: Path, tmp_path: Path, unproven: None
) -> None:
    """The quick part of the test above: sizes and scores, without the blessing."""
    kind = "ranker_tab 1"
    config = ExportConfig(warmup_rows=2, tables="int8")
    version = world.export(kind, models[kind], tmp_path, config=config)
    before = stored_tables(exports / kind / "1")
    rows = [shape for _, shape in before.values()]
    assert table_bytes(version) == sum(count * (width + 2 * 4) for count, width in rows)
    with np.load(exports / kind / "1" / "assets.extra" / "golden.npz") as golden:
        examples = tf.constant(array_of(golden["requests/serving_default/examples"].tobytes()))
        expected = golden["expected/serving_default/click"]
    outputs = tf.saved_model.load(str(version)).signatures["serving_default"](examples=examples)
    assert 0 < np.abs(outputs["click"] - expected).max() <= TOLERANCES["int8"]
