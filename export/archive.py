"""Writes signatures as a SavedModel, and says what was written."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow.python.saved_model import fingerprinting_utils

from export.signature import Signature

_GRAPH = "saved_model.pb"


def write_archive(folder: Path, signatures: Sequence[Signature], resources: Sequence[Any]) -> None:
    """Writes a SavedModel of some signatures.

    Only the variables that a signature reads are written, so no optimizer slot comes along. All
    signatures of Classify and Regress read one input tensor, as MultiInference demands.

    Args:
        folder: An existing empty folder.
        signatures: The signatures; the default one is named `serving_default`.
        resources: Lookup tables, which are not found through the signatures as variables are.
    """
    archive = tf_keras.export.ExportArchive()
    for resource in resources:
        archive.track(resource)
    # No layer branches on a tensor; AutoGraph would only take most of the time of a trace.
    plain = tf.autograph.experimental.do_not_convert
    for signature in signatures:
        archive.add_endpoint(signature.name, plain(signature.function), [signature.inputs])
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints every signature
            archive.write_out(str(folder))
    finally:
        logger.setLevel(level)
    path = folder / _GRAPH
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    graph = saved.meta_graphs[0]
    for signature in signatures:
        graph.signature_def[signature.name].method_name = signature.method_name
    _share_input(graph, [s.name for s in signatures if s.method != "predict"])
    path.write_bytes(saved.SerializeToString(deterministic=True))
    fingerprinting_utils.write_fingerprint(str(folder))  # of the graph as it is now


def described_signatures(folder: Path) -> dict[str, dict[str, Any]]:
    """The signatures of a SavedModel as plain values.

    Returns:
        Name -> `method`; `inputs` and `outputs`, each key -> `dtype` and `shape`, with None for any
        size or any rank.
    """
    saved = saved_model_pb2.SavedModel.FromString((folder / _GRAPH).read_bytes())
    return {
        name: {
            "method": signature.method_name,
            "inputs": {key: _described(info) for key, info in sorted(signature.inputs.items())},
            "outputs": {key: _described(info) for key, info in sorted(signature.outputs.items())},
        }
        for name, signature in sorted(saved.meta_graphs[0].signature_def.items())
        if not name.startswith("__")
    }


def _described(info: meta_graph_pb2.TensorInfo) -> dict[str, Any]:
    shape: list[int | None] | None = None  # of unknown rank
    if not info.tensor_shape.unknown_rank:
        shape = [None if d.size < 0 else int(d.size) for d in info.tensor_shape.dim]
    return {"dtype": tf.as_dtype(info.dtype).name, "shape": shape}


def _share_input(graph: meta_graph_pb2.MetaGraphDef, names: Sequence[str]) -> None:
    """Makes several signatures of one input each read the first one's placeholder."""
    if len(names) < 2:
        return
    ends = [next(iter(graph.signature_def[name].inputs.values())) for name in names]
    kept = ends[0].name
    replaced = {end.name.partition(":")[0] for end in ends[1:]}
    for node in graph.graph_def.node:
        for i, source in enumerate(node.input):
            if source.partition(":")[0] in replaced:
                node.input[i] = kept.partition(":")[0]
    for i in reversed(range(len(graph.graph_def.node))):
        if graph.graph_def.node[i].name in replaced:
            del graph.graph_def.node[i]
    for end in ends[1:]:
        end.name = kept
